//! `await_` in a greenlet of our own.

use crate::awaitable::iterator_of;
use crate::usable_portal::is_usable;
use crate::wait_here::take_and_wait;
use crate::worker::{self, Worker};
use crate::{delegate, greenlet, guest, names};
use pyo3::ffi::PySendResult::PYGEN_NEXT;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `await_` in a greenlet of our own, if it is one of SQLAlchemy's, whose parent awaits what it switches back with,
/// or if a portal's code has switched to it: then the portal waits.
///
/// # Safety
///
/// Attached, no error set; the worker is current, and a guest; a valid object.
pub(crate) unsafe fn in_guest(
    worker: *mut Worker,
    awaitable: *mut PyObject,
) -> Option<*mut PyObject> {
    // SAFETY: the contract. Owned references are dropped.
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
            && !Worker::is_barred(worker)
            && is_usable();
        if !ffi::PyErr_Occurred().is_null() {
            delegate::discard(awaitable);
            return Some(ptr::null_mut());
        }
        is_portals.then(|| drive(awaitable))
    }
}

/// Steps `awaitable` to its end.
unsafe fn drive(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, no error set; references are owned where they are kept.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let mut result = ptr::null_mut();
        let mut status = ffi::PyIter_Send(iterator, ffi::Py_None(), &raw mut result);
        while status == PYGEN_NEXT {
            let worker = worker::current();
            let answer = if !worker.is_null() && !(*worker).guest.is_null() {
                guest::wait_on_host(worker, iterator, result)
            } else {
                take_and_wait(iterator, result)
            };
            (status, result) = answer.give_to(iterator);
        }
        ffi::Py_DECREF(iterator);
        result
    }
}
