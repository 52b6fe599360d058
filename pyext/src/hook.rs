//! A Python object that the Python layer has given us: a function to call, or something to compare with.

use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A Python object that lives for ever once it is set.
pub(crate) struct Hook(AtomicPtr<PyObject>);

impl Hook {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The object, borrowed; null before it is set.
    #[inline]
    pub(crate) fn get(&self) -> *mut PyObject {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it; the reference is owned. What was set before is kept for ever: it may be in use.
    pub(crate) fn set(&self, object: *mut PyObject) {
        self.0.store(object, Ordering::Relaxed);
    }

    /// Calls it. Null with an error set on failure.
    ///
    /// # Safety
    ///
    /// Attached; it is set; valid objects.
    #[inline]
    pub(crate) unsafe fn call(&self, arguments: &[*mut PyObject]) -> *mut PyObject {
        // SAFETY: the contract.
        unsafe {
            ffi::PyObject_Vectorcall(
                self.get(),
                arguments.as_ptr(),
                arguments.len(),
                ptr::null_mut(),
            )
        }
    }
}
