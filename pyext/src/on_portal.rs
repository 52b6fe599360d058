//! Whether the calling code is on a portal, and which, for the Python layer.

use crate::usable_portal::unmasked_worker_here;
use pyo3::ffi::{self, PyObject};

/// `_fiberback.current_portal()`.
pub(crate) unsafe extern "C" fn current_portal(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; the worker is running its portal's step, or the greenlets of that step run.
    unsafe {
        let worker = unmasked_worker_here();
        let portal =
            if worker.is_null() { ffi::Py_None() } else { (*worker).owner.cast::<PyObject>() };
        ffi::Py_NewRef(portal)
    }
}

/// `_fiberback.on_portal()`.
pub(crate) unsafe extern "C" fn on_portal(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; as in `current_portal`.
    unsafe { ffi::PyBool_FromLong((!unmasked_worker_here().is_null()).into()) }
}
