//! C functions that a frame is in, known without anybody having noted the call; and references that are dropped.

use super::frames::Place;
use crate::{modules, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// A reference that is dropped with it; or null. Attached whenever there is one.
pub(super) struct Owned(pub(super) *mut PyObject);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: attached (all that have one); ours.
        unsafe { ffi::Py_XDECREF(self.0) }
    }
}

/// `await_`, as profilers see it; null if it is not to be had.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn await_function() -> Owned {
    // SAFETY: the contract; the module is borrowed, and kept by the interpreter.
    unsafe {
        let module = ffi::PyDict_GetItemString(modules::get(), c"fiberback._fiberback".as_ptr());
        if module.is_null() {
            return Owned(ptr::null_mut());
        }
        let function = ffi::PyObject_GetAttrString(module, c"await_".as_ptr());
        ffi::PyErr_Clear();
        Owned(function)
    }
}

/// What asyncio's `Handle._run` has called, if the frame is its: `Context.run`, of the handle's context.
///
/// # Safety
///
/// Attached, no error set; the frame is alive, executes code, and waits in a call.
pub(super) unsafe fn context_run_of(place: &Place) -> Option<Owned> {
    // SAFETY: the contract. A function of this name may be anybody's: then it has no such context, or a first
    // variable without a value.
    unsafe {
        let found = || {
            let code = place.code();
            let name = Owned(names::attribute(code, names::CO_QUALNAME.get()));
            if name.0.is_null()
                || ffi::PyUnicode_CompareWithASCIIString(name.0, c"Handle._run".as_ptr()) != 0
            {
                return None;
            }
            if place.local(0).is_null() {
                return None;
            }
            let context = Owned(names::attribute(place.local(0), names::CONTEXT_FIELD.get()));
            if context.0.is_null() {
                return None;
            }
            let run = ffi::PyObject_GetAttrString(context.0, c"run".as_ptr());
            (!run.is_null()).then_some(Owned(run))
        };
        let found = found();
        ffi::PyErr_Clear();
        found
    }
}
