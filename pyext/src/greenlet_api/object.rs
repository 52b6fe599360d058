//! The type `greenlet.greenlet`.
//!
//! # Invariant
//!
//! `Greenlet::inner` is set by `tp_new` before anybody else has the object, and null again when it is freed;
//! the collector may look at it before and after. A suspended greenlet's frames are shown to the collector by
//! the greenlet and by nobody else; it is not cleared as long as it has a stack.

use super::layout::{Greenlet, Inner, Parcel, Phase, TYPE, drop_ref, is_greenlet, new_ref};
use super::note_call::{self, NotedCall};
use super::switch::{self, is_running, main_of, running_context};
use super::thread::{self, current, quiet_record, record};
use super::{exceptions, names};
use crate::barrier::barrier;
use crate::error;
use crate::interp::contexts;
use crate::interp::references::{Visitor, set_finalized};
use crate::leaks::Reason;
use crate::mailbox::Mail;
use crate::messages;
use crate::thread::Thread;
use crate::type_tables::{Table, attribute, last_attribute, set_flags};
use crate::worker::Worker;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

unsafe extern "C" {
    /// Public, without the underscore, from 3.13 on; exported before.
    #[cfg_attr(any(cpython = "3.11", cpython = "3.12"), link_name = "_Py_IsFinalizing")]
    fn Py_IsFinalizing() -> c_int;
}

/// Whether the interpreter is exiting: no code of greenlets runs any more.
pub(super) fn is_exiting() -> bool {
    // SAFETY: may always be asked.
    unsafe { Py_IsFinalizing() != 0 }
}

unsafe fn inner_of(this: *mut PyObject) -> *mut Inner {
    // SAFETY: a greenlet.
    unsafe { (*this.cast::<Greenlet>()).inner }
}

// ---------------------------------------------------------------------------------------------
// Life

/// `tp_new`. The arguments are `tp_init`'s.
pub(super) unsafe extern "C" fn tp_new(
    class: *mut PyTypeObject,
    _arguments: *mut PyObject,
    _keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; a subclass of ours. `object` refuses abstract classes.
        unsafe {
            let record = record();
            if record.is_null() {
                return ptr::null_mut();
            }
            let Some(new) = ffi::PyBaseObject_Type.tp_new else { return ptr::null_mut() };
            let this = new(class, names::empty_tuple(), ptr::null_mut());
            if this.is_null() {
                return this;
            }
            let mut inner = Inner::new();
            inner.parent = new_ref(current(record));
            (*this.cast::<Greenlet>()).inner = Box::into_raw(Box::new(inner));
            this
        }
    })
}

/// `tp_init`.
pub(super) unsafe extern "C" fn tp_init(
    this: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> c_int {
    barrier(-1, || {
        let (mut run, mut parent) = (ptr::null_mut::<PyObject>(), ptr::null_mut::<PyObject>());
        let mut known: [*mut c_char; 3] =
            [c"run".as_ptr().cast_mut(), c"parent".as_ptr().cast_mut(), ptr::null_mut()];
        // SAFETY: two format units, two pointers; borrowed.
        unsafe {
            if ffi::PyArg_ParseTupleAndKeywords(
                arguments,
                keywords,
                c"|OO:green".as_ptr(),
                known.as_mut_ptr().cast(),
                &raw mut run,
                &raw mut parent,
            ) == 0
            {
                return -1;
            }
            if !run.is_null() && set_run(this, run, ptr::null_mut()) < 0 {
                return -1;
            }
            if !parent.is_null() && parent != ffi::Py_None() {
                return set_parent(this, parent, ptr::null_mut());
            }
            0
        }
    })
}

unsafe extern "C" fn tp_traverse(
    this: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let mut visitor = Visitor::new(visit, argument);
    // SAFETY: the collector runs with the GIL held. Each reference shown is one that this greenlet or its
    // suspended frames own.
    unsafe {
        visitor.object((*this.cast::<Greenlet>()).dict);
        let inner = inner_of(this);
        if inner.is_null() {
            return visitor.result;
        }
        visitor.object((*inner).parent.cast());
        visitor.object((*inner).main.cast());
        visitor.object((*inner).run);
        visitor.object((*inner).found_run);
        visitor.object((*inner).arguments);
        visitor.object((*inner).keywords);
        visitor.object((*inner).context);
        let worker = (*inner).worker;
        if !worker.is_null() && ((*inner).is_away || (*worker).waits) {
            visitor.object(Worker::guest_context(worker));
            (*inner).switch_call.traverse(&mut visitor);
            if (*worker).mid_step || (*worker).waits {
                Worker::traverse(worker, &mut visitor);
            }
        }
    }
    visitor.result
}

/// Lets go of everything but the stack.
unsafe fn clear(this: *mut PyObject) {
    // SAFETY: attached; owned. What is dropped is taken out before.
    unsafe {
        let inner = inner_of(this);
        let objects = [
            std::mem::replace(&mut (*inner).run, ptr::null_mut()),
            std::mem::replace(&mut (*inner).found_run, ptr::null_mut()),
            std::mem::replace(&mut (*inner).arguments, ptr::null_mut()),
            std::mem::replace(&mut (*inner).keywords, ptr::null_mut()),
            std::mem::replace(&mut (*inner).context, ptr::null_mut()),
            std::mem::replace(&mut (*inner).main, ptr::null_mut()).cast(),
        ];
        for object in objects {
            ffi::Py_XDECREF(object);
        }
        drop_parents(std::mem::replace(&mut (*inner).parent, ptr::null_mut()));
    }
}

/// Drops a parent (owned, or null), and its parents if nobody else has them: one after the other, as the C stack is
/// not as long as their line may be.
unsafe fn drop_parents(mut parent: *mut Greenlet) {
    // SAFETY: attached; owned. Of one that we alone have, nobody sees that its parent is gone before it: code of its
    // class (which has another `tp_dealloc`, with the interpreter's own measures against depth) would.
    unsafe {
        while !parent.is_null() {
            let object: *mut PyObject = parent.cast();
            let is_ours = |object: *mut PyObject| {
                ffi::Py_REFCNT(object) == 1
                    && (*ffi::Py_TYPE(object)).tp_dealloc.is_some_and(|function| {
                        ptr::fn_addr_eq(function, tp_dealloc as ffi::destructor)
                    })
            };
            if is_ours(object) && can_be_ended(inner_of(object)) {
                error::keeping(|| finish(object));
            }
            let mut next = ptr::null_mut();
            if is_ours(object) {
                next = std::mem::replace(&mut (*inner_of(object)).parent, ptr::null_mut());
            }
            ffi::Py_DECREF(object);
            parent = next;
        }
    }
}

unsafe fn clear_dict(this: *mut PyObject) {
    let this: *mut Greenlet = this.cast();
    // SAFETY: attached; owned.
    unsafe {
        let dict = std::mem::replace(&mut (*this).dict, ptr::null_mut());
        ffi::Py_XDECREF(dict);
    }
}

unsafe extern "C" fn tp_clear(this: *mut PyObject) -> c_int {
    // SAFETY: called by the collector. One that is active has not ended when it was finalized; its code may still
    // be switched to by what it has given itself to.
    unsafe {
        let inner = inner_of(this);
        if !inner.is_null() && (*inner).worker.is_null() {
            clear_dict(this);
            clear(this);
        }
    }
    0
}

/// Ends a suspended greenlet that nobody refers to any more.
unsafe extern "C" fn tp_finalize(this: *mut PyObject) {
    barrier((), || {
        // SAFETY: attached; alive. An error that is set belongs to whoever dropped the last reference.
        unsafe {
            if can_be_ended(inner_of(this)) {
                error::keeping(|| finish(this));
            }
        }
    });
}

/// Whether GreenletExit can be raised in it, here or on its own thread.
unsafe fn can_be_ended(inner: *mut Inner) -> bool {
    // SAFETY: null, or a greenlet's.
    unsafe {
        !inner.is_null()
            && !(*inner).worker.is_null()
            && (*inner).is_away
            && !(*inner).is_condemned
            && !is_abandoned(inner)
            && !is_exiting()
    }
}

unsafe fn finish(this: *mut PyObject) {
    // SAFETY: attached, no error set; it can be ended. Who deallocates it has lent it one reference; the collector
    // has one of its own, besides those that it has found.
    unsafe {
        let inner = inner_of(this);
        let is_collected = ffi::Py_REFCNT(this) > 1;
        let record = quiet_record();
        if record.is_null() {
            return ffi::PyErr_WriteUnraisable(this);
        }
        if (*record).main != (*inner).main {
            return send_home(this);
        }
        switch::kill(record, this.cast());
        if !(*inner).is_active() {
            return;
        }
        if is_collected {
            (*inner).is_condemned = true;
        } else if ffi::Py_REFCNT(this) == 1 {
            ffi::Py_INCREF(this); // for ever: nobody knows what else to do with it
            complain(this);
        }
    }
}

/// Says that a greenlet goes on after GreenletExit, though nobody refers to it.
unsafe fn complain(this: *mut PyObject) {
    // SAFETY: attached, no error set; `sys.stderr` is owned while it is written to.
    unsafe {
        let stderr = ffi::PySys_GetObject(c"stderr".as_ptr());
        if !stderr.is_null() {
            ffi::Py_INCREF(stderr);
            ffi::PyFile_WriteString(c"GreenletExit did not kill ".as_ptr(), stderr);
            ffi::PyFile_WriteObject(this, stderr, 0);
            ffi::PyFile_WriteString(c"\n".as_ptr(), stderr);
            ffi::Py_DECREF(stderr);
        }
        ffi::PyErr_Clear();
    }
}

/// Has a greenlet ended by its own thread, in which it goes with the next use of greenlets.
unsafe fn send_home(this: *mut PyObject) {
    // SAFETY: attached, no error set; away, so its worker is alive. The mail owns the greenlet.
    unsafe {
        ffi::Py_INCREF(this);
        let mail = Mail { action: end_at_home, object: this };
        if (*(*inner_of(this)).worker).mailbox.post(mail).is_err() {
            ffi::Py_DECREF(this); // the thread has ended: see `can_be_ended`
        }
    }
}

unsafe fn end_at_home(this: *mut PyObject) {
    // SAFETY: attached; owned. An error that is set belongs to somebody else.
    unsafe {
        error::keeping(|| {
            let inner = inner_of(this);
            let record = quiet_record();
            let is_home = !record.is_null() && (*record).main == (*inner).main;
            if is_home && can_be_ended(inner) {
                switch::kill(record, this.cast());
                // The collector that has found it may be at work yet.
                (*inner).is_condemned = (*inner).is_active();
            }
            ffi::PyErr_Clear();
            ffi::Py_DECREF(this);
        });
    }
}

pub(super) unsafe extern "C" fn tp_dealloc(this: *mut PyObject) {
    let greenlet: *mut Greenlet = this.cast();
    // SAFETY: the last reference is gone; finalizing may bring one back. (A heap type's own `tp_dealloc` has
    // finalized it before, unless it was already.)
    unsafe {
        if can_be_ended((*greenlet).inner) {
            // It has been finalized before if its code would not end then, or only its own thread could end it.
            set_finalized(this, false);
            if ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
                let class = ffi::Py_TYPE(this);
                if ffi::PyType_HasFeature(class, ffi::Py_TPFLAGS_HEAPTYPE) != 0 {
                    ffi::Py_INCREF(class.cast()); // which `subtype_dealloc` drops after this
                }
                return;
            }
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        if !(*greenlet).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        clear_dict(this);
        let inner = (*greenlet).inner;
        if !inner.is_null() {
            let worker = std::mem::replace(&mut (*inner).worker, ptr::null_mut());
            if !worker.is_null() {
                give_up(this, worker);
            }
            clear(this);
            if (*inner).is_main {
                thread::forget_main();
            }
            (*greenlet).inner = ptr::null_mut();
            drop(Box::from_raw(inner));
        }
        if let Some(free) = (*ffi::Py_TYPE(this)).tp_free {
            free(this.cast());
        }
    }
}

/// Gives up the stack of a greenlet that can never go on: its thread is no more, it would not end, or the
/// interpreter exits.
unsafe fn give_up(this: *mut PyObject, worker: *mut Worker) {
    // SAFETY: attached; suspended in the middle of its code, and never resumed again.
    unsafe {
        // Another thread that lives has it in its list yet, as nobody's.
        (*worker).guest = ptr::null_mut();
        if Thread::is_ours(worker) && (*worker).mid_step {
            Thread::end_suspension(worker);
        }
        if is_exiting() {
            return;
        }
        // The object itself is about to be freed, and must not be shown to anybody.
        Worker::leak(worker, Reason::Greenlet, ffi::Py_TYPE(this).cast());
    }
}

// ---------------------------------------------------------------------------------------------
// Switches

/// `switch(*args, **kwargs)`.
unsafe extern "C" fn switch_method(
    this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent, for the whole call.
        unsafe {
            let record = record();
            if record.is_null() {
                return ptr::null_mut();
            }
            let Some(parcel) = Parcel::of_call(arguments, count as usize, names) else {
                return ptr::null_mut();
            };
            let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) };
            let count = (count + named) as usize;
            let _noted = NotedCall::by_caller((*record).thread_state, this, arguments, count);
            switch::switch(record, this.cast(), parcel)
        }
    })
}

/// `throw(typ=GreenletExit, val=None, tb=None)`.
unsafe extern "C" fn throw_method(this: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let (mut value, mut traceback) = (ptr::null_mut::<PyObject>(), ptr::null_mut::<PyObject>());
        let mut class = exceptions::exit();
        // SAFETY: attached; three format units, three pointers; borrowed.
        unsafe {
            if ffi::PyArg_ParseTuple(
                arguments,
                c"|OOO:throw".as_ptr(),
                &raw mut class,
                &raw mut value,
                &raw mut traceback,
            ) == 0
            {
                return ptr::null_mut();
            }
            throw(this, class, value, traceback)
        }
    })
}

/// Raises in a greenlet what [`exceptions::exception_of`] makes of the three (borrowed, or null).
///
/// # Safety
///
/// Attached, no error set; a greenlet.
pub(super) unsafe fn throw(
    this: *mut PyObject,
    class: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let record = record();
        if record.is_null() {
            return ptr::null_mut();
        }
        let exception = exceptions::exception_of(class, value, traceback);
        if exception.is_null() {
            return exception;
        }
        switch::throw(record, this.cast(), exception)
    }
}

unsafe extern "C" fn getstate(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            c"cannot serialize '%s' object".as_ptr(),
            (*ffi::Py_TYPE(this)).tp_name,
        )
    }
}

// ---------------------------------------------------------------------------------------------
// Attributes

fn set_attribute_error(message: &str) -> c_int {
    // SAFETY: attached, as every caller is.
    error::set(unsafe { ffi::PyExc_AttributeError }, message);
    -1
}

fn set_value_error(message: &str) {
    // SAFETY: as above.
    error::set(unsafe { ffi::PyExc_ValueError }, message);
}

/// Whether its thread has ended while it had a stack.
unsafe fn is_abandoned(inner: *mut Inner) -> bool {
    // SAFETY: attached; alive.
    unsafe {
        if (*inner).is_main {
            return (*inner).record.is_null();
        }
        let main = (*inner).main;
        !main.is_null() && (*(*main).inner).record.is_null()
    }
}

/// Whether it has ended, or never can go on.
unsafe fn is_dead(inner: *mut Inner) -> bool {
    // SAFETY: attached; alive.
    unsafe {
        (*inner).phase == Phase::Dead
            || is_abandoned(inner)
            || (*inner).phase == Phase::Active && !(*inner).seems_active()
    }
}

unsafe extern "C" fn nb_bool(this: *mut PyObject) -> c_int {
    // SAFETY: attached; alive.
    unsafe {
        let inner = inner_of(this);
        c_int::from((*inner).seems_active() && !is_abandoned(inner))
    }
}

unsafe extern "C" fn get_dead(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; alive.
    unsafe { ffi::PyBool_FromLong(is_dead(inner_of(this)).into()) }
}

unsafe extern "C" fn get_stack_saved(_: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // Nothing is ever copied off a stack.
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLong(0) }
}

unsafe extern "C" fn get_dict(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let this: *mut Greenlet = this.cast();
    // SAFETY: attached; making the dict may run any code, which may make one.
    unsafe {
        if (*this).dict.is_null() {
            let dict = ffi::PyDict_New();
            if dict.is_null() {
                return dict;
            }
            if (*this).dict.is_null() {
                (*this).dict = dict;
            } else {
                ffi::Py_DECREF(dict);
            }
        }
        ffi::Py_NewRef((*this).dict)
    }
}

unsafe extern "C" fn set_dict(this: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    let this: *mut Greenlet = this.cast();
    // SAFETY: attached; null deletes.
    unsafe {
        if value.is_null() {
            error::set_type("__dict__ may not be deleted");
            return -1;
        }
        if ffi::PyDict_Check(value) == 0 {
            error::set_type("__dict__ must be a dictionary");
            return -1;
        }
        let before = std::mem::replace(&mut (*this).dict, ffi::Py_NewRef(value));
        ffi::Py_XDECREF(before);
    }
    0
}

const NO_RUN: &str = "Main greenlets do not have a run attribute.";

unsafe extern "C" fn get_run(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; alive.
    unsafe {
        let inner = inner_of(this);
        if (*inner).is_main {
            set_attribute_error(NO_RUN);
            return ptr::null_mut();
        }
        if (*inner).phase != Phase::New || (*inner).run.is_null() {
            set_attribute_error("run");
            return ptr::null_mut();
        }
        ffi::Py_NewRef((*inner).run)
    }
}

unsafe extern "C" fn set_run(this: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: attached; null deletes.
    unsafe {
        let inner = inner_of(this);
        if (*inner).is_main {
            return set_attribute_error(NO_RUN);
        }
        if (*inner).phase != Phase::New {
            return set_attribute_error("run cannot be set after the start of the greenlet");
        }
        let before = std::mem::replace(&mut (*inner).run, ffi::Py_XNewRef(value));
        ffi::Py_XDECREF(before);
    }
    0
}

unsafe extern "C" fn get_parent(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; alive.
    unsafe {
        let parent: *mut PyObject = (*inner_of(this)).parent.cast();
        ffi::Py_NewRef(if parent.is_null() { ffi::Py_None() } else { parent })
    }
}

/// Sets `parent` (null deletes).
///
/// # Safety
///
/// Attached, no error set; a greenlet.
pub(super) unsafe extern "C" fn set_parent(
    this: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    barrier(-1, || {
        // SAFETY: the contract. Parents form no circle, and own each other.
        unsafe {
            if value.is_null() {
                return set_attribute_error("can't delete attribute");
            }
            let inner = inner_of(this);
            if (*inner).is_main {
                return set_attribute_error("cannot set the parent of a main greenlet");
            }
            if !is_greenlet(value) {
                ffi::PyErr_Format(
                    ffi::PyExc_TypeError,
                    c"GreenletChecker: Expected any type of greenlet, not %s".as_ptr(),
                    (*ffi::Py_TYPE(value)).tp_name,
                );
                return -1;
            }
            let mut at: *mut Greenlet = value.cast();
            let mut last = at;
            while !at.is_null() {
                if at == this.cast() {
                    set_value_error("cyclic parent chain");
                    return -1;
                }
                last = at;
                at = (*(*at).inner).parent;
            }
            let last_inner = (*last).inner;
            let main = if (*last_inner).is_main { last } else { (*last_inner).main };
            if main.is_null() {
                set_value_error("parent must not be garbage collected");
                return -1;
            }
            if (*inner).phase != Phase::New && (*inner).main != main {
                set_value_error("parent cannot be on a different thread");
                return -1;
            }
            let before = std::mem::replace(&mut (*inner).parent, new_ref(value.cast()));
            drop_ref(before);
            0
        }
    })
}

unsafe extern "C" fn get_frame(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached. A suspended greenlet's frames stand still.
        unsafe {
            let inner = inner_of(this);
            let worker = (*inner).worker;
            let is_suspended =
                !worker.is_null() && ((*inner).is_away && (*worker).mid_step || (*worker).waits);
            if is_suspended {
                let frame = Worker::top_frame(worker, ffi::PyThreadState_Get());
                if !frame.is_null() || !ffi::PyErr_Occurred().is_null() {
                    return frame;
                }
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// Where a greenlet's context is.
enum Place {
    /// In the thread state, as that of the current greenlet.
    Current,
    /// Further out on the running stack.
    Running,
    /// On the worker, which is suspended.
    Worker(*mut Worker),
    /// In the greenlet.
    Here,
    Elsewhere,
}

unsafe fn place_of_context(this: *mut PyObject) -> Place {
    let greenlet: *mut Greenlet = this.cast();
    // SAFETY: attached; alive.
    unsafe {
        let inner = (*greenlet).inner;
        if (*inner).phase != Phase::Active || is_abandoned(inner) && (*inner).is_main {
            return Place::Here;
        }
        let worker = (*inner).worker;
        if (*inner).is_away || (*inner).is_fresh {
            return Place::Worker(worker);
        }
        let record = quiet_record();
        if record.is_null() || main_of(greenlet) != (*record).main {
            return Place::Elsewhere;
        }
        if greenlet == current(record) {
            Place::Current
        } else if (*inner).is_main || is_running(greenlet) {
            Place::Running
        } else {
            Place::Worker(worker)
        }
    }
}

unsafe extern "C" fn get_context(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; borrowed from where it is.
        unsafe {
            let context = match place_of_context(this) {
                Place::Current | Place::Running => running_context(quiet_record(), this.cast()),
                Place::Worker(worker) => Worker::guest_context(worker),
                Place::Here => (*inner_of(this)).context,
                Place::Elsewhere => {
                    set_value_error(
                        "cannot get context of a greenlet that is running in a different thread",
                    );
                    return ptr::null_mut();
                }
            };
            ffi::Py_NewRef(if context.is_null() { ffi::Py_None() } else { context })
        }
    })
}

unsafe extern "C" fn set_context(
    this: *mut PyObject,
    value: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    barrier(-1, || {
        // SAFETY: attached; null deletes. A guest's context is nobody else's, that of the thread's own stack
        // neither; a portal's is its task's, which counts on it.
        unsafe {
            if value.is_null() {
                return set_attribute_error("can't delete context attribute");
            }
            let context = if value == ffi::Py_None() { ptr::null_mut() } else { value };
            if !context.is_null() && ffi::PyContext_CheckExact(context) == 0 {
                error::set_type("greenlet context must be a contextvars.Context or None");
                return -1;
            }
            let place = place_of_context(this);
            let worker = crate::worker::current();
            let before = match place {
                Place::Current if worker.is_null() || (*worker).guest == this => {
                    contexts::set_current(ffi::PyThreadState_Get(), ffi::Py_XNewRef(context))
                }
                Place::Current | Place::Running => {
                    set_value_error(messages::GREENLET_CONTEXT);
                    return -1;
                }
                Place::Worker(worker) => {
                    Worker::replace_guest_context(worker, ffi::Py_XNewRef(context))
                }
                Place::Here => {
                    let inner = inner_of(this);
                    std::mem::replace(&mut (*inner).context, ffi::Py_XNewRef(context))
                }
                Place::Elsewhere => {
                    set_value_error(
                        "cannot set context of a greenlet that is running in a different thread",
                    );
                    return -1;
                }
            };
            ffi::Py_XDECREF(before);
            0
        }
    })
}

unsafe extern "C" fn tp_repr(this: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; alive.
        unsafe {
            let greenlet: *mut Greenlet = this.cast();
            let inner = (*greenlet).inner;
            let name = (*ffi::Py_TYPE(this)).tp_name;
            let main = if (*inner).is_main { greenlet } else { (*inner).main };
            let of = if main.is_null() { ptr::null_mut() } else { (*(*main).inner).record };
            let is_abandoned = is_abandoned(inner);
            if is_dead(inner) {
                return ffi::PyUnicode_FromFormat(
                    c"<%s object at %p (otid=%p) %sdead>".as_ptr(),
                    name,
                    this,
                    of,
                    if is_abandoned { c"(thread exited) " } else { c"" }.as_ptr(),
                );
            }
            let is_new = (*inner).phase == Phase::New;
            let record = quiet_record();
            let place = if !record.is_null() && current(record) == greenlet {
                c" current"
            } else if is_new {
                c""
            } else {
                c" suspended"
            };
            ffi::PyUnicode_FromFormat(
                c"<%s object at %p (otid=%p)%s%s%s%s>".as_ptr(),
                name,
                this,
                of,
                place.as_ptr(),
                if is_new { c"" } else { c" active" }.as_ptr(),
                if is_new { c" pending" } else { c" started" }.as_ptr(),
                if (*inner).is_main { c" main" } else { c"" }.as_ptr(),
            )
        }
    })
}

// ---------------------------------------------------------------------------------------------
// Tables

static ATTRIBUTES: Table<[ffi::PyGetSetDef; 8]> = Table::new([
    attribute(c"__dict__", get_dict, Some(set_dict), c"the greenlet's own attributes"),
    attribute(c"run", get_run, Some(set_run), c"what the greenlet calls; gone once it has begun"),
    attribute(
        c"parent",
        get_parent,
        Some(set_parent),
        c"the greenlet that goes on when this one ends",
    ),
    attribute(
        c"gr_frame",
        get_frame,
        None,
        c"the innermost frame of a suspended greenlet, or None",
    ),
    attribute(
        c"gr_context",
        get_context,
        Some(set_context),
        c"the greenlet's contextvars.Context, or None",
    ),
    attribute(c"dead", get_dead, None, c"True when the greenlet has ended"),
    attribute(c"_stack_saved", get_stack_saved, None, c"0: nothing is copied off a stack"),
    last_attribute(),
]);

const SWITCH_DOC: &CStr = c"switch(*args, **kwargs)\n\n\
    Go on in this greenlet, until somebody switches back here.\n\n\
    A new greenlet calls run(*args, **kwargs). In one that has switched away, that call returns the argument,\n\
    a tuple of several, the dict of keyword arguments, or a tuple of both. In place of one that has ended its\n\
    parent goes on.";

const THROW_DOC: &CStr = c"throw(typ=GreenletExit, val=None, tb=None)\n\n\
    Go on in this greenlet, as switch() does, and raise an exception there.";

static METHODS: Table<[ffi::PyMethodDef; 4]> = Table::new([
    ffi::PyMethodDef {
        ml_name: c"switch".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: switch_method },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: SWITCH_DOC.as_ptr(),
    },
    ffi::PyMethodDef {
        ml_name: c"throw".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: throw_method },
        ml_flags: ffi::METH_VARARGS,
        ml_doc: THROW_DOC.as_ptr(),
    },
    ffi::PyMethodDef {
        ml_name: c"__getstate__".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: getstate },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: ptr::null(),
    },
    ffi::PyMethodDef::zeroed(),
]);

// SAFETY: all slots are optional functions, for which zero is none.
static NUMBER: Table<ffi::PyNumberMethods> = Table::new(unsafe { std::mem::zeroed() });

const DOC: &CStr = c"greenlet(run=None, parent=None) -> greenlet\n\n\
    A new greenlet, which does not run yet.\n\n \
    - *run* -- what it is to call.\n \
    - *parent* -- the greenlet that goes on when it ends. The current one, if none is given.";

/// Readies the type. False with an error set on failure.
///
/// # Safety
///
/// Attached; called once.
pub(super) unsafe fn init() -> bool {
    let class = TYPE.get();
    // SAFETY: zeroed memory is a valid type object to fill in (all slots null), not in use yet.
    unsafe {
        (*NUMBER.get()).nb_bool = Some(nb_bool);
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"greenlet.greenlet".as_ptr();
        (*class).tp_basicsize = size_of::<Greenlet>() as ffi::Py_ssize_t;
        set_flags(
            class,
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_BASETYPE,
        );
        (*class).tp_doc = DOC.as_ptr();
        (*class).tp_new = Some(tp_new);
        (*class).tp_init = Some(tp_init);
        (*class).tp_alloc = Some(ffi::PyType_GenericAlloc);
        (*class).tp_free = Some(ffi::PyObject_GC_Del);
        (*class).tp_dealloc = Some(tp_dealloc);
        (*class).tp_finalize = Some(tp_finalize);
        (*class).tp_traverse = Some(tp_traverse);
        (*class).tp_clear = Some(tp_clear);
        (*class).tp_repr = Some(tp_repr);
        (*class).tp_as_number = NUMBER.get();
        (*class).tp_methods = METHODS.get().cast();
        (*class).tp_getset = ATTRIBUTES.get().cast();
        (*class).tp_dictoffset = offset_of!(Greenlet, dict) as ffi::Py_ssize_t;
        (*class).tp_weaklistoffset = offset_of!(Greenlet, weak_references) as ffi::Py_ssize_t;
        if ffi::PyType_Ready(class) < 0 {
            return false;
        }
        let switch = ffi::PyDict_GetItemString((*class).tp_dict, c"switch".as_ptr());
        note_call::set_method(switch);
        !switch.is_null()
    }
}
