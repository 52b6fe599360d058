//! `await_` in a greenlet of our own.

use crate::usable_portal::is_usable;
use crate::wait_here::take_and_wait;
use crate::worker::{self, Worker};
use crate::{delegate, greenlet, guest, names};
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

unsafe fn drive(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, no error set; `wait_on_host` and `take_and_wait` take over what was yielded.
    unsafe {
        greenlet::drive(awaitable, |iterator, yielded| {
            let worker = worker::current();
            if !worker.is_null() && !(*worker).guest.is_null() {
                guest::wait_on_host(worker, iterator, yielded)
            } else {
                take_and_wait(iterator, yielded)
            }
        })
    }
}
