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
//! The definition (`PyMethodDef`, a static of CPython's `_asyncio` that is never freed) is [`DEFINITION`]
//! from when we put our function there until we have put [`ORIGINAL`] back, which does not change in
//! between: whoever exchanges the function after us calls ours, and may go on to do so, and what ours
//! calls never leads to itself. Written with the main interpreter's GIL held; read under any.

use crate::barrier::barrier;
use crate::{error, messages};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, fence};

/// Where ours was put, and not taken away again.
static DEFINITION: AtomicPtr<ffi::PyMethodDef> = AtomicPtr::new(ptr::null_mut());
/// What was there before ours.
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
            error::set_runtime(messages::LOOPS_UNSEEN);
        }
        found
    }
}

/// The function that ours stands for.
///
/// # Safety
///
/// Ours must have been put somewhere.
unsafe fn original() -> ffi::PyCFunction {
    // SAFETY: the contract: it was stored before, and is of this type.
    unsafe { std::mem::transmute(ORIGINAL.load(Ordering::Relaxed)) }
}

/// Puts our function into the definition. False with an error set.
unsafe fn install() -> bool {
    let ours: ffi::PyCFunction = set_running_loop;
    // SAFETY: attached; the module's invariant.
    unsafe {
        let noted = DEFINITION.load(Ordering::Relaxed);
        if !noted.is_null() {
            // Something else there was put on top of ours, unless it is what was there before.
            if ptr::fn_addr_eq((*noted).ml_meth.PyCFunction, original()) {
                (*noted).ml_meth = ffi::PyMethodDefPointer { PyCFunction: ours };
            }
            return true;
        }
        let found = definition();
        if found.is_null() {
            return false;
        }
        ORIGINAL.store((*found).ml_meth.PyCFunction as *mut std::ffi::c_void, Ordering::Relaxed);
        DEFINITION.store(found, Ordering::Relaxed);
        fence(Ordering::Release);
        (*found).ml_meth = ffi::PyMethodDefPointer { PyCFunction: ours };
        true
    }
}

/// Takes our function out of the definition, unless somebody has put another on top of it.
unsafe fn remove() {
    let ours: ffi::PyCFunction = set_running_loop;
    let noted = DEFINITION.load(Ordering::Relaxed);
    // SAFETY: the module's invariant.
    unsafe {
        if !noted.is_null() && ptr::fn_addr_eq((*noted).ml_meth.PyCFunction, ours) {
            (*noted).ml_meth = ffi::PyMethodDefPointer { PyCFunction: original() };
            DEFINITION.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}

/// After the interpreter's end: a program that embeds Python may begin another one, which loads
/// `_asyncio` with the same definition, and the hook is of the one that has ended.
///
/// # Safety
///
/// No interpreter may run any more.
pub(crate) unsafe fn forget() {
    // SAFETY: the contract: nobody reads the definition now. The hook stays allocated: there is nobody
    // who could finalize it.
    unsafe { remove() }
    HOOK.store(ptr::null_mut(), Ordering::Relaxed);
}

/// `_asyncio._set_running_loop(loop)`, and then the hook.
unsafe extern "C" fn set_running_loop(
    module: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, lent. We are called only while, or after, the original has been noted.
        unsafe {
            // Another interpreter with a GIL of its own has not synchronised with who put us here.
            fence(Ordering::Acquire);
            let result = original()(module, event_loop);
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
                // The loop is to run, whatever is wrong with us: to its callers that function does not
                // fail, and they would not undo it. Ctrl-C comes once more when it runs.
                if ffi::PyErr_ExceptionMatches(ffi::PyExc_KeyboardInterrupt) != 0 {
                    ffi::PyErr_Clear();
                    interrupt_soon(event_loop);
                } else {
                    ffi::PyErr_WriteUnraisable(hook);
                }
            }
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(hook);
            result
        }
    })
}

/// Has Ctrl-C come in a callback of the loop. (At once it could come where `run_forever` has noted the loop as
/// running and not yet begun the `try` that undoes it: CPython 3.15 looks for signals there.)
///
/// # Safety
///
/// Attached, no error set; a valid object.
unsafe fn interrupt_soon(event_loop: *mut PyObject) {
    // SAFETY: attached; new references are dropped, and `PyObject_CallMethod`'s format says what follows.
    unsafe {
        let signal = ffi::PyImport_ImportModule(c"signal".as_ptr());
        let mut done = ptr::null_mut();
        if !signal.is_null() {
            let raise = ffi::PyObject_GetAttrString(signal, c"raise_signal".as_ptr());
            let number = ffi::PyObject_GetAttrString(signal, c"SIGINT".as_ptr());
            if !raise.is_null() && !number.is_null() {
                let format = c"OO".as_ptr();
                done = ffi::PyObject_CallMethod(
                    event_loop,
                    c"call_soon".as_ptr(),
                    format,
                    raise,
                    number,
                );
            }
            ffi::Py_XDECREF(raise);
            ffi::Py_XDECREF(number);
            ffi::Py_DECREF(signal);
        }
        if done.is_null() {
            ffi::PyErr_WriteUnraisable(event_loop);
            ffi::PyErr_SetInterrupt();
        }
        ffi::Py_XDECREF(done);
    }
}

/// `_fiberback.watch_loops(hook)`: None ends it.
pub(crate) unsafe extern "C" fn watch_loops(
    _: *mut PyObject,
    hook: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, lent; the module's invariant.
        unsafe {
            if hook == ffi::Py_None() {
                remove();
            } else if !install() {
                return ptr::null_mut();
            }
            let kept = if hook == ffi::Py_None() { ptr::null_mut() } else { ffi::Py_NewRef(hook) };
            let before = HOOK.swap(kept, Ordering::Relaxed);
            ffi::Py_XDECREF(before);
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
