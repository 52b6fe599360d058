//! Whether a loop runs its callbacks by stock asyncio's `_run_once`, or by ours: in others nobody parks.

use super::hooks;
use crate::names;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// The version of a class whose loops have that `_run_once`, unless one has another of its own; 0 before one
/// was seen. A version is given to one class only, and taken from it as soon as it or a base of it changes
/// (`PyType_Modified`): zero says that it has none.
static STOCK_VERSION: AtomicU32 = AtomicU32::new(0);

/// False if [`is_stock`] is; and true as well where the loop has a `_run_once` that its class does not have.
///
/// # Safety
///
/// Attached; a valid object.
#[inline]
pub(super) unsafe fn may_be_stock(event_loop: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe {
        let version = (*ffi::Py_TYPE(event_loop)).tp_version_tag;
        version != 0 && version == STOCK_VERSION.load(Ordering::Relaxed) || is_stock(event_loop)
    }
}

/// Whether the loop runs its callbacks by stock asyncio's `_run_once`, or by ours.
///
/// # Safety
///
/// Attached, no error set; a valid object.
pub(super) unsafe fn is_stock(event_loop: *mut PyObject) -> bool {
    // SAFETY: attached; what is found is a new reference, and looked into only if it is a method.
    unsafe {
        if event_loop == ffi::Py_None() {
            return false;
        }
        let mut found = ptr::null_mut();
        if names::method(event_loop, names::RUN_ONCE.get(), &mut found) {
            ffi::Py_DECREF(found);
            let is_stock = is_ours_or_stock(found);
            if is_stock {
                // It is the class's, and all of its instances find it as this one has.
                let version = (*ffi::Py_TYPE(event_loop)).tp_version_tag;
                STOCK_VERSION.store(version, Ordering::Relaxed);
            }
            return is_stock;
        }
        if found.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        // An attribute of the loop itself, as `enable` sets it.
        let function = names::attribute(found, names::FUNCTION.get());
        ffi::PyErr_Clear();
        ffi::Py_DECREF(found);
        ffi::Py_XDECREF(function);
        is_ours_or_stock(function)
    }
}

/// Whether the function (only compared) is one of the two `_run_once`.
fn is_ours_or_stock(function: *mut PyObject) -> bool {
    !function.is_null() && (function == hooks::STOCK.get() || function == hooks::HOSTED.get())
}
