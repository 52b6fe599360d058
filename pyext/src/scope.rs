//! `with_portal_run…`: portals that are made for one call, and note that they serve the current task.

use crate::barrier::barrier;
use crate::current_task::current_task;
use crate::portal::{self, PortalObject};
use crate::usable_portal::is_on_usable_portal;
use crate::{arguments, call, delegate, task_scopes};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.scoped_portal(task)`.
pub(crate) unsafe extern "C" fn scoped_portal(
    _: *mut PyObject,
    task: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
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
    barrier(ptr::null_mut(), || {
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
    barrier(ptr::null_mut(), || {
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
    barrier(ptr::null_mut(), || {
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
        let on_portal = is_on_usable_portal();
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
