//! The exception that a loop raises in a step, for as long as the step lasts.
//!
//! What throws an exception keeps it until the step is over: asyncio's task does, and Trio does in the
//! `outcome.Error` that it sends. Handled or not, the exception has a traceback by then, and with that
//! the frames that it went through, and with their `f_back` all functions below, and what those had in
//! their variables. All that would be finalized when the loop lets go of the exception, which is
//! outside the step and outside the task, where nothing can wait. Where the code of the step has
//! let go of the exception itself, its traceback is therefore taken off again while still on the fiber:
//! nobody is left to look at it.
//!
//! # Invariant
//!
//! A worker has an exception in `thrown` only while its step is running. It is taken out before
//! anything is dropped: that can run any code, which can wait, and be lent another one.

use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;

/// An exception that the resumer of a step holds.
pub(crate) struct Thrown {
    /// Owned.
    exception: *mut PyObject,
    /// As it was lent; owned, or null.
    traceback: *mut PyObject,
    /// References to the exception when it was lent, ours included.
    count: ffi::Py_ssize_t,
}

/// Where a worker keeps it.
pub(crate) type Place = Option<Box<Thrown>>;

/// Notes what a step is sent (borrowed): it may have an exception in it.
///
/// # Safety
///
/// Attached, on the worker; no error set.
#[inline(always)]
pub(crate) unsafe fn note_value(place: *mut Place, value: *mut PyObject) {
    // SAFETY: passed on.
    unsafe {
        if value != ffi::Py_None() {
            note_outcome(place, value);
        }
    }
}

/// Trio sends `outcome.Error`s, whose `error` the awaited code raises.
#[cold]
unsafe fn note_outcome(place: *mut Place, value: *mut PyObject) {
    // SAFETY: attached; a type's name is a C string that lives as long as the type.
    unsafe {
        if CStr::from_ptr((*ffi::Py_TYPE(value)).tp_name) != c"Error" {
            return;
        }
        let exception = names::attribute(value, names::ERROR.get());
        if exception.is_null() {
            return ffi::PyErr_Clear();
        }
        if ffi::PyExceptionInstance_Check(exception) != 0 {
            note_exception(place, exception, 1);
        }
        ffi::Py_DECREF(exception);
    }
}

/// Notes what is thrown into a step (borrowed). Of the references to it, `passing` will be gone when
/// the step is over.
///
/// # Safety
///
/// Attached, on the worker; an exception.
#[cold]
pub(crate) unsafe fn note_exception(
    place: *mut Place,
    exception: *mut PyObject,
    passing: ffi::Py_ssize_t,
) {
    // SAFETY: attached; the place is ours.
    unsafe {
        end(place);
        *place = Some(Box::new(Thrown {
            exception: ffi::Py_NewRef(exception),
            traceback: ffi::PyException_GetTraceback(exception),
            count: ffi::Py_REFCNT(exception) - passing,
        }));
    }
}

/// Takes the traceback off, if the step has let go of the exception by now.
///
/// # Safety
///
/// Attached, on the worker. An error that is set is kept.
#[inline(always)]
pub(crate) unsafe fn settle(place: *mut Place) {
    // SAFETY: passed on.
    unsafe {
        if (*place).as_ref().is_some_and(|thrown| ffi::Py_REFCNT(thrown.exception) == thrown.count)
        {
            end(place);
        }
    }
}

/// [`settle`], for the last time: the step is over, or waits.
///
/// # Safety
///
/// As [`settle`].
#[inline(always)]
pub(crate) unsafe fn end(place: *mut Place) {
    // SAFETY: passed on.
    unsafe {
        if (*place).is_some() {
            give_back(place);
        }
    }
}

#[cold]
unsafe fn give_back(place: *mut Place) {
    // SAFETY: attached; references of ours. What is dropped here can run any code, so an error that
    // is set is put aside, and the worker's field is empty.
    unsafe {
        let Some(thrown) = (*place).take() else { return };
        let Thrown { exception, traceback, count } = *thrown;
        // Equal: whoever the code of the step gave the exception to has dropped it. That somebody
        // else has, in place of one that keeps it, would cost that one the traceback.
        if ffi::Py_REFCNT(exception) == count {
            let pending = error::take();
            let before = if traceback.is_null() { ffi::Py_None() } else { traceback };
            if ffi::PyException_SetTraceback(exception, before) < 0 {
                ffi::PyErr_Clear();
            }
            if !pending.is_null() {
                error::restore(pending);
            }
        }
        ffi::Py_XDECREF(traceback);
        ffi::Py_DECREF(exception);
    }
}
