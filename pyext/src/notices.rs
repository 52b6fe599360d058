//! What users should hear of once: a RuntimeWarning for each kind.

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// A text that is said once in the life of the process.
pub(crate) struct Notice {
    message: &'static str,
    told: AtomicBool,
}

impl Notice {
    pub(crate) const fn new(message: &'static str) -> Self {
        Self { message, told: AtomicBool::new(false) }
    }

    /// Says it of `whose` (borrowed), or of nobody if that is null, if it was never said before. An error
    /// that is set stays.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn tell(&self, whose: *mut PyObject) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        // SAFETY: attached; the format takes two objects, which are alive. What is raised where warnings are
        // errors has nobody to go to. Memory may be what this is about: nothing is allocated in Rust, which
        // would abort.
        unsafe {
            let pending = error::take();
            let (message, length) = (self.message.as_ptr().cast(), self.message.len());
            let mut text = ffi::PyUnicode_FromStringAndSize(message, length as ffi::Py_ssize_t);
            if !whose.is_null() && !text.is_null() {
                let message = text;
                text = ffi::PyUnicode_FromFormat(c"%R: %U".as_ptr(), whose, message);
                ffi::Py_DECREF(message);
            }
            let bytes = if text.is_null() { ptr::null() } else { ffi::PyUnicode_AsUTF8(text) };
            if bytes.is_null() || ffi::PyErr_WarnEx(ffi::PyExc_RuntimeWarning, bytes, 1) < 0 {
                let whose = if whose.is_null() { ffi::Py_None() } else { whose };
                ffi::PyErr_WriteUnraisable(whose);
            }
            ffi::Py_XDECREF(text);
            if !pending.is_null() {
                error::restore(pending);
            }
        }
    }
}
