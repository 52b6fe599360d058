//! `Portal`: a coroutine around a coroutine, whose steps run on a fiber.
//!
//! To whoever steps it (a task), a portal is a coroutine: `send`, `throw`, `close`, `am_send`, and
//! the `cr_*` attributes of the coroutine inside. Each step of the inner coroutine runs on a
//! [`Worker`]'s stack, so that `await_` can suspend in the middle of one, anywhere below.
//!
//! # Invariant
//!
//! * `phase` says who may touch what. `Idle`: the inner coroutine is between two steps; there is no
//!   worker. `Running`: a step is running, on the worker,
//!   further up this call chain or another thread's. `Suspended`: the worker is in the middle of a
//!   step (`mid_step`), waiting in `await_`.
//! * While a step is not over (`Running` or `Suspended`), frames of the inner coroutine are on the
//!   worker's stack, and the portal's reference keeps the coroutine alive. While it is suspended,
//!   the garbage collector is shown what the fiber holds (`interp/references.rs`), so that a task
//!   that nobody can wake any more is found; the coroutine is then marked as finalized already,
//!   since it must not be closed in the middle of its execution: finalizing the *portal* ends the
//!   step with GeneratorExit. A portal that will not end is leaked with its stack.
//! * Whoever resumes a portal holds a reference to it meanwhile.

use crate::barrier::barrier;
use crate::coroutine_methods::{Outcome, as_method_result, exception_of};
use crate::interp::references::{Visitor, set_finalized};
#[cfg(any(cpython = "3.14", cpython = "3.15"))]
use crate::interp::shown;
use crate::interp::{self, CoroutineState};
use crate::leaks::Reason;
use crate::lines::Lines;
use crate::mailbox::Mail;
use crate::owner::Owner;
use crate::roster::Alive;
use crate::since::Since;
use crate::switch_call::SwitchCall;
use crate::task_scopes::{self, Scope};
use crate::thread::Thread;
use crate::type_tables::{Table, Type, attribute, last_attribute, set_flags};
use crate::worker::{Input, Output, Worker};
use crate::{call, error, greenlet, messages, names, roster};
use pyo3::ffi::PySendResult::{self, PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

/// Who may touch what of a portal; see the module docs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    Idle,
    Running,
    Suspended,
}

/// The Python object. From 3.14 on its bytes lie such that debuggers outside the process find what they look for
/// (`interp::shown`).
#[repr(C)]
pub(crate) struct PortalObject {
    owner: Owner,
    /// The inner coroutine; owned, null after `tp_clear`.
    coroutine: *mut PyObject,
    worker: *mut Worker,
    phase: Phase,
    /// A step has begun.
    stepped: bool,
    /// The coroutine is marked as finalized, for the time that the portal is suspended.
    marked: bool,
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    shown_state: i8,
    /// When the last step was over, or suspended; valid if `stepped`.
    since: Since,
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    shown_code: usize,
    weak_references: *mut PyObject,
    /// For the portal of one call in a task.
    pub(crate) scope: Scope,
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    _frame: usize,
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    shown_instruction: usize,
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    _stack: [u16; shown::BETWEEN],
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    shown_owner: i8,
}

#[cfg(any(cpython = "3.14", cpython = "3.15"))]
const _: () = {
    assert!(offset_of!(PortalObject, shown_state) == shown::STATE);
    assert!(offset_of!(PortalObject, shown_code) == shown::CODE);
    assert!(offset_of!(PortalObject, shown_instruction) == shown::INSTRUCTION);
    assert!(offset_of!(PortalObject, shown_owner) == shown::OWNER);
};

/// What a step does to the inner coroutine. Both borrowed.
#[derive(Clone, Copy)]
enum Action {
    Send(*mut PyObject),
    Throw(*mut PyObject),
}

const FAILED: Outcome = (PYGEN_ERROR, ptr::null_mut());

/// Times that a finalizer throws GeneratorExit into a portal that goes on awaiting.
const MOST_EXITS: usize = 100;

/// A portal around `coroutine` (borrowed), or the same object if it is a portal. A new reference.
///
/// # Safety
///
/// Attached, after [`init`].
pub(crate) unsafe fn new(coroutine: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; a fresh object of our type is filled in before the collector sees it.
    unsafe {
        if is_portal(coroutine) {
            return ffi::Py_NewRef(coroutine);
        }
        if ffi::Py_TYPE(coroutine) != &raw mut ffi::PyCoro_Type
            && !call::is_call(coroutine)
            && !looks_like_coroutine(coroutine)
        {
            if ffi::PyErr_Occurred().is_null() {
                error::set_type(messages::PORTAL_WHAT);
            }
            return ptr::null_mut();
        }
        // A greenlet imported by now must be known before the first step.
        greenlet::look();
        let portal: *mut PortalObject = ffi::PyObject_GC_New(TYPE.get());
        if portal.is_null() {
            return ptr::null_mut();
        }
        (*portal).coroutine = ffi::Py_NewRef(coroutine);
        (*portal).worker = ptr::null_mut();
        (*portal).weak_references = ptr::null_mut();
        (*portal).owner.base_greenlet = ptr::null_mut();
        (*portal).owner.waits_for = ptr::null_mut();
        (*portal).owner.switch_call = SwitchCall::NOTHING;
        (*portal).scope = Scope::NONE;
        (*portal).phase = Phase::Idle;
        (*portal).stepped = false;
        (*portal).marked = false;
        (*portal).since = Since::now();
        show(portal);
        ffi::PyObject_GC_Track(portal.cast());
        portal.cast()
    }
}

/// True if `object` is a portal.
///
/// # Safety
///
/// `object` must be a valid object.
#[inline(always)]
pub(crate) unsafe fn is_portal(object: *mut PyObject) -> bool {
    // SAFETY: the contract. The type cannot be subclassed.
    unsafe { ffi::Py_TYPE(object) == TYPE.get() }
}

/// The inner coroutine of a portal between steps, as a new reference; null if a step is under way.
///
/// # Safety
///
/// Attached; `portal` must be a portal.
pub(crate) unsafe fn unwrap_idle(portal: *mut PyObject) -> *mut PyObject {
    let portal: *mut PortalObject = portal.cast();
    // SAFETY: the contract.
    unsafe {
        if (*portal).phase != Phase::Idle || (*portal).coroutine.is_null() {
            return ptr::null_mut();
        }
        ffi::Py_NewRef((*portal).coroutine)
    }
}

/// Whether a step of the portal has begun.
///
/// # Safety
///
/// `portal` must be a portal.
pub(crate) unsafe fn has_stepped(portal: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe { (*portal.cast::<PortalObject>()).stepped }
}

unsafe fn looks_like_coroutine(object: *mut PyObject) -> bool {
    [&names::SEND, &names::THROW, &names::CLOSE].into_iter().all(|name| {
        // SAFETY: attached; valid objects.
        unsafe {
            let value = names::attribute(object, name.get());
            ffi::Py_XDECREF(value);
            !value.is_null()
        }
    })
}

/// One step of the portal: until the inner coroutine yields, returns or raises, or an `await_`
/// below it does not find its result ready.
#[inline(always)]
unsafe fn advance(portal: *mut PortalObject, action: Action) -> Outcome {
    // SAFETY: attached (all callers are slots and methods). The phase says that nobody else is
    // using the worker; a suspended one is resumed only on its own thread, with its own thread
    // state, and gets owned references.
    unsafe {
        // First of all: this can run any code, even steps of this portal.
        Thread::read_mail(Thread::this());
        let ts = ffi::PyThreadState_Get();
        let worker;
        let input;
        match (*portal).phase {
            Phase::Idle => {
                let coroutine = (*portal).coroutine;
                if coroutine.is_null() {
                    error::set_runtime("cannot reuse already awaited coroutine");
                    return FAILED;
                }
                worker = worker_for_step(portal);
                if worker.is_null() {
                    return FAILED;
                }
                input = match action {
                    Action::Send(value) => Input::Send { coroutine, value },
                    Action::Throw(exception) => Input::Throw { coroutine, exception },
                };
            }
            Phase::Suspended => {
                worker = (*portal).worker;
                if !Thread::is_ours(worker) || (*worker).tstate_id != interp::thread_state_id(ts) {
                    error::set_runtime(messages::WRONG_THREAD);
                    return FAILED;
                }
                input = match action {
                    Action::Send(value) => Input::Value(ffi::Py_NewRef(value)),
                    Action::Throw(exception) => Input::Raise(ffi::Py_NewRef(exception)),
                };
            }
            Phase::Running => {
                error::set(ffi::PyExc_ValueError, messages::ALREADY_RUNNING);
                return FAILED;
            }
        }
        ffi::Py_INCREF(portal.cast());
        (*portal).phase = Phase::Running;
        let outcome = match Worker::resume(worker, ts, input) {
            Output::Suspended(awaited) => {
                if !(*worker).mid_step {
                    Thread::begin_suspension(worker, ts);
                    mark(portal);
                }
                (*portal).phase = Phase::Suspended;
                (*portal).since = Since::now();
                show_line(portal);
                (PYGEN_NEXT, awaited)
            }
            Output::Done(status, result) => {
                (*portal).phase = Phase::Idle;
                if (*worker).mid_step {
                    Thread::end_suspension(worker);
                    unmark(portal);
                }
                (*portal).worker = ptr::null_mut();
                Thread::give_back(worker);
                if status == PYGEN_NEXT {
                    (*portal).since = Since::now();
                    show_line(portal);
                } else {
                    show_nothing(portal);
                    task_scopes::leave(&raw mut (*portal).scope);
                    forget_base(portal);
                }
                (status, result)
            }
            Output::Parked(..)
            | Output::Left
            | Output::CallOut(..)
            | Output::CallHost(..)
            | Output::Away => {
                unreachable!(
                    "a portal's worker drives no loop, is no guest, and calls out in `resume`"
                )
            }
        };
        ffi::Py_DECREF(portal.cast());
        outcome
    }
}

/// Shows debuggers outside the process the coroutine's first frame.
unsafe fn show(portal: *mut PortalObject) {
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    // SAFETY: a new portal, or one between two steps; it keeps the coroutine, which keeps its code.
    unsafe {
        let (state, code, instruction) = shown::of((*portal).coroutine);
        (*portal).shown_code = code;
        (*portal).shown_instruction = instruction;
        (*portal)._frame = 0;
        (*portal)._stack = [0; shown::BETWEEN];
        (*portal).shown_owner = shown::OWNED;
        (*portal).shown_state = state;
    }
    #[cfg(not(any(cpython = "3.14", cpython = "3.15")))]
    let _ = portal;
}

/// The line that the first frame is at has changed.
#[inline(always)]
unsafe fn show_line(portal: *mut PortalObject) {
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    // SAFETY: what is shown is an exact coroutine's.
    unsafe {
        if (*portal).shown_state != shown::NOTHING {
            (*portal).shown_instruction = shown::instruction((*portal).coroutine);
        }
    }
    #[cfg(not(any(cpython = "3.14", cpython = "3.15")))]
    let _ = portal;
}

/// The coroutine has no frame any more.
#[inline(always)]
unsafe fn show_nothing(portal: *mut PortalObject) {
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    // SAFETY: a portal.
    unsafe {
        (*portal).shown_state = shown::NOTHING;
    }
    #[cfg(not(any(cpython = "3.14", cpython = "3.15")))]
    let _ = portal;
}

/// Keeps the collector from finalizing the coroutine of a portal whose step has suspended: it would
/// find it executing. Finalizing the portal ends the step, and with it the coroutine, properly.
unsafe fn mark(portal: *mut PortalObject) {
    // SAFETY: attached; an exact coroutine (or call, which has no finalizer anyway) is always known
    // to the collector, and never immortal.
    unsafe {
        let coroutine = (*portal).coroutine;
        (*portal).marked = (ffi::Py_TYPE(coroutine) == &raw mut ffi::PyCoro_Type
            || call::is_call(coroutine))
            && !set_finalized(coroutine, true);
    }
}

/// Undoes [`mark`].
unsafe fn unmark(portal: *mut PortalObject) {
    // SAFETY: as in `mark`.
    unsafe {
        if std::mem::replace(&mut (*portal).marked, false) {
            set_finalized((*portal).coroutine, false);
        }
    }
}

/// No greenlet of the portal's steps is left.
#[inline(always)]
unsafe fn forget_base(portal: *mut PortalObject) {
    // SAFETY: attached; an error that is set stays.
    unsafe {
        let base = std::mem::replace(&mut (*portal).owner.base_greenlet, ptr::null_mut());
        if !base.is_null() {
            error::keeping(|| ffi::Py_DECREF(base));
        }
    }
}

/// A worker for the next step of an idle portal, or null with an error set.
#[inline(always)]
unsafe fn worker_for_step(portal: *mut PortalObject) -> *mut Worker {
    // SAFETY: attached; an idle portal has no worker.
    unsafe {
        let worker = Thread::take_worker();
        if !worker.is_null() {
            (*worker).owner = portal.cast();
            (*portal).worker = worker;
            (*portal).stepped = true;
        }
        worker
    }
}

/// `close()`: throws GeneratorExit in, and expects the coroutine to end. False with an error set
/// if it did not.
unsafe fn close(portal: *mut PortalObject) -> bool {
    // SAFETY: attached.
    unsafe {
        if (*portal).phase == Phase::Idle && !is_started((*portal).coroutine) {
            // Nothing to run: the coroutine's own close() marks it closed.
            task_scopes::leave(&raw mut (*portal).scope);
            if (*portal).coroutine.is_null() {
                return true;
            }
            show_nothing(portal);
            let result = names::call_none((*portal).coroutine, names::CLOSE.get());
            ffi::Py_XDECREF(result);
            return !result.is_null();
        }
        let exit = ffi::PyObject_CallNoArgs(ffi::PyExc_GeneratorExit);
        if exit.is_null() {
            return false;
        }
        let (status, result) = advance(portal, Action::Throw(exit));
        ffi::Py_DECREF(exit);
        match status {
            PYGEN_RETURN => {
                ffi::Py_DECREF(result);
                true
            }
            PYGEN_NEXT => {
                ffi::Py_DECREF(result);
                error::set_runtime(messages::IGNORED_EXIT);
                false
            }
            PYGEN_ERROR => {
                let ended = ffi::PyErr_ExceptionMatches(ffi::PyExc_GeneratorExit) != 0
                    || ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) != 0;
                if ended {
                    ffi::PyErr_Clear();
                }
                ended
            }
        }
    }
}

/// Whether there is something in the coroutine of an idle portal for `close()` to unwind. An unknown
/// kind counts as started; a call has either not begun or ended.
unsafe fn is_started(coroutine: *mut PyObject) -> bool {
    // SAFETY: valid or null; the state is read of an exact coroutine only.
    unsafe {
        !coroutine.is_null()
            && !call::is_call(coroutine)
            && (ffi::Py_TYPE(coroutine) != &raw mut ffi::PyCoro_Type
                || matches!(
                    interp::coroutine_state(coroutine),
                    CoroutineState::Suspended | CoroutineState::Executing
                ))
    }
}

/// Ends the step that a suspended portal is in the middle of, for good, reporting what goes wrong
/// to `sys.unraisablehook`. The portal may be closed already.
///
/// # Safety
///
/// Attached, on the thread that suspended it; no error set.
unsafe fn finish(portal: *mut PortalObject) {
    for attempt in 0..MOST_EXITS {
        // SAFETY: the contract.
        unsafe {
            if close(portal) {
                return;
            }
            // Told once; a coroutine that awaits in several nested `finally` blocks gets a
            // GeneratorExit in each, where CPython would just abandon the rest of it.
            if attempt == 0 || (*portal).phase != Phase::Suspended {
                ffi::PyErr_WriteUnraisable((*portal).coroutine);
            } else {
                ffi::PyErr_Clear();
            }
            if (*portal).phase != Phase::Suspended {
                return;
            }
        }
    }
}

/// Ends a portal whose last reference was dropped where it could not be ended: on another thread, or
/// in another greenlet than its own greenlets go back to. Then drops it for good: objects are finalized
/// once, and it has been, there.
///
/// # Safety
///
/// Attached, on the thread that the portal's worker belongs to; hands over one reference.
unsafe fn close_posted(portal: *mut PyObject) {
    let portal: *mut PortalObject = portal.cast();
    // SAFETY: the contract. The thread state may be another one than then; then it is leaked.
    unsafe {
        let pending = error::take();
        match can_be_finished(portal) {
            Finishing::Now => {
                finish(portal);
                ffi::Py_DECREF(portal.cast());
            }
            Finishing::Never => ffi::Py_DECREF(portal.cast()),
            Finishing::Later => post_to_be_closed(portal),
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}

/// Whether there is something to end in a portal that nobody refers to any more, and when.
enum Finishing {
    Now,
    Later,
    Never,
}

unsafe fn can_be_finished(portal: *mut PortalObject) -> Finishing {
    // SAFETY: attached.
    unsafe {
        let (worker, coroutine) = ((*portal).worker, (*portal).coroutine);
        match (*portal).phase {
            Phase::Running => return Finishing::Never,
            Phase::Suspended => {
                if !Thread::is_ours(worker) {
                    return Finishing::Later;
                }
                let ts = ffi::PyThreadState_Get();
                if (*worker).tstate_id != interp::thread_state_id(ts) {
                    return Finishing::Never;
                }
            }
            // A coroutine that is closed by its own finalizer would run its `finally` blocks on
            // whatever stack drops it; through the portal they run as all its code does.
            Phase::Idle => {
                let is_exact =
                    !coroutine.is_null() && ffi::Py_TYPE(coroutine) == &raw mut ffi::PyCoro_Type;
                if !is_started(coroutine) || ffi::Py_REFCNT(coroutine) != 1 || !is_exact {
                    return Finishing::Never;
                }
            }
        }
        // Greenlets that its steps have begun end in the greenlet that was current then.
        let base = (*portal).owner.base_greenlet;
        if !base.is_null() && greenlet::is_away(base) {
            return Finishing::Later;
        }
        Finishing::Now
    }
}

/// Leaves a portal (with one reference to it) to its worker's thread, for its next step of any
/// portal. Drops the reference if the thread is dead; `tp_dealloc` then leaks what it must.
unsafe fn post_to_be_closed(portal: *mut PortalObject) {
    // SAFETY: attached; the worker is alive, or was in the middle of a step when its thread died.
    unsafe {
        let worker = (*portal).worker;
        let mailbox = if worker.is_null() {
            Thread::mailbox(Thread::this()) // it is idle, and can go on anywhere
        } else {
            Worker::mailbox(worker)
        };
        if mailbox.post(Mail { action: close_posted, object: portal.cast() }).is_err() {
            ffi::Py_DECREF(portal.cast());
        }
    }
}

/// The portal of a worker that makes a portal's step.
unsafe fn owner_of(worker: *mut Worker) -> *mut PortalObject {
    // SAFETY: alive (all callers). Workers that are in the middle of a step and have an owner are portals', and a
    // portal begins with its `Owner`. (Greenlets' have none, nor what was given up.)
    unsafe { (*worker).owner.cast() }
}

/// Ends all of this thread's suspended portals. Returns how many.
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn close_all() -> usize {
    let thread = Thread::this();
    let mut closed = 0;
    // SAFETY: the thread's own record.
    unsafe { Thread::read_mail(thread) };
    // SAFETY: the thread's own record. Closing one portal can end or begin other suspensions, so
    // the list is read anew each time; a portal that will not end is left in it, and with it an
    // upper bound on the rounds.
    unsafe {
        let [_, count, _] = Thread::counts(thread);
        let mut stubborn = Vec::new();
        for _ in 0..count.saturating_mul(2).saturating_add(64) {
            let mut worker = Thread::first_suspended(thread);
            while !worker.is_null()
                && ((*worker).owner.is_null()
                    || stubborn.contains(&worker)
                    || (*owner_of(worker)).phase != Phase::Suspended)
            {
                worker = Thread::next(worker);
            }
            if worker.is_null() {
                break;
            }
            let portal = owner_of(worker);
            ffi::Py_INCREF(portal.cast());
            finish(portal);
            if (*portal).phase == Phase::Suspended {
                stubborn.push(worker);
            } else {
                closed += 1;
            }
            ffi::Py_DECREF(portal.cast());
        }
    }
    closed
}

// ---------------------------------------------------------------------------------------------
// Slots

unsafe extern "C" fn am_send(
    this: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    barrier(PYGEN_ERROR, || {
        // SAFETY: the interpreter lends both objects and takes the result over.
        unsafe {
            let (status, object) = advance(this.cast(), Action::Send(value));
            *result = object;
            status
        }
    })
}

unsafe extern "C" fn tp_iternext(this: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: as in `am_send`.
        unsafe {
            let outcome = advance(this.cast(), Action::Send(ffi::Py_None()));
            // An iterator may end with no exception set, if it has no value to return.
            if outcome == (PYGEN_RETURN, ffi::Py_None()) {
                ffi::Py_DECREF(outcome.1);
                return ptr::null_mut();
            }
            as_method_result(outcome)
        }
    })
}

unsafe extern "C" fn am_await(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: lent by the interpreter.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn send(this: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: as in `am_send`.
        unsafe { as_method_result(advance(this.cast(), Action::Send(value))) }
    })
}

unsafe extern "C" fn throw(
    this: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: `METH_FASTCALL`: so many borrowed objects.
        unsafe {
            let arguments = if count == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(arguments, count as usize)
            };
            let exception = exception_of(arguments);
            if exception.is_null() {
                return ptr::null_mut();
            }
            let outcome = advance(this.cast(), Action::Throw(exception));
            ffi::Py_DECREF(exception);
            as_method_result(outcome)
        }
    })
}

unsafe extern "C" fn close_method(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: as in `am_send`.
        unsafe { if close(this.cast()) { ffi::Py_NewRef(ffi::Py_None()) } else { ptr::null_mut() } }
    })
}

unsafe extern "C" fn tp_new(
    _class: *mut PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let mut coroutine = ptr::null_mut::<PyObject>();
        let mut names = [c"".as_ptr().cast_mut(), ptr::null_mut()];
        // SAFETY: one format unit, one pointer.
        unsafe {
            if ffi::PyArg_ParseTupleAndKeywords(
                arguments,
                keywords,
                c"O:Portal".as_ptr(),
                names.as_mut_ptr().cast(),
                &raw mut coroutine,
            ) == 0
            {
                return ptr::null_mut();
            }
            new(coroutine)
        }
    })
}

unsafe extern "C" fn tp_traverse(
    this: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let portal: *mut PortalObject = this.cast();
    let mut visitor = Visitor::new(visit, argument);
    // SAFETY: the collector runs with the GIL held (these builds have one). Each reference shown
    // is one that this portal, its fiber's frames or the `await_` on it own.
    unsafe {
        visitor.object((*portal).owner.base_greenlet);
        match (*portal).phase {
            Phase::Idle => visitor.object((*portal).coroutine),
            Phase::Suspended => {
                if (*portal).marked {
                    visitor.object((*portal).coroutine);
                }
                visitor.object((*portal).owner.waits_for);
                (*portal).owner.switch_call.traverse(&mut visitor);
                Worker::traverse((*portal).worker, &mut visitor);
            }
            Phase::Running => {}
        }
    }
    visitor.result
}

/// Drops an idle portal's coroutine.
unsafe fn drop_coroutine(portal: *mut PortalObject) {
    // SAFETY: attached; the portal is idle.
    unsafe {
        show_nothing(portal);
        let coroutine = std::mem::replace(&mut (*portal).coroutine, ptr::null_mut());
        ffi::Py_XDECREF(coroutine);
    }
}

unsafe extern "C" fn tp_clear(this: *mut PyObject) -> c_int {
    let portal: *mut PortalObject = this.cast();
    // SAFETY: as above. A step that is not over needs the coroutine.
    unsafe {
        if (*portal).phase == Phase::Idle {
            drop_coroutine(portal);
        }
    }
    0
}

unsafe extern "C" fn tp_finalize(this: *mut PyObject) {
    let portal: *mut PortalObject = this.cast();
    barrier((), || {
        // SAFETY: attached; the object is alive. An error that is set belongs to whoever dropped
        // the last reference.
        unsafe {
            match can_be_finished(portal) {
                Finishing::Now => {}
                Finishing::Never => return,
                Finishing::Later => {
                    ffi::Py_INCREF(this);
                    return post_to_be_closed(portal);
                }
            }
            let pending = error::take();
            finish(portal);
            if !pending.is_null() {
                error::restore(pending);
            }
        }
    });
}

unsafe extern "C" fn tp_dealloc(this: *mut PyObject) {
    let portal: *mut PortalObject = this.cast();
    // SAFETY: the last reference is gone; finalizing may bring one back.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        task_scopes::leave(&raw mut (*portal).scope);
        if !(*portal).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        if (*portal).phase == Phase::Idle {
            drop_coroutine(portal);
        } else {
            let worker = std::mem::replace(&mut (*portal).worker, ptr::null_mut());
            // In the middle of a step that can never go on: its thread is dead, or it would not
            // end. The coroutine's frame is in use on the worker's stack, so our reference to it
            // is leaked along with the stack.
            let is_ours = Thread::is_ours(worker);
            if is_ours && (*worker).mid_step {
                Thread::end_suspension(worker);
            }
            let reason = if is_ours { Reason::WouldNotEnd } else { Reason::ThreadEnded };
            Worker::leak(worker, reason, (*portal).coroutine);
        }
        forget_base(portal);
        ffi::PyObject_GC_Del(this.cast());
    }
}

unsafe extern "C" fn tp_repr(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; the format takes an object and a pointer.
    unsafe {
        let coroutine = (*this.cast::<PortalObject>()).coroutine;
        let coroutine = if coroutine.is_null() { ffi::Py_None() } else { coroutine };
        ffi::PyUnicode_FromFormat(c"<fiberback.Portal of %R at %p>".as_ptr(), coroutine, this)
    }
}

// ---------------------------------------------------------------------------------------------
// Attributes

/// An attribute of the inner coroutine, under the name in `closure`.
unsafe extern "C" fn get_inner(this: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; `closure` is the C string of the table below.
    unsafe {
        let coroutine = (*this.cast::<PortalObject>()).coroutine;
        if coroutine.is_null() {
            return ffi::Py_NewRef(ffi::Py_None());
        }
        ffi::PyObject_GetAttrString(coroutine, closure.cast())
    }
}

unsafe extern "C" fn set_inner(
    this: *mut PyObject,
    value: *mut PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: as in `get_inner`; a null value deletes.
    unsafe {
        let coroutine = (*this.cast::<PortalObject>()).coroutine;
        if coroutine.is_null() {
            // As of an object that has no such attribute.
            ffi::PyErr_SetString(ffi::PyExc_AttributeError, closure.cast());
            return -1;
        }
        ffi::PyObject_SetAttrString(coroutine, closure.cast(), value)
    }
}

/// Whether the frames of the portal's step can be looked at: it is suspended, and its thread is there. (What
/// other threads' fibers hold stands still while the GIL is held.)
unsafe fn has_readable_frames(portal: *mut PortalObject) -> bool {
    // SAFETY: attached; a worker in the middle of a step is never freed.
    unsafe {
        (*portal).phase == Phase::Suspended
            && (Thread::is_ours((*portal).worker)
                || Alive::now().has((*(*portal).worker).tstate_id))
    }
}

/// The innermost frame of a portal that is suspended in `await_`: the synchronous function that
/// called it. Its `f_back`s lead through all the synchronous frames down to the coroutine's own.
unsafe extern "C" fn get_frame(this: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let portal: *mut PortalObject = this.cast();
        // SAFETY: attached.
        unsafe {
            if has_readable_frames(portal) {
                let frame = Worker::top_frame((*portal).worker, ffi::PyThreadState_Get());
                if !frame.is_null() || !ffi::PyErr_Occurred().is_null() {
                    return frame;
                }
            }
            get_inner(this, closure)
        }
    })
}

/// `_fiberback.suspended()`: the portals in whose steps `await_` waits, of all threads.
pub(crate) unsafe extern "C" fn suspended(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; what was found is owned, and appended or dropped.
    barrier(ptr::null_mut(), || unsafe {
        let portals = roster::suspended();
        let mut list = ffi::PyList_New(0);
        for portal in portals {
            if !list.is_null() && ffi::PyList_Append(list, portal) < 0 {
                ffi::Py_CLEAR(&raw mut list);
            }
            ffi::Py_DECREF(portal);
        }
        list
    })
}

/// `_fiberback.suspended_lines(portal)`: what runs on the stack of a portal in whose step `await_` waits; None
/// of any other.
pub(crate) unsafe extern "C" fn suspended_lines(
    _: *mut PyObject,
    portal: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent. Nothing runs between the look and the end of `lines`.
        unsafe {
            if !is_portal(portal) {
                error::set_type("suspended_lines() takes a portal");
                return ptr::null_mut();
            }
            let portal: *mut PortalObject = portal.cast();
            if !has_readable_frames(portal) {
                return ffi::Py_NewRef(ffi::Py_None());
            }
            let mut lines = Lines::new();
            lines.add(Worker::top_frame((*portal).worker, ffi::PyThreadState_Get()));
            lines.into_list()
        }
    })
}

/// Seconds since the portal's last step ended; None if none has, one is running, or there is no more to come.
unsafe extern "C" fn get_waits(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let portal: *mut PortalObject = this.cast();
        let waits = match (*portal).phase {
            Phase::Suspended => true,
            Phase::Running => false,
            Phase::Idle => (*portal).stepped && is_started((*portal).coroutine),
        };
        if waits {
            ffi::PyFloat_FromDouble((*portal).since.seconds())
        } else {
            ffi::Py_NewRef(ffi::Py_None())
        }
    }
}

unsafe extern "C" fn get_await(this: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    let portal: *mut PortalObject = this.cast();
    // SAFETY: attached; a suspended worker's `awaiting` is owned by the `await_` that waits.
    unsafe {
        if (*portal).phase == Phase::Suspended {
            return ffi::Py_NewRef((*(*portal).worker).awaiting);
        }
        get_inner(this, closure)
    }
}

unsafe extern "C" fn get_running(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let running = (*this.cast::<PortalObject>()).phase == Phase::Running;
        ffi::PyBool_FromLong(running.into())
    }
}

#[cfg(cpython = "3.15")]
unsafe extern "C" fn get_state(this: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    let portal: *mut PortalObject = this.cast();
    // SAFETY: attached.
    unsafe {
        let state = match (*portal).phase {
            Phase::Running => CoroutineState::Executing,
            Phase::Suspended => CoroutineState::Suspended,
            Phase::Idle if (*portal).coroutine.is_null() => CoroutineState::Finished,
            Phase::Idle => return get_inner(this, closure),
        };
        state.name()
    }
}

unsafe extern "C" fn get_suspended(this: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        match (*this.cast::<PortalObject>()).phase {
            Phase::Suspended => ffi::PyBool_FromLong(1),
            Phase::Running => ffi::PyBool_FromLong(0),
            Phase::Idle => get_inner(this, closure),
        }
    }
}

unsafe extern "C" fn get_wrapped(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let coroutine = (*this.cast::<PortalObject>()).coroutine;
        ffi::Py_NewRef(if coroutine.is_null() { ffi::Py_None() } else { coroutine })
    }
}

unsafe extern "C" fn get_stepped(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; a portal.
    unsafe { ffi::PyBool_FromLong(has_stepped(this).into()) }
}

unsafe extern "C" fn get_in_await(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let suspended = (*this.cast::<PortalObject>()).phase == Phase::Suspended;
        ffi::PyBool_FromLong(suspended.into())
    }
}

/// From 3.15 on coroutines have `cr_state`, which `inspect.getcoroutinestate` returns.
const ATTRIBUTE_COUNT: usize = if cfg!(cpython = "3.15") { 14 } else { 13 };

static ATTRIBUTES: Table<[ffi::PyGetSetDef; ATTRIBUTE_COUNT]> = Table::new([
    attribute(c"__name__", get_inner, Some(set_inner), c"name of the coroutine"),
    attribute(c"__qualname__", get_inner, Some(set_inner), c"qualified name of the coroutine"),
    attribute(
        c"cr_frame",
        get_frame,
        None,
        c"The coroutine's frame; while await_() waits, the innermost frame that called it.",
    ),
    attribute(c"cr_code", get_inner, None, c"the coroutine's code object"),
    attribute(
        c"cr_await",
        get_await,
        None,
        c"object being awaited on, by the coroutine or by await_() below it, or None",
    ),
    attribute(c"cr_running", get_running, None, c"True while a step is running"),
    #[cfg(cpython = "3.15")]
    attribute(c"cr_state", get_state, None, c"as `inspect.getcoroutinestate` has it"),
    attribute(c"cr_suspended", get_suspended, None, c"True between two steps"),
    attribute(c"cr_origin", get_inner, None, c"where the coroutine was created, or None"),
    attribute(c"wrapped", get_wrapped, None, c"the coroutine inside"),
    attribute(c"stepped", get_stepped, None, c"True once a step has begun through the portal"),
    attribute(
        c"waits",
        get_waits,
        None,
        c"seconds since its last step, or None if it does not wait",
    ),
    attribute(c"in_await", get_in_await, None, c"True while await_() waits below the coroutine"),
    last_attribute(),
]);

const fn method(
    name: &'static CStr,
    meth: ffi::PyMethodDefPointer,
    flags: c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

static METHODS: Table<[ffi::PyMethodDef; 4]> = Table::new([
    method(
        c"send",
        ffi::PyMethodDefPointer { PyCFunction: send },
        ffi::METH_O,
        c"send($self, value, /)\n--\n\nRun one step: send 'value' in, return what is awaited, or raise StopIteration.",
    ),
    method(
        c"throw",
        ffi::PyMethodDefPointer { PyCFunctionFast: throw },
        ffi::METH_FASTCALL,
        c"throw($self, typ, val=None, tb=None, /)\n--\n\nRun one step: raise an exception inside, return what is awaited, or raise StopIteration.",
    ),
    method(
        c"close",
        ffi::PyMethodDefPointer { PyCFunction: close_method },
        ffi::METH_NOARGS,
        c"close($self, /)\n--\n\nRaise GeneratorExit inside, and expect the coroutine to end.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

static ASYNC: Table<ffi::PyAsyncMethods> = Table::new(ffi::PyAsyncMethods {
    am_await: Some(am_await),
    am_aiter: None,
    am_anext: None,
    am_send: Some(am_send),
});

static TYPE: Type = Type::new();

const DOC: &CStr = c"Portal(coroutine, /)\n--\n\n\
    A coroutine around a coroutine, in which synchronous code can await_().\n\n\
    Give it to whatever would have run the coroutine itself: a task, an event loop, an await.";

/// Readies the type and adds it to the module. False with an error set on failure.
///
/// # Safety
///
/// Attached; `module` is the module being initialised; called once.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    let class = TYPE.get();
    // SAFETY: zeroed memory is a valid type object to fill in (all slots null), not in use yet.
    unsafe {
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"fiberback._fiberback.Portal".as_ptr();
        (*class).tp_basicsize = size_of::<PortalObject>() as ffi::Py_ssize_t;
        set_flags(class, ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC);
        (*class).tp_doc = DOC.as_ptr();
        (*class).tp_new = Some(tp_new);
        (*class).tp_dealloc = Some(tp_dealloc);
        (*class).tp_finalize = Some(tp_finalize);
        (*class).tp_traverse = Some(tp_traverse);
        (*class).tp_clear = Some(tp_clear);
        (*class).tp_repr = Some(tp_repr);
        (*class).tp_iternext = Some(tp_iternext);
        (*class).tp_as_async = ASYNC.get();
        (*class).tp_methods = METHODS.get().cast();
        (*class).tp_getset = ATTRIBUTES.get().cast();
        (*class).tp_weaklistoffset = offset_of!(PortalObject, weak_references) as ffi::Py_ssize_t;
        if ffi::PyType_Ready(class) < 0
            || ffi::PyModule_AddObjectRef(module, c"Portal".as_ptr(), class.cast()) < 0
        {
            return false;
        }
        // asyncio, inspect and anyio recognise coroutines by this ABC.
        let abc = ffi::PyImport_ImportModule(c"collections.abc".as_ptr());
        if abc.is_null() {
            return false;
        }
        let coroutine = ffi::PyObject_GetAttrString(abc, c"Coroutine".as_ptr());
        ffi::Py_DECREF(abc);
        if coroutine.is_null() {
            return false;
        }
        let register = ffi::PyUnicode_InternFromString(c"register".as_ptr());
        let registered = names::call_one(coroutine, register, class.cast());
        ffi::Py_XDECREF(register);
        ffi::Py_DECREF(coroutine);
        ffi::Py_XDECREF(registered);
        !registered.is_null()
    }
}
