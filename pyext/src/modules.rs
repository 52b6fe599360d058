//! `sys.modules`: what has been imported.

use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The interpreter's dict, kept for ever: it is what `import` looks into, whatever `sys.modules` is set to.
static MODULES: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The dict, borrowed.
#[inline]
pub(crate) fn get() -> *mut PyObject {
    MODULES.load(Ordering::Relaxed)
}

/// How many modules there are. An import makes them more.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn length() -> isize {
    // SAFETY: a dict that is kept alive for ever, and only changed with the GIL held.
    unsafe { (*get().cast::<ffi::PyDictObject>()).ma_used }
}

/// The module of that name (a `str`), borrowed; null without an error if there is none.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn find(name: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; the look-up neither fails nor runs code for a `str` key in a plain dict.
    unsafe { ffi::PyDict_GetItemWithError(get(), name) }
}

/// To be called once, at import. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn init() -> bool {
    // SAFETY: attached; the reference is kept for ever.
    unsafe {
        let modules = ffi::Py_XNewRef(ffi::PyImport_GetModuleDict());
        MODULES.store(modules, Ordering::Relaxed);
        if modules.is_null() {
            let words = c"fiberback: this interpreter has no sys.modules";
            ffi::PyErr_SetString(ffi::PyExc_ImportError, words.as_ptr());
        }
        !modules.is_null()
    }
}
