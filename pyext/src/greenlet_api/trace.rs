//! The function that `settrace` has set: told of every switch, in the greenlet that was switched to.

use super::layout::{Greenlet, Record};
use super::names;
use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// Tells the trace function that `target` was switched to from `origin`, with a value, or to raise the error that
/// is set (which stays). If it raises itself, it is unset, and false is returned with that error set.
///
/// # Safety
///
/// Attached; the calling thread's record, with a trace function; greenlets.
#[cold]
pub(super) unsafe fn call(
    record: *mut Record,
    is_value: bool,
    origin: *mut Greenlet,
    target: *mut Greenlet,
) -> bool {
    // SAFETY: attached; owned.
    unsafe {
        let pending = error::take();
        let called = call_with(record, is_value, origin, target);
        if !pending.is_null() {
            if called {
                error::restore(pending);
            } else {
                error::keeping(|| ffi::Py_DECREF(pending));
            }
        }
        called
    }
}

/// [`call`], with no error set.
///
/// # Safety
///
/// As [`call`].
#[cold]
pub(super) unsafe fn call_with(
    record: *mut Record,
    is_value: bool,
    origin: *mut Greenlet,
    target: *mut Greenlet,
) -> bool {
    // SAFETY: attached; the function is owned over its call. That is not traced itself.
    unsafe {
        let function = ffi::Py_NewRef((*record).trace);
        let event = if is_value { names::switch() } else { names::throw() };
        let greenlets: [*mut PyObject; 2] = [origin.cast(), target.cast()];
        let pair = ffi::PyTuple_Pack(2, greenlets[0], greenlets[1]);
        let mut result = ptr::null_mut();
        if !pair.is_null() {
            let arguments = [event, pair];
            let ts = ffi::PyThreadState_Get();
            ffi::PyThreadState_EnterTracing(ts);
            result = ffi::PyObject_Vectorcall(function, arguments.as_ptr(), 2, ptr::null_mut());
            ffi::PyThreadState_LeaveTracing(ts);
            ffi::Py_DECREF(pair);
        }
        let called = !result.is_null();
        if called {
            ffi::Py_DECREF(result);
        } else {
            let set = std::mem::replace(&mut (*record).trace, ptr::null_mut());
            error::keeping(|| ffi::Py_XDECREF(set));
        }
        error::keeping(|| ffi::Py_DECREF(function));
        called
    }
}
