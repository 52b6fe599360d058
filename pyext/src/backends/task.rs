//! A portal for a task that already exists.
//!
//! Trio's tasks and asyncio's pure-Python ones keep their coroutine in an attribute. asyncio's C
//! tasks keep it in a slot of their structure, which is found by looking for the coroutine that
//! `get_coro()` returns: the one pointer-sized word of the object that is equal to it. The place is
//! checked on every use, so nothing is ever written where something else was.

use crate::barrier::barrier;
use crate::{error, messages, names, portal};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ptr;

/// Where a task keeps the coroutine that it steps next.
enum Place {
    /// An attribute, by this name (borrowed, immortal).
    Attribute(*mut PyObject),
    /// This word of the object.
    Slot(*mut *mut PyObject),
}

/// `_fiberback.bestow(task, wrap=None)`.
///
/// `wrap`, if given, is called with the task's coroutine; the portal is put around its result, which
/// must keep the coroutine alive (the task may be running it).
pub(crate) unsafe extern "C" fn bestow(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        if !(1..=2).contains(&count) {
            error::set_type("bestow() takes a task, and optionally a callable");
            return ptr::null_mut();
        }
        // SAFETY: attached; `METH_FASTCALL`: the arguments are lent, as many as `count` says.
        unsafe {
            let task = *arguments;
            let wrap = if count == 2 { *arguments.add(1) } else { ffi::Py_None() };
            let Some((coroutine, place)) = locate(task) else { return ptr::null_mut() };
            if portal::is_portal(coroutine) {
                return coroutine;
            }
            let inner = if wrap == ffi::Py_None() {
                ffi::Py_NewRef(coroutine)
            } else {
                ffi::PyObject_CallOneArg(wrap, coroutine)
            };
            let portal = if inner.is_null() { inner } else { portal::new(inner) };
            ffi::Py_XDECREF(inner);
            let done = !portal.is_null()
                && (wrap == ffi::Py_None() || still_has(task, coroutine))
                && put(task, &place, portal);
            ffi::Py_DECREF(coroutine);
            if !done {
                ffi::Py_XDECREF(portal);
                return ptr::null_mut();
            }
            portal
        }
    })
}

/// Whether the task's coroutine is that one, after code that may have run anything. If not, false
/// with an error set.
unsafe fn still_has(task: *mut PyObject, coroutine: *mut PyObject) -> bool {
    // SAFETY: attached; valid objects.
    unsafe {
        let now = coroutine_of(task);
        ffi::Py_XDECREF(now);
        if now != coroutine && ffi::PyErr_Occurred().is_null() {
            error::set_runtime(messages::TASK_CHANGED);
        }
        now == coroutine
    }
}

/// `_fiberback.unbestow(task)`.
pub(crate) unsafe extern "C" fn unbestow(_: *mut PyObject, task: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `task` is lent. The portal is held by our reference while the task
        // lets go of it.
        unsafe {
            let Some((current, place)) = locate(task) else { return ptr::null_mut() };
            let inner = if portal::is_portal(current) {
                portal::unwrap_idle(current)
            } else {
                ptr::null_mut()
            };
            let done = !inner.is_null() && put(task, &place, inner);
            ffi::Py_XDECREF(inner);
            ffi::Py_DECREF(current);
            if !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            ffi::PyBool_FromLong(done.into())
        }
    })
}

/// `_fiberback.portal_of(object)`.
pub(crate) unsafe extern "C" fn portal_of(
    _: *mut PyObject,
    object: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `object` is lent.
        unsafe {
            if portal::is_portal(object) {
                return ffi::Py_NewRef(object);
            }
            let coroutine = coroutine_of(object);
            if !coroutine.is_null() {
                if portal::is_portal(coroutine) {
                    return coroutine;
                }
                ffi::Py_DECREF(coroutine);
            } else if !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// The coroutine of a task, as a new reference; null without an error if it is no task.
unsafe fn coroutine_of(task: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let get = names::attribute(task, names::GET_CORO.get());
        if !get.is_null() {
            let coroutine = ffi::PyObject_CallNoArgs(get);
            ffi::Py_DECREF(get);
            return coroutine;
        }
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        names::attribute(task, names::CORO.get())
    }
}

/// The task's coroutine (a new reference), and where the task keeps it. `None` with an error set.
unsafe fn locate(task: *mut PyObject) -> Option<(*mut PyObject, Place)> {
    // SAFETY: attached; `task` is a valid object.
    unsafe {
        let coroutine = coroutine_of(task);
        if coroutine.is_null() || coroutine == ffi::Py_None() {
            ffi::Py_XDECREF(coroutine);
            if ffi::PyErr_Occurred().is_null() {
                error::set_type(messages::NOT_A_TASK);
            }
            return None;
        }
        // `_coro` of a C task is a read-only view of its slot.
        let in_slot = is_c_task(task);
        for name in [&names::CORO, &names::CORO_PRIVATE] {
            if in_slot {
                break;
            }
            let attribute = names::attribute(task, name.get());
            let found = attribute == coroutine;
            ffi::Py_XDECREF(attribute);
            if !ffi::PyErr_Occurred().is_null() {
                ffi::Py_DECREF(coroutine);
                return None;
            }
            if found {
                return Some((coroutine, Place::Attribute(name.get())));
            }
        }
        if let Some(slot) = find_slot(task, coroutine) {
            return Some((coroutine, Place::Slot(slot)));
        }
        ffi::Py_DECREF(coroutine);
        error::set_runtime(messages::TASK_KEEPS_COROUTINE);
        None
    }
}

/// The class whose layout the task's C part has: the first static type in its line of bases.
unsafe fn layout_class(task: *mut PyObject) -> *mut PyTypeObject {
    // SAFETY: types are alive as long as their instances.
    unsafe {
        let asyncio = ffi::PyImport_ImportModule(c"_asyncio".as_ptr());
        if asyncio.is_null() {
            ffi::PyErr_Clear();
            return ptr::null_mut();
        }
        let class = names::attribute(asyncio, names::TASK.get());
        ffi::Py_DECREF(asyncio);
        ffi::PyErr_Clear();
        if class.is_null() {
            return ptr::null_mut();
        }
        let is_instance = ffi::PyObject_TypeCheck(task, class.cast()) != 0;
        // `_asyncio` keeps its type alive.
        ffi::Py_DECREF(class);
        if is_instance { class.cast() } else { ptr::null_mut() }
    }
}

unsafe fn is_c_task(task: *mut PyObject) -> bool {
    // SAFETY: attached; a valid object.
    unsafe { !layout_class(task).is_null() }
}

/// The one word of the task's C structure that holds `coroutine`.
unsafe fn find_slot(task: *mut PyObject, coroutine: *mut PyObject) -> Option<*mut *mut PyObject> {
    // SAFETY: the words between the object header and the class's basic size are the object's own
    // memory, initialised when it was made; reading a word that is no pointer is harmless.
    unsafe {
        let class = layout_class(task);
        if class.is_null() {
            return None;
        }
        let words = (*class).tp_basicsize as usize / size_of::<*mut PyObject>();
        let base: *mut *mut PyObject = task.cast();
        let first = size_of::<PyObject>() / size_of::<*mut PyObject>();
        let mut found =
            (first..words).map(|index| base.add(index)).filter(|&slot| *slot == coroutine);
        let slot = found.next()?;
        // A second one would be something else, and we would not know which is which.
        found.next().is_none().then_some(slot)
    }
}

/// Puts `coroutine` (borrowed) in the place. False with an error set.
unsafe fn put(task: *mut PyObject, place: &Place, coroutine: *mut PyObject) -> bool {
    // SAFETY: attached. The slot owns a reference to what it holds; the old one is dropped after
    // the slot has been overwritten. A task that is in the middle of a step uses its coroutine
    // without a reference of its own, but a portal keeps the coroutine alive, and `unbestow`
    // refuses a portal that is running.
    unsafe {
        match *place {
            Place::Attribute(name) => ffi::PyObject_SetAttr(task, name, coroutine) == 0,
            Place::Slot(slot) => {
                let previous = slot.replace(ffi::Py_NewRef(coroutine));
                ffi::Py_DECREF(previous);
                true
            }
        }
    }
}
