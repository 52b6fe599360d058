//! Objects that are made once and kept for ever.

use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static RUN: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static SWITCH: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static THROW: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static EMPTY: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn init() -> bool {
    // SAFETY: attached; kept for ever.
    unsafe {
        RUN.store(ffi::PyUnicode_InternFromString(c"run".as_ptr()), Ordering::Relaxed);
        SWITCH.store(ffi::PyUnicode_InternFromString(c"switch".as_ptr()), Ordering::Relaxed);
        THROW.store(ffi::PyUnicode_InternFromString(c"throw".as_ptr()), Ordering::Relaxed);
        EMPTY.store(ffi::PyTuple_New(0), Ordering::Relaxed);
    }
    !(run().is_null() || switch().is_null() || throw().is_null() || empty_tuple().is_null())
}

/// "run", borrowed.
#[inline(always)]
pub(super) fn run() -> *mut PyObject {
    RUN.load(Ordering::Relaxed)
}

/// "switch", borrowed: also the name of the trace function's event.
pub(super) fn switch() -> *mut PyObject {
    SWITCH.load(Ordering::Relaxed)
}

/// "throw", borrowed.
pub(super) fn throw() -> *mut PyObject {
    THROW.load(Ordering::Relaxed)
}

/// `()`, borrowed.
pub(super) fn empty_tuple() -> *mut PyObject {
    EMPTY.load(Ordering::Relaxed)
}
