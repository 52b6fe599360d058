//! The task that runs this code: asyncio's, or Trio's.

use crate::{modules, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants asked for the current task where asyncio cannot be.
pub(crate) static CURRENT_TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// `asyncio.current_task`, once it was needed. Owned.
static ASYNCIO_CURRENT_TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The running task of asyncio or Trio, as a new reference; null where there is none. An error is
/// set if it says so.
///
/// Trio brings sniffio, which tells in which steps Trio is in charge: then the Python layer is
/// asked. asyncio is asked directly.
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn current_task() -> Result<*mut PyObject, ()> {
    // SAFETY: attached; references are owned where they are used.
    unsafe {
        let has_trio = !modules::find(names::TRIO.get()).is_null();
        let sniffio = if has_trio { modules::find(names::SNIFFIO.get()) } else { ptr::null_mut() };
        if !sniffio.is_null() && says_trio(sniffio) {
            let task = ask_for_task();
            return if task.is_null() {
                Err(())
            } else if task == ffi::Py_None() {
                ffi::Py_DECREF(task);
                Ok(ptr::null_mut())
            } else {
                Ok(task)
            };
        }
        let function = asyncio_current_task();
        if function.is_null() {
            return Err(());
        }
        let task = ffi::PyObject_CallNoArgs(function);
        if task.is_null() {
            // No running event loop.
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_RuntimeError) == 0 {
                return Err(());
            }
            ffi::PyErr_Clear();
        } else if task == ffi::Py_None() {
            ffi::Py_DECREF(task);
            return Ok(ptr::null_mut());
        }
        Ok(task)
    }
}

/// The Python layer's idea of the current task: a new reference, `None` if there is none, null with
/// an error set on failure.
#[cold]
unsafe fn ask_for_task() -> *mut PyObject {
    let hook = CURRENT_TASK.load(Ordering::Relaxed);
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(if hook.is_null() { ffi::Py_None() } else { hook });
        let task = if hook == ffi::Py_None() { hook } else { ffi::PyObject_CallNoArgs(hook) };
        if task != hook {
            ffi::Py_DECREF(hook);
        }
        task
    }
}

unsafe fn says_trio(sniffio: *mut PyObject) -> bool {
    // SAFETY: attached; a module that is kept alive by `sys.modules` while its attribute is read.
    unsafe {
        let local = names::attribute(sniffio, names::THREAD_LOCAL.get());
        let name = if local.is_null() {
            ptr::null_mut()
        } else {
            names::attribute(local, names::NAME.get())
        };
        ffi::Py_XDECREF(local);
        let is_trio = !name.is_null()
            && ffi::PyUnicode_Check(name) != 0
            && ffi::PyUnicode_Compare(name, names::TRIO.get()) == 0;
        ffi::Py_XDECREF(name);
        if !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_Clear();
        }
        is_trio
    }
}

/// `asyncio.current_task`, borrowed; null with an error set.
#[inline(always)]
unsafe fn asyncio_current_task() -> *mut PyObject {
    let function = ASYNCIO_CURRENT_TASK.load(Ordering::Relaxed);
    if !function.is_null() {
        return function;
    }
    // SAFETY: passed on.
    unsafe { import_current_task() }
}

#[cold]
unsafe fn import_current_task() -> *mut PyObject {
    // SAFETY: attached; the static keeps its reference for ever.
    unsafe {
        let asyncio = ffi::PyImport_ImportModule(c"asyncio".as_ptr());
        if asyncio.is_null() {
            return asyncio;
        }
        let function = ffi::PyObject_GetAttr(asyncio, names::CURRENT_TASK.get());
        ffi::Py_DECREF(asyncio);
        ASYNCIO_CURRENT_TASK.store(function, Ordering::Relaxed);
        function
    }
}
