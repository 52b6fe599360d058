//! coverage.py's tracers, which keep a stack: each C stack has one of its own.
//!
//! What coverage.py sets by `sys.settrace` pushes an entry at each call event and pops one at each return
//! event, and looks for the file and the last line of a line event in the topmost. That is one stack for each
//! thread; where calls of several C stacks interleave, the topmost is another's: lines are lost, or told
//! of another file. (Tracers that keep what they know with the frame need nothing.) To end a suspended
//! frame by made-up events would not do: it tells a branch to the function's end from a return event.
//!
//! So, at each switch while such a tracer is set:
//!
//! * `CTracer`: code on the other C stack has another object of the same data, made as coverage.py makes one
//!   for each thread, and told to stop with the others;
//! * `PyTracer`: the object stays, since it compares itself with `sys.gettrace()`, and its stack is changed.
//!
//! Tracing is the thread's: who sets a tracer while it is on a fiber sets it for all.
//!
//! # Invariant
//!
//! `tstate->c_traceobj` is only ever replaced by an object of the same type that was set by
//! `PyEval_SetTrace` with the same function, and each owns its reference.

use super::facts::{self, field};
use crate::{error, names};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a C stack has a tracer: not as long as no coverage.py traces its thread. (What is kept then is
/// elsewhere, since records of fibers are as large as they may be.)
pub(crate) struct OwnTracer(bool);

thread_local! {
    /// What is kept, by the address of the `OwnTracer`. Used with the GIL held, by the thread whose stacks they are; what
    /// is left when the thread ends, without the GIL, is let go of without its references being dropped.
    static KEPT: RefCell<HashMap<usize, Box<Kept>>> = RefCell::new(HashMap::new());
}

/// What tracers of either kind keep.
struct Kept {
    kind: Kind,
    /// The tracer: of the code on this stack, for a `CTracer`; a thread's for all stacks, for a `PyTracer`.
    tracer: *mut PyObject,
    /// `CTracer`: what all of one origin share, only to be compared. Null otherwise.
    origin: *mut PyObject,
    /// `CTracer`: we have made it.
    is_made: bool,
    /// `PyTracer`: the stack of the code on this C stack, while that does not run.
    own_stack: PyStack,
    /// While the code on this C stack runs: what was there before.
    host: Host,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    C,
    Py,
}

enum Host {
    /// The code on this C stack does not run.
    None,
    /// The tracer of the resumer; owned.
    Tracer(*mut PyObject),
    /// The stack of the resumer.
    Stack(PyStack),
}

/// The attributes of a `PyTracer` that are about the stack; owned.
struct PyStack([*mut PyObject; 5]);

/// A tracer of coverage.py's: its kind, and itself; borrowed.
type Found = (Kind, *mut PyObject);

impl OwnTracer {
    pub(super) const fn new() -> Self {
        Self(false)
    }

    /// Takes out what is kept.
    unsafe fn take(this: *mut Self) -> Option<Box<Kept>> {
        // SAFETY: the state is alive (all callers).
        unsafe { (*this).0 = false };
        KEPT.try_with(|kept| kept.borrow_mut().remove(&this.addr())).ok().flatten()
    }

    /// Keeps that, where nothing is kept.
    unsafe fn put(this: *mut Self, kept: Box<Kept>) {
        // SAFETY: as in `take`. A thread that ends, and has no place any more, keeps nothing.
        unsafe {
            (*this).0 = KEPT.try_with(|all| all.borrow_mut().insert(this.addr(), kept)).is_ok();
        }
    }

    /// Right before a switch to this stack, with the thread state still the resumer's.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, `this` not be entered.
    #[inline(always)]
    pub(super) unsafe fn enter(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: passed on.
        unsafe {
            if !current(ts).is_null() || (*this).0 {
                Self::enter_slowly(this, ts);
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn enter_slowly(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: attached. No reference to what is kept is held while objects are made or dropped.
        unsafe {
            error::keeping(|| {
                let found = coverage_tracer(ts);
                let mut kept = Self::take(this);
                let is_of = kept.as_ref().is_some_and(|kept| match found {
                    Some((Kind::C, tracer)) => {
                        kept.kind == Kind::C && kept.origin == origin_of(tracer)
                    }
                    Some((Kind::Py, tracer)) => kept.kind == Kind::Py && kept.tracer == tracer,
                    None => false,
                });
                if !is_of {
                    Kept::drop(kept.take());
                    kept = found.and_then(|(kind, tracer)| Kept::new(ts, kind, tracer));
                }
                let Some(mut kept) = kept else { return };
                kept.host = match kept.kind {
                    Kind::C => {
                        ffi::Py_INCREF(kept.tracer);
                        Host::Tracer(place(ts).replace(kept.tracer))
                    }
                    Kind::Py => {
                        let own = std::mem::replace(&mut kept.own_stack, PyStack::NONE);
                        Host::Stack(PyStack::replace(kept.tracer, own))
                    }
                };
                Self::put(this, kept);
            });
        }
    }

    /// Right after a switch from this stack, with the thread state the resumer's again.
    ///
    /// # Safety
    ///
    /// As [`enter`](Self::enter), which came before.
    #[inline(always)]
    pub(super) unsafe fn leave(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: passed on.
        unsafe {
            if !current(ts).is_null() || (*this).0 {
                Self::leave_slowly(this, ts);
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn leave_slowly(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: as above.
        unsafe {
            error::keeping(|| {
                let found = coverage_tracer(ts);
                if let Some(mut kept) = Self::take(this) {
                    let is_same = found == Some((kept.kind, kept.tracer));
                    match std::mem::replace(&mut kept.host, Host::None) {
                        Host::None => {}
                        Host::Tracer(host) => {
                            let other = if is_same { place(ts).replace(host) } else { host };
                            ffi::Py_DECREF(other);
                        }
                        Host::Stack(stack) => {
                            kept.own_stack = PyStack::replace(kept.tracer, stack);
                        }
                    }
                    if is_same {
                        return Self::put(this, kept);
                    }
                    Kept::drop(Some(kept));
                }
                // The code on this stack has set another tracer, or none. What it has set it has begun with.
                match found {
                    None => {}
                    Some((Kind::C, tracer)) => {
                        let host = another(ts, tracer);
                        if !host.is_null() {
                            Self::put(this, Kept::of(Kind::C, place(ts).replace(host), false));
                        }
                    }
                    Some((Kind::Py, tracer)) => {
                        ffi::Py_INCREF(tracer);
                        let mut kept = Kept::of(Kind::Py, tracer, false);
                        kept.own_stack = PyStack::replace(tracer, PyStack::fresh());
                        Self::put(this, kept);
                    }
                }
            });
        }
    }

    /// Forgets it.
    ///
    /// # Safety
    ///
    /// Attached; not entered.
    pub(super) unsafe fn forget(this: *mut Self) {
        // SAFETY: passed on; no reference is held.
        unsafe {
            if (*this).0 {
                Kept::drop(Self::take(this));
            }
        }
    }
}

impl Kept {
    /// `tracer` is handed over.
    unsafe fn of(kind: Kind, tracer: *mut PyObject, is_made: bool) -> Box<Self> {
        // SAFETY: attached; a tracer of that kind.
        let origin = if kind == Kind::C { unsafe { origin_of(tracer) } } else { ptr::null_mut() };
        let own_stack = PyStack::NONE;
        Box::new(Self { kind, tracer, origin, is_made, own_stack, host: Host::None })
    }

    /// For a stack on which the code has not been traced yet. None if that cannot be had.
    unsafe fn new(ts: *mut PyThreadState, kind: Kind, tracer: *mut PyObject) -> Option<Box<Self>> {
        // SAFETY: attached, no error set.
        unsafe {
            match kind {
                Kind::C => {
                    let tracer = another(ts, tracer);
                    (!tracer.is_null()).then(|| Self::of(kind, tracer, true))
                }
                Kind::Py => {
                    ffi::Py_INCREF(tracer);
                    let mut kept = Self::of(kind, tracer, false);
                    kept.own_stack = PyStack::fresh();
                    Some(kept)
                }
            }
        }
    }

    unsafe fn drop(kept: Option<Box<Self>>) {
        let Some(kept) = kept else { return };
        // SAFETY: attached; the references are ours. A tracer that has not been told to stop takes the thread's
        // along when it goes.
        unsafe {
            if kept.is_made {
                error::keeping(|| {
                    let done = names::call_none(kept.tracer, names::STOP.get());
                    if done.is_null() {
                        ffi::PyErr_Clear();
                    }
                    ffi::Py_XDECREF(done);
                });
            }
            ffi::Py_DECREF(kept.tracer);
            kept.own_stack.drop();
        }
    }
}

/// Where the thread's tracer is.
unsafe fn place(ts: *mut PyThreadState) -> *mut *mut PyObject {
    // SAFETY: `ts` is the attached thread state (all callers).
    unsafe { field(ts, facts::TS_TRACE_OBJECT) }
}

/// The thread's tracer, borrowed; or null.
#[inline(always)]
unsafe fn current(ts: *mut PyThreadState) -> *mut PyObject {
    // SAFETY: as above.
    unsafe { *field::<_, *mut PyObject>(ts, facts::TS_TRACE_OBJECT) }
}

/// The thread's tracer, if it is one of coverage.py's. No error may be set.
unsafe fn coverage_tracer(ts: *mut PyThreadState) -> Option<Found> {
    // SAFETY: attached. What is set is an object, or null, if the field is the one (see `is_the_field`).
    unsafe {
        let tracer = current(ts);
        if tracer.is_null() || !is_the_field(tracer) {
            return None;
        }
        if is_named(tracer, c"coverage.CTracer") {
            return Some((Kind::C, tracer));
        }
        let of = self_of(tracer);
        if of.is_null()
            || !is_named(of, c"PyTracer")
            || ffi::PyObject_HasAttr(of, names::DATA_STACK.get()) == 0
        {
            return None;
        }
        Some((Kind::Py, of))
    }
}

unsafe extern "C" {
    /// The type of bound methods, and what one is bound to, borrowed (Include/cpython/classobject.h).
    static mut PyMethod_Type: ffi::PyTypeObject;
    fn PyMethod_Self(method: *mut PyObject) -> *mut PyObject;
}

/// What a bound method is bound to, borrowed; null of anything else.
unsafe fn self_of(method: *mut PyObject) -> *mut PyObject {
    // SAFETY: a valid object.
    unsafe {
        if ptr::eq((*method).ob_type, &raw const PyMethod_Type) {
            PyMethod_Self(method)
        } else {
            ptr::null_mut()
        }
    }
}

unsafe fn is_named(object: *mut PyObject, name: &CStr) -> bool {
    // SAFETY: a valid object; types' names end in a zero byte.
    unsafe { CStr::from_ptr((*(*object).ob_type).tp_name) == name }
}

const UNKNOWN: u8 = 0;
const RIGHT: u8 = 1;
const WRONG: u8 = 2;

/// Whether the thread state's field is the tracer, as `sys.gettrace` has it: looked at when there is the first,
/// since at import there may be none to see.
unsafe fn is_the_field(tracer: *mut PyObject) -> bool {
    static IS_RIGHT: AtomicU8 = AtomicU8::new(UNKNOWN);
    if IS_RIGHT.load(Ordering::Relaxed) == UNKNOWN {
        // SAFETY: attached, no error set; the new reference is only compared.
        unsafe {
            let get = ffi::PySys_GetObject(c"gettrace".as_ptr());
            if get.is_null() || ffi::PyCFunction_Check(get) == 0 {
                return false; // Somebody's own; look again next time.
            }
            let said = ffi::PyObject_CallNoArgs(get);
            if said.is_null() {
                ffi::PyErr_Clear();
                return false;
            }
            let is_right = said == tracer;
            ffi::Py_DECREF(said);
            IS_RIGHT.store(if is_right { RIGHT } else { WRONG }, Ordering::Relaxed);
        }
    }
    IS_RIGHT.load(Ordering::Relaxed) == RIGHT
}

/// What a `CTracer` has in common with those that were made from it, and with no other: each begins with an
/// attribute of its own for how the data is locked (or, in old releases, with its collector's for which files
/// it is to trace). Borrowed from the tracer.
unsafe fn origin_of(tracer: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, no error set; the tracer has the reference that is given back here.
    unsafe {
        for name in [&names::LOCK_DATA, &names::SHOULD_TRACE] {
            let found = names::attribute(tracer, name.get());
            ffi::PyErr_Clear();
            if !found.is_null() {
                ffi::Py_DECREF(found);
                return found;
            }
        }
        ptr::null_mut()
    }
}

/// What coverage.py's collector gives a `CTracer` that it makes.
static GIVEN: [&names::Name; 13] = [
    &names::CHECK_INCLUDE,
    &names::CONCUR_ID_FUNC,
    &names::DATA,
    &names::DISABLE_PLUGIN,
    &names::FILE_TRACERS,
    &names::LOCK_DATA,
    &names::SHOULD_START_CONTEXT,
    &names::SHOULD_TRACE,
    &names::SHOULD_TRACE_CACHE,
    &names::SWITCH_CONTEXT,
    &names::TRACE_ARCS,
    &names::UNLOCK_DATA,
    &names::WARN,
];

/// A new `CTracer` like the thread's, which stays the thread's; null without an error if there is none to be
/// had.
unsafe fn another(ts: *mut PyThreadState, tracer: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, no error set; new references are handed on or dropped.
    unsafe {
        let made = ffi::PyObject_CallNoArgs((*tracer).ob_type.cast());
        if made.is_null() {
            ffi::PyErr_Clear();
            return made;
        }
        for name in GIVEN {
            let value = names::attribute(tracer, name.get());
            if !value.is_null() {
                ffi::PyObject_SetAttr(made, name.get(), value);
                ffi::Py_DECREF(value);
            }
            ffi::PyErr_Clear();
        }
        // There is one way for it to start: as the thread's tracer.
        ffi::Py_INCREF(tracer);
        let done = names::call_none(made, names::START.get());
        if done.is_null() || current(ts) != made {
            // Refused, by somebody's audit hook.
            ffi::PyErr_Clear();
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(tracer);
            Kept::drop(Some(Kept::of(Kind::C, made, true)));
            return ptr::null_mut();
        }
        ffi::Py_DECREF(done);
        let other = place(ts).replace(tracer);
        ffi::Py_DECREF(other);
        note(made);
        made
    }
}

/// Has the collector tell it to stop, when it tells the others.
unsafe fn note(made: *mut PyObject) {
    // SAFETY: attached, no error set; new references are dropped.
    unsafe {
        let lock = names::attribute(made, names::LOCK_DATA.get());
        if !lock.is_null() {
            let collector = self_of(lock);
            if !collector.is_null() {
                let tracers = names::attribute(collector, names::TRACERS.get());
                if !tracers.is_null() && ffi::PyList_CheckExact(tracers) != 0 {
                    ffi::PyList_Append(tracers, made);
                }
                ffi::Py_XDECREF(tracers);
            }
            ffi::Py_DECREF(lock);
        }
        ffi::PyErr_Clear();
    }
}

impl PyStack {
    const NONE: Self = Self([ptr::null_mut(); 5]);

    fn names() -> [&'static names::Name; 5] {
        [
            &names::DATA_STACK,
            &names::CUR_FILE_DATA,
            &names::CUR_FILE_NAME,
            &names::LAST_LINE,
            &names::STARTED_CONTEXT,
        ]
    }

    /// That of a tracer which has seen no call yet.
    unsafe fn fresh() -> Self {
        // SAFETY: attached, no error set; new references.
        unsafe {
            let list = ffi::PyList_New(0);
            if list.is_null() {
                ffi::PyErr_Clear();
                return Self::NONE;
            }
            let none = || ffi::Py_NewRef(ffi::Py_None());
            Self([list, none(), none(), ffi::PyLong_FromLong(0), ffi::PyBool_FromLong(0)])
        }
    }

    /// Gives the tracer another stack; the one before. One that is not there changes nothing.
    unsafe fn replace(tracer: *mut PyObject, stack: Self) -> Self {
        // SAFETY: attached, no error set; plain attributes of an instance.
        unsafe {
            if stack.0.iter().any(|value| value.is_null()) {
                stack.drop();
                return Self::NONE;
            }
            let mut before = Self::NONE;
            for (name, slot) in Self::names().iter().zip(&mut before.0) {
                *slot = names::attribute(tracer, name.get());
                ffi::PyErr_Clear();
            }
            for (name, value) in Self::names().iter().zip(&stack.0) {
                ffi::PyObject_SetAttr(tracer, name.get(), *value);
                ffi::PyErr_Clear();
            }
            stack.drop();
            before
        }
    }

    unsafe fn drop(self) {
        for value in self.0 {
            // SAFETY: attached; the references are ours.
            unsafe { ffi::Py_XDECREF(value) };
        }
    }
}
