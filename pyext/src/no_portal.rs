//! What becomes of an `await_` that finds nothing to wait with: the Python layer decides.

use crate::{delegate, error, messages};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants called where `await_` finds no portal, and no loop to park in.
pub(crate) static NO_PORTAL: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The result of `await_(awaitable)` there, a new reference; null with an error set.
///
/// # Safety
///
/// Attached, no error set; `awaitable` is lent.
pub(crate) unsafe fn no_portal(awaitable: *mut PyObject) -> *mut PyObject {
    let hook = NO_PORTAL.load(Ordering::Relaxed);
    // SAFETY: the contract. The hook is owned by the static, and kept alive over its call.
    unsafe {
        if hook.is_null() {
            error::set_runtime(messages::NOT_LOADED);
            delegate::discard(awaitable);
            return ptr::null_mut();
        }
        let hook = ffi::Py_NewRef(hook);
        let result = ffi::PyObject_CallOneArg(hook, awaitable);
        ffi::Py_DECREF(hook);
        result
    }
}
