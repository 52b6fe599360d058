//! Told of every event loop that begins to run, whatever its class.
//!
//! All of them pass one place: for `asyncio.get_running_loop()` to find it, a loop calls
//! `asyncio._set_running_loop(self)` whenever it starts. But many hold on to that function from
//! their import on (uvloop's `aio_set_running_loop`), so replacing the module's attribute does not
//! reach them; and what is put there would be kept by those that are imported meanwhile. The
//! function object stays as it is, then: what is exchanged is the C function in its definition,
//! which every call goes through (CPython's `PyCFunction_GET_FUNCTION`, Objects/methodobject.c and
//! the specialised calls in Python/bytecodes.c; Cython's `__Pyx_PyObject_CallMethO`).
//!
//! # Invariant
//!
//! The definition (`PyMethodDef`, a static of CPython's `_asyncio` that is never freed) holds either
//! its own function, or ours while [`ORIGINAL`] is that one. It is exchanged with the GIL held.

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What CPython's definition had, while ours is in it.
static ORIGINAL: AtomicPtr<std::ffi::c_void> = AtomicPtr::new(ptr::null_mut());
/// What is called with the loop. Owned.
static HOOK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The definition of `_asyncio._set_running_loop`, which takes one argument; null with an error set.
unsafe fn definition() -> *mut ffi::PyMethodDef {
    // SAFETY: attached. The type is checked before the object is read as one.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"_asyncio".as_ptr());
        if module.is_null() {
            return ptr::null_mut();
        }
        let function = ffi::PyObject_GetAttrString(module, c"_set_running_loop".as_ptr());
        ffi::Py_DECREF(module);
        if function.is_null() {
            return ptr::null_mut();
        }
        let mut found = ptr::null_mut();
        if ffi::PyCFunction_CheckExact(function) != 0 {
            let definition = (*function.cast::<ffi::PyCFunctionObject>()).m_ml;
            if (*definition).ml_flags == ffi::METH_O {
                found = definition;
            }
        }
        // The definition is a static of the module, not the function's.
        ffi::Py_DECREF(function);
        if found.is_null() {
            error::set_runtime(error::LOOPS_UNSEEN);
        }
        found
    }
}

/// `_asyncio._set_running_loop(loop)`, and then the hook.
unsafe extern "C" fn set_running_loop(
    module: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached, lent. We are called only while, or after, the original has been noted.
        unsafe {
            let original = std::mem::transmute::<*mut std::ffi::c_void, ffi::PyCFunction>(
                ORIGINAL.load(Ordering::Relaxed),
            );
            let result = original(module, event_loop);
            if result.is_null() || event_loop == ffi::Py_None() {
                return result;
            }
            // The definition is the whole process's, the hook is one interpreter's.
            if ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() {
                return result;
            }
            let hook = HOOK.load(Ordering::Relaxed);
            if hook.is_null() {
                return result;
            }
            ffi::Py_INCREF(hook);
            let done = ffi::PyObject_CallOneArg(hook, event_loop);
            if done.is_null() {
                // The loop is to run, whatever is wrong with us.
                ffi::PyErr_WriteUnraisable(hook);
            }
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(hook);
            result
        }
    })
}

/// `_fiberback.watch_loops(hook)`: None ends it.
pub(crate) unsafe extern "C" fn watch_loops(
    _: *mut PyObject,
    hook: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached, lent; the module's invariant.
        unsafe {
            let definition = definition();
            if definition.is_null() {
                return ptr::null_mut();
            }
            let ours: ffi::PyCFunction = set_running_loop;
            let current = (*definition).ml_meth.PyCFunction;
            let is_ours = ptr::fn_addr_eq(current, ours);
            if hook == ffi::Py_None() {
                if is_ours {
                    let original = std::mem::transmute::<*mut std::ffi::c_void, ffi::PyCFunction>(
                        ORIGINAL.load(Ordering::Relaxed),
                    );
                    (*definition).ml_meth = ffi::PyMethodDefPointer { PyCFunction: original };
                }
            } else if !is_ours {
                ORIGINAL.store(current as *mut std::ffi::c_void, Ordering::Relaxed);
                (*definition).ml_meth = ffi::PyMethodDefPointer { PyCFunction: ours };
            }
            let kept = if hook == ffi::Py_None() { ptr::null_mut() } else { ffi::Py_NewRef(hook) };
            let before = HOOK.swap(kept, Ordering::Relaxed);
            ffi::Py_XDECREF(before);
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
