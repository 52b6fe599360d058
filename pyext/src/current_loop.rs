//! The event loop that asyncio says runs in this thread.

use crate::hook::Hook;
use pyo3::ffi::{self, PyObject};

/// `asyncio._get_running_loop`.
pub(crate) static RUNNING_LOOP: Hook = Hook::new();

/// Whether `event_loop` is the one that asyncio says runs in this thread.
///
/// # Safety
///
/// Attached, no error set.
#[inline]
pub(crate) unsafe fn is_running(event_loop: *mut PyObject) -> bool {
    // SAFETY: the contract; the objects are only compared.
    unsafe {
        if RUNNING_LOOP.get().is_null() {
            return false;
        }
        let running = RUNNING_LOOP.call(&[]);
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(running);
        running == event_loop
    }
}
