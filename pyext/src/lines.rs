//! The code and lines of a stack, read at one moment: a list of pairs, from the innermost.

use crate::no_collections::NoCollections;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// A list in the making. As long as it is, no collection begins (see `other_threads`), nothing of a user's is
/// freed and no Python code runs, so that no frame that is looked at ends.
pub(crate) struct Lines {
    /// Owned; null, with an error set, once something has failed.
    list: *mut PyObject,
    most: ffi::Py_ssize_t,
    _no_collections: NoCollections,
}

impl Lines {
    /// # Safety
    ///
    /// Attached, as long as it lives, with no error set.
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: passed on.
        unsafe { Self::at_most(-1) }
    }

    /// Of so many frames; all of them if it is negative.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new).
    pub(crate) unsafe fn at_most(most: ffi::Py_ssize_t) -> Self {
        // SAFETY: attached.
        unsafe {
            let no_collections = NoCollections::new();
            Self { list: ffi::PyList_New(0), most, _no_collections: no_collections }
        }
    }

    /// Adds a frame (owned; null if there is none, or an error is set), its caller, and so on.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new) but for the error; a frame object or null.
    pub(crate) unsafe fn add(&mut self, mut frame: *mut PyObject) {
        // SAFETY: attached; each new reference is handed on or dropped. A frame object that is dropped is
        // still its interpreter frame's, or was made here.
        unsafe {
            while !frame.is_null()
                && !self.list.is_null()
                && ffi::PyList_GET_SIZE(self.list) != self.most
            {
                let code = ffi::PyFrame_GetCode(frame.cast());
                let line = ffi::PyFrame_GetLineNumber(frame.cast());
                let line = ffi::PyLong_FromLong(line.into());
                let pair = if line.is_null() { line } else { ffi::PyTuple_Pack(2, code, line) };
                ffi::Py_DECREF(code.cast());
                ffi::Py_XDECREF(line);
                if pair.is_null() || ffi::PyList_Append(self.list, pair) < 0 {
                    ffi::Py_CLEAR(&raw mut self.list);
                }
                ffi::Py_XDECREF(pair);
                let inner = frame;
                frame = ffi::PyFrame_GetBack(inner.cast()).cast();
                ffi::Py_DECREF(inner);
            }
            ffi::Py_XDECREF(frame);
            if !ffi::PyErr_Occurred().is_null() {
                ffi::Py_CLEAR(&raw mut self.list);
            }
        }
    }

    /// The list; null with an error set.
    pub(crate) fn into_list(mut self) -> *mut PyObject {
        std::mem::replace(&mut self.list, ptr::null_mut())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: attached (contract of `new`); owned, or null.
        unsafe { ffi::Py_XDECREF(self.list) }
    }
}
