//! `with_portal_run…`: portals that are made for one call, and note that they serve the current task.

use crate::portal::{self, PortalObject};
use crate::{arguments, await_, call, delegate, error, names, task_scopes};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `asyncio.current_task`, once it was needed. Owned.
static ASYNCIO_CURRENT_TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// `_fiberback.scoped_portal(task)`.
pub(crate) unsafe extern "C" fn scoped_portal(
    _: *mut PyObject,
    task: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let portal = task_scopes::portal_for(task);
            if portal.is_null() && ffi::PyErr_Occurred().is_null() {
                return ffi::Py_NewRef(ffi::Py_None());
            }
            portal
        }
    })
}

/// `_fiberback.scope(portal, task)`.
pub(crate) unsafe extern "C" fn scope(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: so many lent objects.
        unsafe {
            let usage = "scope() takes a portal and a task";
            let suit = |&[object, _]: &[_; 2]| portal::is_portal(object);
            let Some([object, task]) = arguments::exactly(arguments, count, usage, suit) else {
                return ptr::null_mut();
            };
            if task != ffi::Py_None() && !enter(object, task) {
                return ptr::null_mut();
            }
            ffi::Py_NewRef(object)
        }
    })
}

/// `_fiberback.scoped(awaitable, coroutine_of)`.
pub(crate) unsafe extern "C" fn scoped(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: so many lent objects.
        unsafe {
            let usage = "scoped() takes an awaitable and a function";
            let Some([awaitable, coroutine_of]) =
                arguments::exactly(arguments, count, usage, |_| true)
            else {
                return ptr::null_mut();
            };
            let result = portal_around(awaitable, coroutine_of);
            if result.is_null() {
                delegate::discard(awaitable);
            }
            result
        }
    })
}

/// `_fiberback.scoped_call(function, args, kwargs)`.
pub(crate) unsafe extern "C" fn scoped_call(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: so many lent objects, whose types are checked.
        unsafe {
            let usage = "scoped_call() takes a function, a tuple and a dict";
            let suit = |&[_, positional, named]: &[_; 3]| {
                ffi::PyTuple_Check(positional) != 0 && ffi::PyDict_Check(named) != 0
            };
            let Some([function, positional, named]) =
                arguments::exactly(arguments, count, usage, suit)
            else {
                return ptr::null_mut();
            };
            let call = call::new(function, positional, named);
            if call.is_null() {
                return call;
            }
            let portal = portal::new(call);
            ffi::Py_DECREF(call);
            if portal.is_null() { portal } else { for_current_task(portal) }
        }
    })
}

unsafe fn portal_around(awaitable: *mut PyObject, coroutine_of: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; borrowed, valid objects. The coroutine made here is closed if it comes to
    // nothing.
    unsafe {
        let on_portal = await_::is_on_usable_portal();
        if on_portal {
            return ffi::Py_NewRef(awaitable);
        }
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let coroutine = if ffi::Py_TYPE(awaitable) == &raw mut ffi::PyCoro_Type {
            ffi::Py_NewRef(awaitable)
        } else {
            ffi::PyObject_CallOneArg(coroutine_of, awaitable)
        };
        if coroutine.is_null() {
            return coroutine;
        }
        let portal = portal::new(coroutine);
        if portal.is_null() {
            delegate::discard(coroutine);
        }
        ffi::Py_DECREF(coroutine);
        if portal.is_null() { portal } else { for_current_task(portal) }
    }
}

/// Notes that `portal` serves `task` from now on. False with an error set.
unsafe fn enter(portal: *mut PyObject, task: *mut PyObject) -> bool {
    // SAFETY: attached; a portal, whose record leaves when it ends.
    unsafe {
        let record = &raw mut (*portal.cast::<PortalObject>()).scope;
        task_scopes::enter(record, portal, task)
    }
}

/// Notes that a portal (owned, and given back) serves the current task, if there is one.
unsafe fn for_current_task(portal: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        match current_task() {
            Ok(task) if task.is_null() => portal,
            Ok(task) => {
                let entered = enter(portal, task);
                ffi::Py_DECREF(task);
                if entered { portal } else { given_up(portal) }
            }
            Err(()) => given_up(portal),
        }
    }
}

/// Drops a portal that was not stepped, with an error set, which is kept. Returns null.
unsafe fn given_up(portal: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; ours to drop.
    unsafe { ffi::Py_DECREF(portal) };
    ptr::null_mut()
}

/// The running task of asyncio or Trio, as a new reference; null where there is none. An error is
/// set if it says so.
///
/// Trio brings sniffio, which tells in which steps Trio is in charge: then the Python layer is
/// asked. asyncio is asked directly.
unsafe fn current_task() -> Result<*mut PyObject, ()> {
    // SAFETY: attached; references are owned where they are used.
    unsafe {
        // Borrowed. Only a key of `str` is compared, which runs no code and cannot fail.
        let modules = ffi::PyImport_GetModuleDict();
        let has_trio = !ffi::PyDict_GetItemWithError(modules, names::TRIO.get()).is_null();
        let sniffio = if has_trio {
            ffi::PyDict_GetItemWithError(modules, names::SNIFFIO.get())
        } else {
            ptr::null_mut()
        };
        if !sniffio.is_null() && says_trio(sniffio) {
            let task = await_::ask_for_task();
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
