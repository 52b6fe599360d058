//! `greenlet.error`, `greenlet.GreenletExit`, and what `throw` makes of its arguments.

use super::layout::Parcel;
use crate::error as native;
use crate::messages;
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

static ERROR: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static EXIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Makes the two classes. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn init() -> bool {
    // SAFETY: attached; kept for ever.
    unsafe {
        let none = ptr::null_mut();
        let error = ffi::PyErr_NewException(c"greenlet.error".as_ptr(), none, none);
        ERROR.store(error, Ordering::Relaxed);
        let base = ffi::PyExc_BaseException;
        let exit = ffi::PyErr_NewException(c"greenlet.GreenletExit".as_ptr(), base, none);
        EXIT.store(exit, Ordering::Relaxed);
        !error.is_null() && !exit.is_null()
    }
}

/// `greenlet.error`, borrowed.
pub(super) fn error() -> *mut PyObject {
    ERROR.load(Ordering::Relaxed)
}

/// `greenlet.GreenletExit`, borrowed.
pub(super) fn exit() -> *mut PyObject {
    EXIT.load(Ordering::Relaxed)
}

/// Sets a `greenlet.error`.
#[cold]
pub(super) fn set_error(message: &str) {
    native::set(error(), message);
}

/// Sets the error of a mistake of ours: nothing was handed over in a switch.
#[cold]
pub(super) fn set_nothing() {
    let text = messages::INTERNAL.replace("{text}", "a switch without a value");
    native::set_runtime(&text);
}

/// What a greenlet ends with that has raised `exception` (owned): GreenletExit is a value.
///
/// # Safety
///
/// Attached, no error set; an exception.
pub(super) unsafe fn exit_as_value(exception: *mut PyObject) -> Parcel {
    // SAFETY: the contract.
    unsafe {
        if ffi::PyErr_GivenExceptionMatches(exception, exit()) != 0 {
            Parcel::One(exception)
        } else {
            Parcel::Exception(exception)
        }
    }
}

/// The GreenletExit for a greenlet that nobody refers to any more, owned; null with an error set on failure.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn killing() -> *mut PyObject {
    const MESSAGE: &CStr = c"Killing the greenlet because all references to it have vanished.";
    // SAFETY: attached.
    unsafe { ffi::PyObject_CallFunction(exit(), c"s".as_ptr(), MESSAGE.as_ptr()) }
}

/// The exception that `throw(class_or_exception, value, traceback)` raises (all borrowed, or null), owned; null
/// with an error set if that is none.
///
/// # Safety
///
/// Attached, no error set; valid objects.
pub(super) unsafe fn exception_of(
    class: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; references are owned where they are stored.
    unsafe {
        let none = ffi::Py_None();
        let traceback = if traceback == none { ptr::null_mut() } else { traceback };
        if !traceback.is_null() && ffi::PyTraceBack_Check(traceback) == 0 {
            native::set_type("throw() third argument must be a traceback object");
            return ptr::null_mut();
        }
        let mut exception;
        if ffi::PyExceptionClass_Check(class) != 0 {
            let (mut of, mut trace) = (ffi::Py_NewRef(class), ptr::null_mut());
            exception = ffi::Py_XNewRef(value);
            // As a `raise` does, but for the context, which is none of the switching code's.
            #[allow(deprecated)]
            ffi::PyErr_NormalizeException(&raw mut of, &raw mut exception, &raw mut trace);
            ffi::Py_XDECREF(of);
            ffi::Py_XDECREF(trace);
        } else if ffi::PyExceptionInstance_Check(class) != 0 {
            if !value.is_null() && value != none {
                native::set_type("instance exception may not have a separate value");
                return ptr::null_mut();
            }
            exception = ffi::Py_NewRef(class);
        } else {
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"exceptions must be classes, or instances, not %s".as_ptr(),
                (*ffi::Py_TYPE(class)).tp_name,
            );
            return ptr::null_mut();
        }
        let traceback = if traceback.is_null() { none } else { traceback };
        if ffi::PyException_SetTraceback(exception, traceback) < 0 {
            ffi::PyErr_Clear();
        }
        exception
    }
}
