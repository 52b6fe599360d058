//! The event loop that asyncio says runs in this thread.

use crate::hook::Hook;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `asyncio._get_running_loop`.
pub(crate) static RUNNING_LOOP: Hook = Hook::new();

/// The loop that runs in this thread, as a new reference; `None`'s if there is none. Null with an error set on
/// failure.
///
/// # Safety
///
/// Attached, no error set, once [`RUNNING_LOOP`] is set.
#[inline]
pub(crate) unsafe fn running_loop() -> *mut PyObject {
    let function = RUNNING_LOOP.get();
    // SAFETY: the contract; a function of C that takes no arguments is called as its flags say, which the
    // interpreter would do after having looked at its arguments.
    unsafe {
        if ffi::PyCFunction_CheckExact(function) != 0 {
            let function = function.cast::<ffi::PyCFunctionObject>();
            let method = (*function).m_ml;
            if (*method).ml_flags == ffi::METH_NOARGS {
                return ((*method).ml_meth.PyCFunction)((*function).m_self, ptr::null_mut());
            }
        }
        RUNNING_LOOP.call(&[])
    }
}

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
        let running = running_loop();
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(running);
        running == event_loop
    }
}
