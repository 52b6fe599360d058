//! The end of all waits of a thread, as when the interpreter ends.

use crate::barrier::barrier;
use crate::{parking, portal, thread_exit};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.close_all()`.
pub(crate) unsafe extern "C" fn close_all(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        thread_exit::exits_here();
        // SAFETY: attached, called with no error set.
        unsafe {
            let parked = parking::close_all();
            ffi::PyLong_FromSize_t(parked + portal::close_all())
        }
    })
}
