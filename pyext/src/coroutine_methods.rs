//! What the methods of every coroutine take and give back: `send`, `throw`.

use crate::error;
use pyo3::ffi::PySendResult::{self, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;

/// A status and a result, as `PyIter_Send` has them.
pub(crate) type Outcome = (PySendResult, *mut PyObject);

/// A return value becomes `StopIteration`, as generator methods have it
/// (`_PyGen_SetStopIterationValue`).
///
/// # Safety
///
/// Attached; an owned result.
pub(crate) unsafe fn as_method_result((status, result): Outcome) -> *mut PyObject {
    if status != PYGEN_RETURN {
        return result;
    }
    // SAFETY: attached; `result` is owned. The exception is made by a call, not by setting a class
    // and a value, which would take a tuple or an exception value apart.
    unsafe {
        let stop = if result == ffi::Py_None() {
            ffi::PyObject_CallNoArgs(ffi::PyExc_StopIteration)
        } else {
            ffi::PyObject_CallOneArg(ffi::PyExc_StopIteration, result)
        };
        ffi::Py_DECREF(result);
        if !stop.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop);
            ffi::Py_DECREF(stop);
        }
        ptr::null_mut()
    }
}

/// The exception that `throw(*arguments)` means, as a new reference; null with an error set.
///
/// # Safety
///
/// Attached; valid objects.
pub(crate) unsafe fn exception_of(arguments: &[*mut PyObject]) -> *mut PyObject {
    // SAFETY: attached; borrowed valid objects. Exception classes are called like any class.
    unsafe {
        if arguments.is_empty() || arguments.len() > 3 {
            error::set_type(&format!("throw expected 1 to 3 arguments, got {}", arguments.len()));
            return ptr::null_mut();
        }
        let none = ffi::Py_None();
        let class = arguments[0];
        let value = arguments.get(1).copied().unwrap_or(none);
        let trace = arguments.get(2).copied().unwrap_or(none);
        if trace != none && ffi::PyTraceBack_Check(trace) == 0 {
            error::set_type("throw() third argument must be a traceback object");
            return ptr::null_mut();
        }
        let exception = if ffi::PyExceptionInstance_Check(class) != 0 {
            if value != none {
                error::set_type("instance exception may not have a separate value");
                return ptr::null_mut();
            }
            ffi::Py_NewRef(class)
        } else if ffi::PyExceptionClass_Check(class) != 0 {
            if ffi::PyObject_IsInstance(value, class) == 1 {
                ffi::Py_NewRef(value)
            } else if value == none {
                ffi::PyObject_CallNoArgs(class)
            } else if ffi::PyTuple_Check(value) != 0 {
                ffi::PyObject_CallObject(class, value)
            } else {
                ffi::PyObject_CallOneArg(class, value)
            }
        } else {
            let name = CStr::from_ptr((*ffi::Py_TYPE(class)).tp_name).to_string_lossy();
            error::set_type(&format!(
                "exceptions must be classes or instances deriving from BaseException, not {name}"
            ));
            return ptr::null_mut();
        };
        if exception.is_null() {
            return exception;
        }
        if ffi::PyExceptionInstance_Check(exception) == 0 {
            ffi::Py_DECREF(exception);
            error::set_type("calling the exception class did not give an exception");
            return ptr::null_mut();
        }
        if trace != none {
            ffi::PyException_SetTraceback(exception, trace);
        }
        exception
    }
}
