//! asyncio's futures: what is one, and which of them a task may be behind.
//!
//! The Python layer says which classes and functions those are (`set_hooks`), as it imports asyncio.

use crate::names;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// asyncio's `Future`, whose subclasses are tasks and what `gather` makes; the same in pure Python.
pub(crate) static FUTURE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
pub(crate) static PURE_FUTURE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// The code objects of asyncio's `wait` and `wait_for`.
pub(crate) static WAITERS: [AtomicPtr<PyObject>; 2] =
    [AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut())];

/// Whether the object is one of asyncio's futures: a task, for one.
///
/// # Safety
///
/// A valid object.
#[inline]
pub(crate) unsafe fn is_asyncio_future(object: *mut PyObject) -> bool {
    let future: *mut ffi::PyTypeObject = FUTURE.load(Ordering::Relaxed).cast();
    // SAFETY: the contract; two types.
    unsafe {
        let class = ffi::Py_TYPE(object);
        class == future || !future.is_null() && ffi::PyType_IsSubtype(class, future) != 0
    }
}

/// Whether the object that an awaitable has yielded is a future that a task may be behind.
///
/// Tasks and what `gather` makes are subclasses of `Future`. `shield`, and an executor's `wrap_future`, make
/// plain ones with a callback that is a function of asyncio's; other libraries' have methods (asyncpg), and
/// `loop.sock_recv()` and the like `partial`s. `wait` and `wait_for` (of 3.11) make plain ones without: those
/// are known by their code.
#[inline]
pub(crate) unsafe fn is_for_task(yielded: *mut PyObject, iterator: *mut PyObject) -> bool {
    // SAFETY: attached; all valid and borrowed.
    unsafe {
        if yielded == ffi::Py_None() {
            return false;
        }
        let class = ffi::Py_TYPE(yielded);
        let future: *mut ffi::PyTypeObject = FUTURE.load(Ordering::Relaxed).cast();
        if class == future {
            return is_plain_for_task(yielded, iterator);
        }
        let pure: *mut ffi::PyTypeObject = PURE_FUTURE.load(Ordering::Relaxed).cast();
        !future.is_null() && ffi::PyType_IsSubtype(class, future) != 0
            || !pure.is_null() && ffi::PyType_IsSubtype(class, pure) != 0
    }
}

/// Whether one of a future's callbacks is a function that is written in Python.
///
/// # Safety
///
/// Attached, no error set; a valid object.
unsafe fn has_function(callbacks: *mut PyObject) -> bool {
    // SAFETY: the contract. The list, which asyncio has just made, has its items while nothing else runs.
    unsafe {
        if ffi::Py_TYPE(callbacks) != &raw mut ffi::PyList_Type {
            return false;
        }
        (0..ffi::PyList_GET_SIZE(callbacks)).any(|at| {
            let entry = ffi::PyList_GET_ITEM(callbacks, at);
            ffi::PyTuple_Check(entry) != 0
                && ffi::PyTuple_GET_SIZE(entry) > 0
                && ffi::Py_TYPE(ffi::PyTuple_GET_ITEM(entry, 0)) == &raw mut ffi::PyFunction_Type
        })
    }
}

const FEW_REFERENCES: ffi::Py_ssize_t = 32;

#[inline(never)]
unsafe fn is_plain_for_task(future: *mut PyObject, iterator: *mut PyObject) -> bool {
    // SAFETY: as in `is_for_task`; references are dropped, errors mean "no".
    unsafe {
        // `_callbacks` is a copy, so many waiting for one future would take quadratic time. Each of
        // them holds references to it; what `shield` and `wait` make has one waiter, and few.
        if ffi::Py_REFCNT(future) > FEW_REFERENCES {
            return false;
        }
        let callbacks = ffi::PyObject_GetAttr(future, names::CALLBACKS.get());
        if callbacks.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let (some, function) = (callbacks != ffi::Py_None(), has_function(callbacks));
        ffi::Py_DECREF(callbacks);
        if some || ffi::Py_TYPE(iterator) != &raw mut ffi::PyCoro_Type {
            return function;
        }
        let code = ffi::PyObject_GetAttr(iterator, names::CR_CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let found = WAITERS.iter().any(|waiter| waiter.load(Ordering::Relaxed) == code);
        ffi::Py_DECREF(code);
        found
    }
}
