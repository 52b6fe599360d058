//! The loop's next callback, where all that it does is to wake a caller that is parked.
//!
//! Where many callers wait in turn, what runs next when one has parked is mostly the waker of another. To
//! resume a runner for that, which calls the waker and is done, would be two switches more.

use super::driver::{Driver, Next, Parked, ready_count};
use super::fetch::prefetch_next;
use super::handle::Call;
use super::hooks;
use super::waker;
use crate::names;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;

/// Takes the loop's next callback if it does nothing but to wake a caller that is parked on a runner, and
/// returns that, which is to go on; null if the callback is something else.
///
/// # Safety
///
/// Attached, no error set, on the driver's thread, between two stacks.
pub(super) unsafe fn take(driver: *mut Driver, ts: *mut PyThreadState) -> *mut Parked {
    // SAFETY: the contract. No code of anybody's runs in here: the deque, the handle, the waker and the tuple
    // are exactly of types known to us. The caller that waits keeps its waker and its future.
    unsafe {
        if (*driver).batch <= 0
            || (*driver).closing
            || !matches!((*driver).next, Next::Same)
            || !ptr::eq(ffi::Py_TYPE((*driver).ready).cast(), hooks::DEQUE.get())
            || ready_count(driver) == 0
            || Driver::is_debug(driver)
        {
            return ptr::null_mut();
        }
        let handle = ffi::PySequence_GetItem((*driver).ready, 0);
        let found = find(ts, driver, handle);
        ffi::Py_XDECREF(handle); // the queue has it
        let Some((waker, future)) = found else {
            ffi::PyErr_Clear();
            return ptr::null_mut();
        };
        let handle = names::call_none((*driver).ready, names::POPLEFT.get());
        if handle.is_null() {
            ffi::PyErr_Clear();
            return ptr::null_mut();
        }
        (*driver).batch -= 1;
        let parked = std::mem::replace(&mut (*waker).parked, ptr::null_mut());
        if !future.is_null() && (*parked).outcome.is_null() {
            (*parked).outcome = ffi::Py_NewRef(future);
        }
        prefetch_next(driver);
        // Whoever is woken drops it: the end of a handle may call what has a weak reference to it.
        (*driver).woken_by = handle;
        parked
    }
}

/// The waker that the handle calls, and the future that it is called with, or null.
unsafe fn find(
    ts: *mut PyThreadState,
    driver: *mut Driver,
    handle: *mut PyObject,
) -> Option<(*mut waker::WakerObject, *mut PyObject)> {
    // SAFETY: as in `take`; null or a valid object.
    unsafe {
        if handle.is_null() || !(*driver).woken_by.is_null() {
            return None;
        }
        let call = Call::of(ts, handle)?;
        let waker = waker::of_a_wait(call.callback);
        if waker.is_null() || (*waker).driver != driver {
            return None;
        }
        let parked = (*waker).parked;
        if (*parked).worker.is_null() || !(*parked).contexts.are_free() {
            return None;
        }
        let future = match ffi::PyTuple_GET_SIZE(call.arguments) {
            0 => ptr::null_mut(),
            1 => ffi::PyTuple_GET_ITEM(call.arguments, 0),
            _ => return None,
        };
        // What else it may be called with, it looks into.
        (future.is_null() || future == (*parked).future).then_some((waker, future))
    }
}
