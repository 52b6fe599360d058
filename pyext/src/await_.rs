//! `await_()`: wait for an awaitable from synchronous code.
//!
//! On a portal, the awaitable is stepped right here, by what `await` itself uses (`PyIter_Send`).
//! If it finishes without yielding, nothing was switched. If it yields, the yielded object is what
//! the task must get, so the fiber suspends with it and the portal hands it out of its own step;
//! what the task sends or throws next comes back here, and goes into the awaitable as `yield from`
//! would pass it on (`gen_send_ex`, `_gen_throw` in Objects/genobject.c).

use crate::step::{self, Stepper};
use crate::worker::{self, Input, Worker};
use crate::{error, greenlet, interp, names, parking, thrown};
use pyo3::ffi::PySendResult::{PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants called where `await_` finds no portal.
static NO_PORTAL: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants asked whether the current portal is the current task's.
static IS_USABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants asked for the current task where asyncio cannot be.
static CURRENT_TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants called where a region may forbid `await_` (`worker::is_guarded`).
static GUARD: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// Asked for a hint, after the words of `await`, about what is no awaitable.
static NOT_AWAITABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// Asked, where a coroutine's own code has called `await_`, whether it awaits the result.
static AWAITED: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants called before a task is suspended for another one to finish.
static BEFORE_WAIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants called when such a wait has ended.
static AFTER_WAIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// asyncio's `Future`, whose subclasses are tasks and what `gather` makes; the same in pure Python.
static FUTURE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static PURE_FUTURE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

const NO_PORTAL_MESSAGE: &str = "await_() needs a portal, and this code runs in none: wrap the \
     task's coroutine in fiberback.Portal, or start it through fiberback";

/// `PyCoro_Type`'s own `am_send`: what `PyIter_Send` would call, without the way there.
static COROUTINE_SEND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// `_fiberback.await_`.
///
/// The caller keeps the argument alive for the time of the call. `METH_FASTCALL` rather than
/// `METH_O` tells where it does: see `caller_owns_arguments`.
pub(crate) unsafe extern "C" fn await_(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        if count != 1 {
            error::set_type(&format!("await_() takes exactly one argument ({count} given)"));
            return ptr::null_mut();
        }
        let (worker, guarded) = worker::current_and_guarded();
        // SAFETY: `METH_FASTCALL`: one borrowed object.
        let awaitable = unsafe { *arguments };
        // SAFETY: called by the interpreter: attached, and it lends us the argument.
        unsafe {
            if guarded && !is_allowed(awaitable) {
                return ptr::null_mut();
            }
            if worker.is_null() || Worker::is_masked(worker) {
                let result = if !worker.is_null() && !(*worker).guest.is_null() {
                    await_as_guest(worker, awaitable, arguments)
                } else {
                    off_portal(awaitable, ptr::null_mut())
                };
                return unless_awaited(result);
            }
            // By far the most frequent, and the one where a nanosecond counts: a coroutine that
            // nobody has started yet.
            if ffi::Py_TYPE(awaitable) == &raw mut ffi::PyCoro_Type
                && interp::coroutine_state(awaitable) == interp::CoroutineState::Created
            {
                let send = COROUTINE_SEND.load(Ordering::Relaxed);
                let send = std::mem::transmute::<*mut c_void, ffi::sendfunc>(send);
                let mut result = ptr::null_mut();
                let stepper = Stepper::of(worker, awaitable);
                let status;
                if stepper.is_here() {
                    status = send(awaitable, ffi::Py_None(), &raw mut result);
                } else {
                    (status, result) = stepper.send(awaitable, ffi::Py_None());
                }
                if status != PYGEN_NEXT {
                    return result;
                }
                // A reference of our own from here on: what the portal shows to the collector.
                ffi::Py_INCREF(awaitable);
                result = go_on(worker, awaitable, stepper, (PYGEN_NEXT, result), arguments);
                ffi::Py_DECREF(awaitable);
                return unless_awaited(result);
            }
            unless_awaited(drive(worker, awaitable, arguments))
        }
    })
}

/// Steps `awaitable` to its end. `arguments` is where `await_`'s caller keeps the awaitable.
#[inline(never)]
unsafe fn drive(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached (all callers). `iterator` is a reference of our own, so that it lives as
    // long as we step it.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return ptr::null_mut();
        }
        let stepper = Stepper::of(worker, awaitable);
        let outcome = stepper.send(iterator, ffi::Py_None());
        let result = go_on(worker, iterator, stepper, outcome, arguments);
        ffi::Py_DECREF(iterator);
        result
    }
}

/// The result for `await_`'s caller (owned, or null), or null with an error set where that is a coroutine
/// that is going to await it, and cannot. Not asked where nothing was waited for: `await` itself says
/// then that it cannot.
#[inline]
unsafe fn unless_awaited(result: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached (all callers), no error set where there is a result.
    unsafe {
        if result.is_null() || !interp::may_await_result(ffi::PyThreadState_Get()) {
            return result;
        }
        let methods = (*ffi::Py_TYPE(result)).tp_as_async;
        if !methods.is_null() && (*methods).am_await.is_some() || ask(&AWAITED, result) {
            return result;
        }
        ffi::Py_DECREF(result);
        ptr::null_mut()
    }
}

/// Goes on with an iterator whose first step had this outcome. The caller owns one reference to the
/// iterator for this call, and it is the one that the portal's `tp_traverse` visits.
#[inline(never)]
unsafe fn go_on(
    worker: *mut Worker,
    iterator: *mut PyObject,
    stepper: Stepper,
    (mut status, mut result): step::Outcome,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached (all callers); the results and inputs are owned as their types say.
    unsafe {
        while status == PYGEN_NEXT {
            // Here, as it can wait itself.
            thrown::end(worker);
            let ts = ffi::PyThreadState_Get();
            if let Some(message) = interp::refusal(ts) {
                ffi::Py_DECREF(result);
                refuse(iterator, message);
                return ptr::null_mut();
            }
            if Worker::is_in_nested_context(worker, ts) && !is_usable() {
                let answer = if ffi::PyErr_Occurred().is_null() {
                    off_portal(iterator, result)
                } else {
                    discard(iterator);
                    ptr::null_mut()
                };
                ffi::Py_DECREF(result);
                return answer;
            }
            let argument = if interp::caller_owns_arguments(ts, arguments) {
                *arguments
            } else {
                ptr::null_mut()
            };
            let input = suspend(worker, iterator, result, argument);
            match input {
                Input::Value(value) => {
                    thrown::note_value(worker, value);
                    (status, result) = stepper.send(iterator, value);
                    ffi::Py_DECREF(value);
                }
                Input::Raise(exception) => {
                    thrown::note_exception(worker, exception, 1);
                    (status, result) = stepper.throw(iterator, exception);
                }
                Input::Send { .. }
                | Input::Throw { .. }
                | Input::Drive(_)
                | Input::Unpark
                | Input::Called
                | Input::Run(..)
                | Input::Go => {
                    unreachable!("a new step begun on a worker in the middle of one")
                }
            }
        }
        debug_assert!(status == PYGEN_RETURN || result.is_null());
        thrown::settle(worker);
        result
    }
}

/// Suspends the portal with what `iterator` has yielded (owned), and returns what the iterator is to
/// get. The caller owns a reference to the iterator, and one to `argument` if that is not null.
#[inline(always)]
unsafe fn suspend(
    worker: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
    argument: *mut PyObject,
) -> Input {
    // SAFETY: attached; the worker is current, and nothing is in the way of a suspension.
    unsafe {
        let mut watched = ptr::null_mut();
        if !may_wait_for(yielded, iterator, &mut watched) {
            ffi::Py_DECREF(yielded);
            return Input::Raise(error::take());
        }
        (*worker).awaiting = iterator;
        (*worker).argument = argument;
        let input = Worker::suspend(worker, yielded);
        (*worker).awaiting = ptr::null_mut();
        if watched.is_null() {
            return input;
        }
        let exception = wait_has_ended(watched);
        if exception.is_null() {
            return input;
        }
        if let Input::Value(before) | Input::Raise(before) = input {
            ffi::Py_DECREF(before);
        }
        Input::Raise(exception)
    }
}

/// What somebody who has waited on an awaitable's behalf has for it; owned.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Send(*mut PyObject),
    Throw(*mut PyObject),
    /// It could not be waited for: the awaitable is to be closed, and this raised.
    Refuse(*mut PyObject),
}

impl Answer {
    /// For an answer that nobody wants.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn drop(self) {
        let (Self::Send(object) | Self::Throw(object) | Self::Refuse(object)) = self;
        // SAFETY: owned.
        unsafe { ffi::Py_DECREF(object) }
    }
}

/// Waits, on this stack and for its task, for what `iterator` has yielded in a greenlet (both owned
/// there).
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn wait_here(iterator: *mut PyObject, yielded: *mut PyObject) -> Answer {
    // SAFETY: passed on.
    unsafe { take_and_wait(iterator, ffi::Py_NewRef(yielded)) }
}

/// [`wait_here`], which takes over what was yielded: a portal's task owns it alone meanwhile.
unsafe fn take_and_wait(iterator: *mut PyObject, yielded: *mut PyObject) -> Answer {
    // SAFETY: attached; a worker that is current is alive. The reference to the iterator is the one that
    // the collector is shown.
    unsafe {
        let worker = worker::current();
        let ts = ffi::PyThreadState_Get();
        if worker.is_null()
            || Worker::is_masked(worker)
            || Worker::is_in_nested_context(worker, ts) && !is_usable()
        {
            let answer = if ffi::PyErr_Occurred().is_null() {
                parking::wait_here(iterator, yielded)
            } else {
                Answer::Refuse(error::take())
            };
            ffi::Py_DECREF(yielded);
            return answer;
        }
        if let Some(message) = interp::refusal(ts) {
            ffi::Py_DECREF(yielded);
            error::set_runtime(message);
            return Answer::Refuse(error::take());
        }
        ffi::Py_INCREF(iterator);
        let input = suspend(worker, iterator, yielded, ptr::null_mut());
        ffi::Py_DECREF(iterator);
        match input {
            Input::Value(value) => Answer::Send(value),
            Input::Raise(exception) => Answer::Throw(exception),
            _ => unreachable!("a new step begun on a worker in the middle of one"),
        }
    }
}

/// Has a guest that is current be resumed by a stack that can wait for it, if there is one: set by whoever makes
/// guests. False if there is none.
pub(crate) type MoveGuest = unsafe fn(*mut Worker) -> bool;

static MOVE_GUEST: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Sets what finds another host for a guest.
pub(crate) fn set_move_guest(function: MoveGuest) {
    MOVE_GUEST.store(function as *mut c_void, Ordering::Relaxed);
}

/// What a guest has its host wait for; in the guest's frame.
struct Wait {
    guest: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
    /// It was tried to find another host.
    is_last: bool,
    /// `None` if somebody else might wait.
    answer: Option<Answer>,
}

/// [`wait_here`], on the stack that has resumed the current worker, which is a guest. Takes over what was
/// yielded.
///
/// # Safety
///
/// Attached, no error set; the worker is current, and both objects are its code's.
pub(crate) unsafe fn wait_on_host(
    worker: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> Answer {
    // SAFETY: the contract. The frame stays where it is while the guest is suspended.
    unsafe {
        let mut wait = Wait { guest: worker, iterator, yielded, is_last: false, answer: None };
        loop {
            if let Some(message) = interp::refusal(ffi::PyThreadState_Get()) {
                ffi::Py_DECREF(yielded);
                error::set_runtime(message);
                return Answer::Refuse(error::take());
            }
            Worker::call_on_host(worker, wait_for_guest, (&raw mut wait).cast());
            if let Some(answer) = wait.answer {
                return answer;
            }
            let find = MOVE_GUEST.load(Ordering::Relaxed);
            if !find.is_null() {
                std::mem::transmute::<*mut c_void, MoveGuest>(find)(worker);
            }
            wait.is_last = true;
        }
    }
}

/// The part of [`wait_on_host`] that is done there.
unsafe fn wait_for_guest(wait: *mut c_void) {
    let wait: *mut Wait = wait.cast();
    // SAFETY: attached, no error set; what it points to is in the frame of the guest, which is suspended. A worker
    // that is current is alive. The collector is shown the guest's reference to what it awaits, and, by the
    // portal, that of this stack to the guest.
    unsafe {
        let host = worker::current();
        let is_portals = !host.is_null() && !Worker::is_masked(host);
        if !is_portals && !(*wait).is_last && !parking::can_wait_here() {
            return;
        }
        let guest = (*wait).guest;
        (*guest).awaiting = (*wait).iterator;
        (*guest).waits = true;
        let portal = if is_portals { (*host).portal } else { ptr::null_mut() };
        if !portal.is_null() {
            (*portal).awaits_for = (*guest).guest;
        }
        let answer = take_and_wait((*wait).iterator, (*wait).yielded);
        if !portal.is_null() {
            (*portal).awaits_for = ptr::null_mut();
        }
        (*guest).waits = false;
        (*guest).awaiting = ptr::null_mut();
        (*wait).answer = Some(answer);
    }
}

/// Steps `awaitable` to its end in a greenlet that a portal's code has switched to.
#[inline(never)]
unsafe fn drive_in_greenlet(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; references are owned as in `drive`.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let mut result = ptr::null_mut();
        let mut status = ffi::PyIter_Send(iterator, ffi::Py_None(), &raw mut result);
        while status == PYGEN_NEXT {
            let yielded = result;
            let worker = worker::current();
            let answer = if !worker.is_null() && !(*worker).guest.is_null() {
                wait_on_host(worker, iterator, yielded)
            } else if let Some(inside) = greenlet::inside() {
                let answer = greenlet::wait(inside, iterator, yielded);
                ffi::Py_DECREF(yielded);
                answer
            } else {
                // The awaitable itself has switched to another greenlet.
                take_and_wait(iterator, yielded)
            };
            (status, result) = answer_to(iterator, answer);
        }
        ffi::Py_DECREF(iterator);
        result
    }
}

/// Gives an iterator what was answered to what it has yielded.
unsafe fn answer_to(iterator: *mut PyObject, answer: Answer) -> (ffi::PySendResult, *mut PyObject) {
    // SAFETY: attached; owned.
    unsafe {
        match answer {
            Answer::Send(value) => {
                let mut result = ptr::null_mut();
                let status = ffi::PyIter_Send(iterator, value, &raw mut result);
                ffi::Py_DECREF(value);
                (status, result)
            }
            Answer::Throw(exception) => delegate_throw(iterator, exception),
            Answer::Refuse(exception) => {
                if !close(iterator) {
                    ffi::PyErr_WriteUnraisable(iterator);
                }
                error::restore(exception);
                (PYGEN_ERROR, ptr::null_mut())
            }
        }
    }
}

/// To be called once, at import. False if the interpreter's coroutines cannot be stepped.
pub(crate) fn init() -> bool {
    // SAFETY: a static type of the interpreter, ready since long.
    unsafe {
        let methods = ffi::PyCoro_Type.tp_as_async;
        let Some(send) = (if methods.is_null() { None } else { (*methods).am_send }) else {
            error::set_runtime("CPython's coroutines have no am_send");
            return false;
        };
        COROUTINE_SEND.store(send as *mut c_void, Ordering::Relaxed);
        true
    }
}

/// What `await` would step (`_PyCoro_GetAwaitableIter` and `GET_AWAITABLE`), as a new reference.
/// Null with the error that `await` would raise.
///
/// # Safety
///
/// Attached; `awaitable` must be a valid object.
#[inline(always)]
pub(crate) unsafe fn iterator_of(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; `awaitable` is borrowed and valid. Static types are compared by address.
    unsafe {
        let class = ffi::Py_TYPE(awaitable);
        if class == &raw mut ffi::PyCoro_Type {
            if interp::coroutine_state(awaitable) == interp::CoroutineState::Suspended
                && is_awaited(awaitable)
            {
                error::set_runtime("coroutine is being awaited already");
                return ptr::null_mut();
            }
            return ffi::Py_NewRef(awaitable);
        }
        iterator_of_other(awaitable, class)
    }
}

unsafe fn iterator_of_other(
    awaitable: *mut PyObject,
    class: *mut ffi::PyTypeObject,
) -> *mut PyObject {
    // SAFETY: as in `iterator_of`; slots are called with what they are for.
    unsafe {
        if is_iterable_coroutine(awaitable) {
            return ffi::Py_NewRef(awaitable);
        }
        let methods = (*class).tp_as_async;
        let get = if methods.is_null() { None } else { (*methods).am_await };
        let Some(get) = get else {
            let name = class_name(class);
            // The words of `_PyEval_FormatAwaitableError` and, since 3.14, `_PyCoro_GetAwaitableIter`.
            let words = if ffi::Py_Version >= 0x030E_0000 {
                format!("'{name}' object can't be awaited")
            } else {
                format!("object {name} can't be used in 'await' expression")
            };
            error::set_type(&(words + &cure_for(awaitable)));
            return ptr::null_mut();
        };
        let iterator = get(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let of = ffi::Py_TYPE(iterator);
        let mistake = if of == &raw mut ffi::PyCoro_Type || is_iterable_coroutine(iterator) {
            "__await__() returned a coroutine".to_string()
        } else if ffi::PyIter_Check(iterator) == 0 {
            format!("__await__() returned non-iterator of type '{}'", class_name(of))
        } else {
            return iterator;
        };
        if ffi::Py_Version >= 0x030F_0000 {
            // `%T`, a fully qualified name, came with 3.13.
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"%T.__await__() must return an iterator, not %T".as_ptr(),
                awaitable,
                iterator,
            );
        } else {
            error::set_type(&mistake);
        }
        ffi::Py_DECREF(iterator);
        ptr::null_mut()
    }
}

/// Whether it is a generator made a coroutine by `types.coroutine`.
unsafe fn is_iterable_coroutine(object: *mut PyObject) -> bool {
    // SAFETY: attached; the type is checked before the object is taken for a generator.
    unsafe {
        if ffi::Py_TYPE(object) != &raw mut ffi::PyGen_Type {
            return false;
        }
        let code = ffi::PyObject_GetAttr(object, names::GI_CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let flags = *interp::facts::field::<_, i32>(code, interp::facts::CODE_FLAGS);
        ffi::Py_DECREF(code);
        flags & ffi::CO_ITERABLE_COROUTINE != 0
    }
}

unsafe fn class_name(class: *mut ffi::PyTypeObject) -> String {
    // SAFETY: a type's name is a C string that lives as long as the type.
    unsafe { std::ffi::CStr::from_ptr((*class).tp_name) }.to_string_lossy().into_owned()
}

/// Whether a suspended coroutine is suspended *in an await* (`_PyGen_yf`), not in a bare yield.
unsafe fn is_awaited(coroutine: *mut PyObject) -> bool {
    // SAFETY: attached; a coroutine has this attribute.
    unsafe {
        let inner = ffi::PyObject_GetAttr(coroutine, names::CR_AWAIT.get());
        if inner.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let awaited = inner != ffi::Py_None();
        ffi::Py_DECREF(inner);
        awaited
    }
}

/// Passes an exception (owned) on to the iterator as `_gen_throw` does to what a generator
/// delegates to.
///
/// # Safety
///
/// Attached; both must be valid objects.
pub(crate) unsafe fn delegate_throw(
    iterator: *mut PyObject,
    exception: *mut PyObject,
) -> (ffi::PySendResult, *mut PyObject) {
    // SAFETY: attached, references owned as documented.
    unsafe {
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_GeneratorExit) != 0 {
            // GeneratorExit closes the inner iterator, then is raised here.
            if close(iterator) {
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let throw = names::attribute(iterator, names::THROW.get());
        if throw.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                // A plain iterator: the exception is raised at the `yield from`.
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let result = ffi::PyObject_CallOneArg(throw, exception);
        ffi::Py_DECREF(throw);
        ffi::Py_DECREF(exception);
        worker::outcome_of_call(result)
    }
}

/// `gen_close_iter`: calls `close()` if there is one. False with the error set if it raised.
///
/// # Safety
///
/// Attached; a valid object.
pub(crate) unsafe fn close(iterator: *mut PyObject) -> bool {
    // SAFETY: attached.
    unsafe {
        let close = names::attribute(iterator, names::CLOSE.get());
        if close.is_null() {
            return ffi::PyErr_Occurred().is_null();
        }
        let result = ffi::PyObject_CallNoArgs(close);
        ffi::Py_DECREF(close);
        ffi::Py_XDECREF(result);
        !result.is_null()
    }
}

/// Ends an iterator that has yielded where nobody can wait for it, then raises RuntimeError.
///
/// # Safety
///
/// Attached; `iterator` must be a valid object.
#[cold]
pub(crate) unsafe fn refuse(iterator: *mut PyObject, message: &str) {
    // SAFETY: attached.
    unsafe {
        if !close(iterator) {
            ffi::PyErr_WriteUnraisable(iterator);
        }
    }
    error::set_runtime(message);
}

/// Closes a coroutine that will not be awaited, so that nothing warns that it never was.
pub(crate) unsafe fn discard(awaitable: *mut PyObject) {
    // SAFETY: attached; an error that is set is kept over the call of Python code.
    unsafe {
        if ffi::Py_TYPE(awaitable) != &raw mut ffi::PyCoro_Type {
            return;
        }
        let pending = error::take();
        if !close(awaitable) {
            ffi::PyErr_WriteUnraisable(awaitable);
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}

/// Whether the current portal is one of the task that runs now.
///
/// Something on the portal may be driving a task of its own right now: an eager task that begins
/// in its creator's step, another event loop run to its end. To suspend the portal then would leave
/// that task current for everybody else. All drivers of tasks enter the task's context, so the
/// question comes up only inside a `Context.run` that began on the fiber; and only the Python layer
/// can answer it.
#[cold]
unsafe fn is_usable() -> bool {
    let hook = IS_USABLE.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = ffi::PyObject_CallNoArgs(hook);
        ffi::Py_DECREF(hook);
        let usable = !answer.is_null() && ffi::PyObject_IsTrue(answer) == 1;
        ffi::Py_XDECREF(answer);
        usable
    }
}

/// Whether this code runs on a portal of the task that runs now. False with an error set if that
/// cannot be told.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(crate) unsafe fn is_on_usable_portal() -> bool {
    // SAFETY: attached; a worker that runs, or waits for a greenlet, is alive.
    unsafe {
        let worker = worker_here();
        !worker.is_null() && !Worker::is_masked(worker) && is_usable()
    }
}

/// The worker that this code belongs to: the current one, or the one whose code has switched to the
/// greenlet (of either kind) that this code is in. Null if there is none.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(crate) unsafe fn worker_here() -> *mut Worker {
    // SAFETY: attached; a worker that runs is alive.
    unsafe {
        let worker = Worker::host_of(worker::current());
        if !worker.is_null() {
            return worker;
        }
        greenlet::inside().map_or(worker, |inside| inside.worker)
    }
}

/// The Python layer's idea of the current task: a new reference, `None` if there is none, null with
/// an error set on failure.
///
/// # Safety
///
/// Attached.
#[cold]
pub(crate) unsafe fn ask_for_task() -> *mut PyObject {
    let hook = CURRENT_TASK.load(Ordering::Relaxed);
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(if hook.is_null() { ffi::Py_None() } else { hook });
        let task = if hook == ffi::Py_None() { hook } else { ffi::PyObject_CallNoArgs(hook) };
        if task != hook {
            ffi::Py_DECREF(hook);
        }
        task
    }
}

/// Whether no region on this stack forbids `await_`. If one does, false with the error set and the
/// awaitable closed.
#[cold]
unsafe fn is_allowed(awaitable: *mut PyObject) -> bool {
    // SAFETY: attached; `awaitable` is borrowed and valid.
    unsafe {
        if ask(&GUARD, awaitable) {
            return true;
        }
        discard(awaitable);
        false
    }
}

/// Whether the object is one of asyncio's futures: a task, for one.
///
/// # Safety
///
/// A valid object.
#[inline]
pub(crate) unsafe fn is_asyncio_future(object: *mut PyObject) -> bool {
    let future: *mut ffi::PyTypeObject = FUTURE.load(Ordering::Relaxed).cast();
    // SAFETY: the contract; two types.
    unsafe {
        let class = ffi::Py_TYPE(object);
        class == future || !future.is_null() && ffi::PyType_IsSubtype(class, future) != 0
    }
}

/// Whether the object that an awaitable has yielded is a future that a task may be behind.
///
/// Tasks and what `gather` makes are subclasses of `Future`. `shield` makes a plain one that has a
/// callback already, which hardly any other has when it is first waited for, and `wait` and
/// `wait_for` (of 3.11) plain ones without: those are known by their code.
#[inline]
unsafe fn is_for_task(yielded: *mut PyObject, iterator: *mut PyObject) -> bool {
    // SAFETY: attached; all valid and borrowed.
    unsafe {
        if yielded == ffi::Py_None() {
            return false;
        }
        let class = ffi::Py_TYPE(yielded);
        let future: *mut ffi::PyTypeObject = FUTURE.load(Ordering::Relaxed).cast();
        if class == future {
            return is_plain_for_task(yielded, iterator);
        }
        let pure: *mut ffi::PyTypeObject = PURE_FUTURE.load(Ordering::Relaxed).cast();
        !future.is_null() && ffi::PyType_IsSubtype(class, future) != 0
            || !pure.is_null() && ffi::PyType_IsSubtype(class, pure) != 0
    }
}

const FEW_REFERENCES: ffi::Py_ssize_t = 32;

#[inline(never)]
unsafe fn is_plain_for_task(future: *mut PyObject, iterator: *mut PyObject) -> bool {
    // SAFETY: as in `is_for_task`; references are dropped, errors mean "no".
    unsafe {
        // `_callbacks` is a copy, so many waiting for one future would take quadratic time. Each of
        // them holds references to it; what `shield` and `wait` make has one waiter, and few.
        if ffi::Py_REFCNT(future) > FEW_REFERENCES {
            return false;
        }
        let callbacks = ffi::PyObject_GetAttr(future, names::CALLBACKS.get());
        if callbacks.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let some = callbacks != ffi::Py_None();
        ffi::Py_DECREF(callbacks);
        if some || ffi::Py_TYPE(iterator) != &raw mut ffi::PyCoro_Type {
            return some;
        }
        let code = ffi::PyObject_GetAttr(iterator, names::CR_CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let found = WAITERS.iter().any(|waiter| waiter.load(Ordering::Relaxed) == code);
        ffi::Py_DECREF(code);
        found
    }
}

/// The code objects of asyncio's `wait` and `wait_for`.
static WAITERS: [AtomicPtr<PyObject>; 2] =
    [AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut())];

/// Whether the Python layer has nothing against waiting for what `iterator` has yielded; it is asked
/// only where that may be a task. If it has, false with the error set. If not, `watched` may be made
/// an object (owned) that [`wait_has_ended`] is to be given after the wait.
///
/// # Safety
///
/// Attached, no error set; both valid and borrowed.
#[inline(always)]
pub(crate) unsafe fn may_wait_for(
    yielded: *mut PyObject,
    iterator: *mut PyObject,
    watched: &mut *mut PyObject,
) -> bool {
    // SAFETY: the contract.
    unsafe { !is_for_task(yielded, iterator) || may_wait(yielded, watched) }
}

#[inline(never)]
unsafe fn may_wait(future: *mut PyObject, watched: &mut *mut PyObject) -> bool {
    let hook = BEFORE_WAIT.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; `future` is valid and borrowed, the hook kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = step::call(hook, future);
        ffi::Py_DECREF(hook);
        if answer == ffi::Py_None() {
            ffi::Py_DECREF(answer);
        } else {
            *watched = answer;
        }
        !answer.is_null()
    }
}

/// Tells the Python layer that a wait has ended which [`may_wait_for`] has told it of. Takes
/// `watched` over. What is to be raised at the place of the wait (owned), or null.
///
/// # Safety
///
/// Attached, no error set.
#[inline(never)]
pub(crate) unsafe fn wait_has_ended(watched: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let told = ask(&AFTER_WAIT, watched);
        ffi::Py_DECREF(watched);
        if told {
            return ptr::null_mut();
        }
        let exception = error::take();
        // Ctrl-C came in the middle of it: for the program. Anything else would be our mistake, as
        // in an interpreter that has taken our modules apart.
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_Exception) == 0 {
            return exception;
        }
        error::restore(exception);
        ffi::PyErr_WriteUnraisable(ptr::null_mut());
        ptr::null_mut()
    }
}

/// Calls a hook, if there is one, with `argument`. False with the error set if it raised.
unsafe fn ask(hook: &AtomicPtr<PyObject>, argument: *mut PyObject) -> bool {
    let hook = hook.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = step::call(hook, argument);
        ffi::Py_DECREF(hook);
        ffi::Py_XDECREF(answer);
        !answer.is_null()
    }
}

/// What to say to whoever has given `await_` this, after the interpreter's own words.
///
/// # Safety
///
/// Attached, no error set; borrowed.
#[cold]
unsafe fn cure_for(awaitable: *mut PyObject) -> String {
    let hook = NOT_AWAITABLE.load(Ordering::Relaxed);
    if hook.is_null() {
        return String::new();
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call. The text lives
    // as long as the `str` that it belongs to, which is dropped after it was copied.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let cure = ffi::PyObject_CallOneArg(hook, awaitable);
        ffi::Py_DECREF(hook);
        let mut length = 0;
        let text = match cure.is_null() {
            true => ptr::null(),
            false => ffi::PyUnicode_AsUTF8AndSize(cure, &raw mut length),
        };
        let said = match text.is_null() {
            true => {
                ffi::PyErr_Clear(); // the words of `await` do without
                String::new()
            }
            false => {
                let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length as usize);
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        ffi::Py_XDECREF(cure);
        said
    }
}

/// `await_` where there is no portal to suspend. With `yielded` (borrowed, or null), the awaitable is
/// an iterator that has yielded that.
#[inline(never)]
unsafe fn off_portal(awaitable: *mut PyObject, yielded: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, no error set. The hook is owned by the static, and kept alive over its call.
    unsafe {
        let worker = worker::current();
        if !worker.is_null() && !(*worker).guest.is_null() {
            if let Some(result) = in_guest(worker, awaitable) {
                return result;
            }
        } else if greenlet::look() {
            if let Some(result) = in_greenlet(awaitable) {
                return result;
            }
        }
        if let Some(result) = parking::try_park(awaitable, yielded) {
            return result;
        }
        let hook = NO_PORTAL.load(Ordering::Relaxed);
        if hook.is_null() {
            error::set_runtime(NO_PORTAL_MESSAGE);
            discard(awaitable);
            return ptr::null_mut();
        }
        let hook = ffi::Py_NewRef(hook);
        let result = ffi::PyObject_CallOneArg(hook, awaitable);
        ffi::Py_DECREF(hook);
        result
    }
}

/// `await_` in a greenlet of our own. `arguments` is where its caller keeps the awaitable.
#[inline(never)]
unsafe fn await_as_guest(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached, no error set; the worker is current. The argument is the caller's until we return.
    unsafe {
        let is_callers = interp::caller_owns_arguments(ffi::PyThreadState_Get(), arguments);
        (*worker).argument = if is_callers { awaitable } else { ptr::null_mut() };
        let result = off_portal(awaitable, ptr::null_mut());
        (*worker).argument = ptr::null_mut();
        result
    }
}

/// The same in a greenlet of our own.
unsafe fn in_guest(worker: *mut Worker, awaitable: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: attached, no error set; the worker is current. Owned references are dropped.
    unsafe {
        let guest = (*worker).guest;
        if greenlet::is_provider(guest) {
            let parent = ffi::PyObject_GetAttr(guest, names::PARENT.get());
            if parent.is_null() {
                return Some(parent);
            }
            let result = names::call_one(parent, names::SWITCH.get(), awaitable);
            ffi::Py_DECREF(parent);
            return Some(result);
        }
        let host = Worker::host_of(worker);
        let is_portals = ffi::PyErr_Occurred().is_null()
            && !host.is_null()
            && !Worker::is_masked(host)
            && is_usable();
        if !ffi::PyErr_Occurred().is_null() {
            discard(awaitable);
            return Some(ptr::null_mut());
        }
        is_portals.then(|| drive_in_greenlet(awaitable))
    }
}

/// `await_` inside a greenlet that somebody has switched to, if what that somebody is says what to do.
///
/// If it is one of SQLAlchemy's greenlets, its parent awaits what it switches back with. If it was a
/// portal's code that has switched to it, the portal waits (see `greenlet/calls.rs`).
unsafe fn in_greenlet(awaitable: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: attached, no error set; all references are owned where they are used.
    unsafe {
        let inside = greenlet::inside()?;
        if greenlet::is_provider(inside.greenlet) {
            let parent = ffi::PyObject_GetAttr(inside.greenlet, names::PARENT.get());
            if parent.is_null() {
                return Some(parent);
            }
            drop(inside);
            let result = names::call_one(parent, names::SWITCH.get(), awaitable);
            ffi::Py_DECREF(parent);
            return Some(result);
        }
        let worker = inside.worker;
        let is_portals = ffi::PyErr_Occurred().is_null()
            && !worker.is_null()
            && !Worker::is_masked(worker)
            && is_usable();
        if !ffi::PyErr_Occurred().is_null() {
            discard(awaitable);
            return Some(ptr::null_mut());
        }
        is_portals.then(|| drive_in_greenlet(awaitable))
    }
}

/// What `set_hooks` sets, by the name of its keyword argument.
static HOOKS: [(&CStr, &AtomicPtr<PyObject>); 12] = [
    (c"no_portal", &NO_PORTAL),
    (c"is_usable", &IS_USABLE),
    (c"current_task", &CURRENT_TASK),
    (c"guard", &GUARD),
    (c"not_awaitable", &NOT_AWAITABLE),
    (c"awaited", &AWAITED),
    (c"before_wait", &BEFORE_WAIT),
    (c"after_wait", &AFTER_WAIT),
    (c"future", &FUTURE),
    (c"pure_future", &PURE_FUTURE),
    (c"wait", &WAITERS[0]),
    (c"wait_for", &WAITERS[1]),
];

/// `_fiberback.set_hooks(**hooks)`: those that are not given are unset.
pub(crate) unsafe extern "C" fn set_hooks(
    _module: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: `METH_VARARGS | METH_KEYWORDS`: a tuple, and a dict with strings as keys or null.
        unsafe {
            let mut hooks = [ptr::null_mut::<PyObject>(); HOOKS.len()];
            let mut known = 0;
            for ((name, _), hook) in HOOKS.iter().zip(&mut hooks) {
                if !keywords.is_null() {
                    let value = ffi::PyDict_GetItemString(keywords, name.as_ptr());
                    known += isize::from(!value.is_null());
                    *hook = if value == ffi::Py_None() { ptr::null_mut() } else { value };
                }
            }
            let given = if keywords.is_null() { 0 } else { ffi::PyDict_Size(keywords) };
            if known != given || ffi::PyTuple_Size(arguments) != 0 {
                error::set_type("set_hooks() takes the hooks' names as keywords, and nothing else");
                return ptr::null_mut();
            }
            for ((name, place), hook) in HOOKS.iter().zip(hooks) {
                // `is_for_task` takes them for types.
                let is_type = ptr::eq(*place, &FUTURE) || ptr::eq(*place, &PURE_FUTURE);
                if is_type && !hook.is_null() && ffi::PyType_Check(hook) == 0 {
                    error::set_type(&format!("set_hooks(): {name:?} must be a type"));
                    return ptr::null_mut();
                }
            }
            for ((_, place), hook) in HOOKS.iter().zip(hooks) {
                ffi::Py_XINCREF(hook);
                let previous = place.swap(hook, Ordering::Relaxed);
                ffi::Py_XDECREF(previous);
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
