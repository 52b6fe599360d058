//! What `yield from` does to what it delegates to: it sends and throws into it, and closes it
//! (`gen_send_ex`, `_gen_throw`, `gen_close_iter` in Objects/genobject.c).

use crate::coroutine_methods::Outcome;
use crate::{error, names};
use pyo3::ffi::PySendResult::{self, PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `PyIter_Send`, with one call less for what has `am_send`, as coroutines have.
///
/// # Safety
///
/// Attached; the objects valid, and borrowed.
#[inline(always)]
pub(crate) unsafe fn send_into(
    iterator: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    // SAFETY: the contract; a type lives as long as its instances, and so do its tables.
    unsafe {
        let methods = (*ffi::Py_TYPE(iterator)).tp_as_async;
        if !methods.is_null() {
            if let Some(send) = (*methods).am_send {
                return send(iterator, value, result);
            }
        }
        ffi::PyIter_Send(iterator, value, result)
    }
}

/// `iterator.throw(exception)`, with the outcome of `PyIter_Send`.
///
/// # Safety
///
/// Attached; both valid, and borrowed.
pub(crate) unsafe fn throw_into(iterator: *mut PyObject, exception: *mut PyObject) -> Outcome {
    // SAFETY: the contract; `throw` is interned for ever by `names::init`.
    unsafe {
        let result = names::call_one(iterator, names::THROW.get(), exception);
        outcome_of_call(result)
    }
}

/// Translates what a method like `throw()` returned: a value means that it yielded,
/// `StopIteration` that it returned.
///
/// # Safety
///
/// Attached; an error is set if `result` is null.
unsafe fn outcome_of_call(result: *mut PyObject) -> Outcome {
    if !result.is_null() {
        return (PYGEN_NEXT, result);
    }
    // SAFETY: attached, and an error is set. `StopIteration.value` of an instance is read as an
    // attribute, which cannot fail for the built-in and its subclasses unless they want it to.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let stop = error::take();
        let value = ffi::PyObject_GetAttr(stop, names::VALUE.get());
        ffi::Py_DECREF(stop);
        if value.is_null() {
            return (PYGEN_ERROR, ptr::null_mut());
        }
        (PYGEN_RETURN, value)
    }
}

/// Passes an exception (owned) on to the iterator as `_gen_throw` does to what a generator
/// delegates to.
///
/// # Safety
///
/// Attached; both must be valid objects.
pub(crate) unsafe fn throw(iterator: *mut PyObject, exception: *mut PyObject) -> Outcome {
    // SAFETY: attached, references owned as documented.
    unsafe {
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_GeneratorExit) != 0 {
            // GeneratorExit closes the inner iterator, then is raised here.
            if close(iterator) {
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let throw = names::attribute(iterator, names::THROW.get());
        if throw.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                // A plain iterator: the exception is raised at the `yield from`.
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let result = ffi::PyObject_CallOneArg(throw, exception);
        ffi::Py_DECREF(throw);
        ffi::Py_DECREF(exception);
        outcome_of_call(result)
    }
}

/// `gen_close_iter`: calls `close()` if there is one. False with the error set if it raised.
///
/// # Safety
///
/// Attached; a valid object.
pub(crate) unsafe fn close(iterator: *mut PyObject) -> bool {
    // SAFETY: attached.
    unsafe {
        let close = names::attribute(iterator, names::CLOSE.get());
        if close.is_null() {
            return ffi::PyErr_Occurred().is_null();
        }
        let result = ffi::PyObject_CallNoArgs(close);
        ffi::Py_DECREF(close);
        ffi::Py_XDECREF(result);
        !result.is_null()
    }
}

/// Ends an iterator that has yielded where nobody can wait for it, then raises RuntimeError.
///
/// # Safety
///
/// Attached; `iterator` must be a valid object.
#[cold]
pub(crate) unsafe fn refuse(iterator: *mut PyObject, message: &str) {
    // SAFETY: attached; what is taken is owned, and handed over.
    unsafe {
        let before = error::take(); // may be what it is refused for
        if !close(iterator) {
            ffi::PyErr_WriteUnraisable(iterator);
        }
        error::set_runtime(message);
        if !before.is_null() {
            let refusal = error::take();
            ffi::PyException_SetContext(refusal, before);
            error::restore(refusal);
        }
    }
}

/// Closes a coroutine that will not be awaited, so that nothing warns that it never was.
pub(crate) unsafe fn discard(awaitable: *mut PyObject) {
    // SAFETY: attached; an error that is set is kept over the call of Python code.
    unsafe {
        if ffi::Py_TYPE(awaitable) != &raw mut ffi::PyCoro_Type {
            return;
        }
        let pending = error::take();
        if !close(awaitable) {
            ffi::PyErr_WriteUnraisable(awaitable);
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}
