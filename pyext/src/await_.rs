//! `await_()`: wait for an awaitable from synchronous code.
//!
//! On a portal, the awaitable is stepped right here, by what `await` itself uses (`PyIter_Send`).
//! If it finishes without yielding, nothing was switched. If it yields, the yielded object is what
//! the task must get, so the fiber suspends with it and the portal hands it out of its own step;
//! what the task sends or throws next comes back here, and goes into the awaitable as `yield from`
//! would pass it on (`gen_send_ex`, `_gen_throw` in Objects/genobject.c).

use crate::awaitable::iterator_of;
use crate::barrier::barrier;
use crate::coroutine_methods::Outcome;
use crate::no_portal::no_portal;
use crate::step::{Stepper, ask};
use crate::usable_portal::is_usable;
use crate::wait_here::suspend;
use crate::worker::{self, Input, Worker};
use crate::{delegate, error, greenlet, guest_await, interp, parking, thrown};
use pyo3::ffi::PySendResult::{PYGEN_NEXT, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants called where a region may forbid `await_` (`worker::set_guarded`).
pub(crate) static GUARD: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// Asked, where a coroutine's own code has called `await_`, whether it awaits the result.
pub(crate) static AWAITED: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

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
    barrier(ptr::null_mut(), || {
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
                    off_portal(worker, awaitable, ptr::null_mut())
                };
                return unless_awaited(ffi::PyThreadState_Get(), result);
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
                    return unless_awaited(Worker::thread_state(worker), result);
                }
                // A reference of our own from here on: what the portal shows to the collector.
                ffi::Py_INCREF(awaitable);
                result = go_on(worker, awaitable, stepper, (PYGEN_NEXT, result), arguments);
                ffi::Py_DECREF(awaitable);
                return unless_awaited(ffi::PyThreadState_Get(), result);
            }
            let result = drive(worker, awaitable, arguments);
            unless_awaited(ffi::PyThreadState_Get(), result)
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
/// that is going to await it, and cannot.
#[inline]
unsafe fn unless_awaited(ts: *mut ffi::PyThreadState, result: *mut PyObject) -> *mut PyObject {
    // SAFETY: `ts` is the attached thread state (all callers), no error set where there is a result.
    unsafe {
        if result.is_null() || !interp::may_await_result(ts) {
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
    (mut status, mut result): Outcome,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached (all callers); the results and inputs are owned as their types say.
    unsafe {
        while status == PYGEN_NEXT {
            // Here, as it can wait itself.
            thrown::end(&raw mut (*worker).thrown);
            let ts = ffi::PyThreadState_Get();
            if let Some(message) = interp::refusal(ts) {
                ffi::Py_DECREF(result);
                delegate::refuse(iterator, message);
                return ptr::null_mut();
            }
            if Worker::is_in_nested_context(worker, ts) && !is_usable() {
                let answer = if ffi::PyErr_Occurred().is_null() {
                    off_portal(worker, iterator, result)
                } else {
                    delegate::discard(iterator);
                    ptr::null_mut()
                };
                ffi::Py_DECREF(result);
                return answer;
            }
            let argument =
                if interp::caller_owns_arguments(ts, arguments, is_await, |_, _| false).is_some() {
                    *arguments
                } else {
                    ptr::null_mut()
                };
            let input = suspend(worker, iterator, result, argument);
            match input {
                Input::Value(value) => {
                    thrown::note_value(&raw mut (*worker).thrown, value);
                    (status, result) = stepper.send(iterator, value);
                    ffi::Py_DECREF(value);
                }
                Input::Raise(exception) => {
                    thrown::note_exception(&raw mut (*worker).thrown, exception, 1);
                    (status, result) = stepper.throw(iterator, exception);
                }
                Input::Send { .. }
                | Input::Throw { .. }
                | Input::Run(..)
                | Input::Unpark
                | Input::Called
                | Input::Go => {
                    unreachable!("a new step begun on a worker in the middle of one")
                }
            }
        }
        debug_assert!(status == PYGEN_RETURN || result.is_null());
        thrown::settle(&raw mut (*worker).thrown);
        result
    }
}

/// To be called once, at import. False if the interpreter's coroutines cannot be stepped.
pub(crate) fn init() -> bool {
    // SAFETY: a static type of the interpreter, ready since long.
    unsafe {
        let methods = ffi::PyCoro_Type.tp_as_async;
        let Some(send) = (if methods.is_null() { None } else { (*methods).am_send }) else {
            interp::unlike::set("its coroutines have no am_send");
            return false;
        };
        COROUTINE_SEND.store(send as *mut c_void, Ordering::Relaxed);
        true
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
        delegate::discard(awaitable);
        false
    }
}

/// Whether the object (valid) is the function [`await_`].
fn is_await(object: *mut PyObject) -> bool {
    // SAFETY: attached, as every caller is; the function's type is that of `METH_FASTCALL`, as C has it, whatever the
    // other one's is, and is only compared.
    unsafe {
        ffi::PyCFunction_Check(object) != 0
            && ffi::PyCFunction_GetFunction(object)
                .is_some_and(|function| ptr::eq(function as *const c_void, await_ as *const c_void))
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
        let function =
            interp::caller_owns_arguments(ffi::PyThreadState_Get(), arguments, is_await, |_, _| {
                false
            });
        (*worker).argument = if function.is_some() { awaitable } else { ptr::null_mut() };
        let result = match guest_await::in_guest(worker, awaitable) {
            Some(result) => result,
            None => off_portal(worker, awaitable, ptr::null_mut()),
        };
        (*worker).argument = ptr::null_mut();
        result
    }
}

/// `await_` where there is no portal to suspend. With `yielded` (borrowed, or null), the awaitable is
/// an iterator that has yielded that.
#[inline(never)]
unsafe fn off_portal(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    yielded: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached, no error set; `worker` is the current one, or null.
    unsafe {
        if greenlet::look() {
            if let Some(result) = greenlet::in_greenlet(awaitable) {
                return result;
            }
        }
        match parking::try_park(worker, awaitable, yielded) {
            Some(result) => result,
            None => no_portal(awaitable),
        }
    }
}
