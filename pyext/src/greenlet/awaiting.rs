//! `await_` in a greenlet that somebody has switched to.

use super::Answer;
use super::calls::{self, inside};
use crate::awaitable::iterator_of;
use crate::usable_portal::is_usable;
use crate::wait_here::wait_here;
use crate::worker::Worker;
use crate::{delegate, names};
use pyo3::ffi::PySendResult::PYGEN_NEXT;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `await_` inside a greenlet that somebody has switched to, if what that somebody is says what to do.
///
/// If it is one of SQLAlchemy's greenlets, its parent awaits what it switches back with. If it was a
/// portal's code that has switched to it, the portal waits (see `calls.rs`).
///
/// # Safety
///
/// Attached, no error set; a valid object.
pub(crate) unsafe fn in_greenlet(awaitable: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: attached, no error set; all references are owned where they are used.
    unsafe {
        let inside = inside()?;
        if is_provider(inside.greenlet) {
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
            delegate::discard(awaitable);
            return Some(ptr::null_mut());
        }
        is_portals.then(|| drive_in_greenlet(awaitable))
    }
}

/// Whether the greenlet is one of SQLAlchemy's, whose parent awaits what it is switched to with. An error is
/// set if that cannot be told.
///
/// # Safety
///
/// Attached, no error set; a valid object.
pub(crate) unsafe fn is_provider(greenlet: *mut PyObject) -> bool {
    // SAFETY: attached.
    unsafe {
        let provider = names::attribute(greenlet, names::PROVIDER.get());
        let is_provider = !provider.is_null() && ffi::PyObject_IsTrue(provider) == 1;
        ffi::Py_XDECREF(provider);
        is_provider
    }
}

/// Steps `awaitable` to its end in a greenlet that a portal's code has switched to.
#[inline(never)]
unsafe fn drive_in_greenlet(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract of `drive`; references are owned where they are kept.
    unsafe {
        drive(awaitable, |iterator, yielded| {
            let answer = match inside() {
                Some(inside) => calls::wait(inside, iterator, yielded),
                // The awaitable itself has switched to another greenlet.
                None => wait_here(iterator, yielded),
            };
            ffi::Py_DECREF(yielded);
            answer
        })
    }
}

/// Steps `awaitable` to its end. `wait` waits for what its iterator has yielded, which it takes over.
///
/// # Safety
///
/// Attached, no error set, as it is when `wait` is called; a valid object.
pub(crate) unsafe fn drive(
    awaitable: *mut PyObject,
    wait: impl Fn(*mut PyObject, *mut PyObject) -> Answer,
) -> *mut PyObject {
    // SAFETY: the contract; the iterator is owned here.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let mut result = ptr::null_mut();
        let mut status = ffi::PyIter_Send(iterator, ffi::Py_None(), &raw mut result);
        while status == PYGEN_NEXT {
            (status, result) = wait(iterator, result).give_to(iterator);
        }
        ffi::Py_DECREF(iterator);
        result
    }
}
