//! Whether the calling code is on a portal, and which, for the Python layer.

use crate::usable_portal::worker_here;
use crate::worker::Worker;
use pyo3::ffi::{self, PyObject};

/// `_fiberback.current_portal()`.
pub(crate) unsafe extern "C" fn current_portal(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; the worker is running its portal's step, or the greenlets of that step run.
    unsafe {
        let worker = worker_here();
        let portal = if worker.is_null() || Worker::is_masked(worker) {
            ffi::Py_None()
        } else {
            (*worker).owner.cast::<PyObject>()
        };
        ffi::Py_NewRef(portal)
    }
}

/// `_fiberback.on_portal()`.
pub(crate) unsafe extern "C" fn on_portal(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; as in `current_portal`.
    unsafe {
        let worker = worker_here();
        let on_portal = !worker.is_null() && !Worker::is_masked(worker);
        ffi::PyBool_FromLong(on_portal.into())
    }
}
