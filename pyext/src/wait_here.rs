//! A wait on this stack, for the task that it is of: the portal that it is on is suspended, or it is parked.

use crate::greenlet::Answer;
use crate::task_waits::{may_wait_for, wait_has_ended};
use crate::usable_portal::is_usable;
use crate::worker::{self, Input, Worker};
use crate::{error, interp, parking};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// Suspends the portal with what `iterator` has yielded (owned), and returns what the iterator is to
/// get. The caller owns a reference to the iterator, and one to `argument` if that is not null.
///
/// # Safety
///
/// Attached, no error set; the worker is current, and nothing is in the way of a suspension.
#[inline(always)]
pub(crate) unsafe fn suspend(
    worker: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
    argument: *mut PyObject,
) -> Input {
    // SAFETY: the contract.
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
///
/// # Safety
///
/// As [`wait_here`].
pub(crate) unsafe fn take_and_wait(iterator: *mut PyObject, yielded: *mut PyObject) -> Answer {
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
