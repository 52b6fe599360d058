//! What somebody who has waited on behalf of a greenlet has for it.

use crate::coroutine_methods::Outcome;
use crate::{delegate, error};
use pyo3::ffi::PySendResult::PYGEN_ERROR;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// What the awaitable that is stepped there gets; owned.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Send(*mut PyObject),
    Throw(*mut PyObject),
    /// It could not be waited for: the awaitable is to be closed, and this raised.
    Refuse(*mut PyObject),
}

impl Answer {
    /// For an answer that nobody wants.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn drop(self) {
        let (Self::Send(object) | Self::Throw(object) | Self::Refuse(object)) = self;
        // SAFETY: owned.
        unsafe { ffi::Py_DECREF(object) }
    }

    /// Gives it to the iterator that it is for.
    ///
    /// # Safety
    ///
    /// Attached, no error set; a valid object.
    pub(crate) unsafe fn give_to(self, iterator: *mut PyObject) -> Outcome {
        // SAFETY: attached; owned.
        unsafe {
            match self {
                Self::Send(value) => {
                    let mut result = ptr::null_mut();
                    let status = ffi::PyIter_Send(iterator, value, &raw mut result);
                    ffi::Py_DECREF(value);
                    (status, result)
                }
                Self::Throw(exception) => delegate::throw(iterator, exception),
                Self::Refuse(exception) => {
                    if !delegate::close(iterator) {
                        ffi::PyErr_WriteUnraisable(iterator);
                    }
                    error::restore(exception);
                    (PYGEN_ERROR, ptr::null_mut())
                }
            }
        }
    }
}
