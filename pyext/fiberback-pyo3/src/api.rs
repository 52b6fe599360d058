//! The capsule of the fiberback that is installed: `fiberback/include/fiberback.h`, in Rust.

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ptr::NonNull;

const VERSION: u32 = 1;

/// The functions may unwind: see [`crate::thread_exit`].
#[repr(C)]
pub(crate) struct Api {
    version: u32,
    size: u32,
    pub(crate) await_: unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject,
    pub(crate) event: unsafe extern "C-unwind" fn() -> *mut PyObject,
}

/// The API, imported when it is first asked for.
///
/// # Errors
///
/// ImportError if the package fiberback is not installed, or has another version of the API.
pub(crate) fn get(py: Python<'_>) -> PyResult<&'static Api> {
    static IMPORTED: PyOnceLock<&'static Api> = PyOnceLock::new();
    IMPORTED.get_or_try_init(py, || import(py)).copied()
}

#[cold]
fn import(py: Python<'_>) -> PyResult<&'static Api> {
    // SAFETY: attached. The name is a C string.
    let found = unsafe { ffi::PyCapsule_Import(c"fiberback._C_API".as_ptr(), 0) };
    let Some(api) = NonNull::new(found.cast::<Api>()) else {
        let cause = PyErr::fetch(py);
        let error = PyImportError::new_err(
            "this extension waits by way of the Python package fiberback, which cannot be imported: type \
             'pip install fiberback' [fiberback:extension-alone]",
        );
        error.set_cause(py, Some(cause));
        return Err(error);
    };
    // SAFETY: the capsule of that name points to a static of this layout, if its first two fields,
    // which every version has, say so (`fiberback.h`). Native modules are never unloaded.
    let api = unsafe { &*api.as_ptr() };
    if api.version != VERSION || (api.size as usize) < size_of::<Api>() {
        return Err(PyImportError::new_err(format!(
            "this extension was built for version {VERSION} of fiberback's C API, and the installed \
             fiberback has version {}: build it again with the fiberback-pyo3 or the fiberback.h of that \
             release [fiberback:extension-version]",
            api.version
        )));
    }
    Ok(api)
}
