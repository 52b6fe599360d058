//! Our functions in the places of greenlet's.
//!
//! # Invariant
//!
//! Every way into a switch that begins in somebody's code goes through a function of ours, in place
//! before that code can call it:
//!
//! * The methods `switch` and `throw`: `ml_meth` of their definitions, which CPython reads at each call
//!   (`method_vectorcall_VARARGS_KEYWORDS` in Objects/descrobject.c, `cfunction_call` in
//!   Objects/methodobject.c), so that bound methods made before are met as well.
//! * `PyGreenlet_Switch` and `PyGreenlet_Throw` of the C API: entries of the array in greenlet's capsule.
//!   Extensions keep a pointer to the array, and read the entry at each call (`greenlet.h`).
//! * The end of a greenlet that is suspended, which throws GreenletExit into it: `tp_dealloc` of the
//!   type. Classes in Python and in Cython call that of their base, read at the time.
//!
//! The switches that greenlet does by itself, when a greenlet ends, begin on that greenlet's stack,
//! which is the thread's (the invariant of `mod.rs`).

use super::original::{self, Originals};
use super::switches::{self, Action};
use crate::barrier::barrier;
use crate::interp::facts::{self, field};
use crate::{error, messages};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

/// Places in the C API's array; part of greenlet's ABI (`greenlet.h`, 1.0 to 3.5).
const TYPE: usize = 0;
const GET_CURRENT_AT: usize = 4;
const THROW_AT: usize = 5;
const SWITCH_AT: usize = 6;
const MAIN_AT: usize = 8;
const ACTIVE_AT: usize = 10;

/// Puts our functions in place. False with an error set if this is not the greenlet that we know; then
/// nothing has been changed.
///
/// # Safety
///
/// Attached, no error set; `module` is `greenlet._greenlet`.
#[cold]
pub(super) unsafe fn meet(module: *mut PyObject) -> bool {
    // SAFETY: attached. The capsule's array has at least 11 entries; what they are is said by the ABI.
    // The definitions of the methods and the array are variables of greenlet's (`green_methods`,
    // `_PyGreenlet_API`), which only it and we know of, changed with the GIL held.
    unsafe {
        if original::is_loaded() {
            return true;
        }
        let capsule = ffi::PyObject_GetAttrString(module, c"_C_API".as_ptr());
        if capsule.is_null() {
            return false;
        }
        let name = c"greenlet._C_API".as_ptr();
        let api: *mut *mut c_void = ffi::PyCapsule_GetPointer(capsule, name).cast();
        ffi::Py_DECREF(capsule); // the module's
        if api.is_null() {
            return false;
        }
        let class: *mut PyTypeObject = (*api.add(TYPE)).cast();
        let keywords = ffi::METH_VARARGS | ffi::METH_KEYWORDS;
        // One after the other: none is asked for while an error of the one before is set.
        let definitions = definition(class, c"switch", keywords).and_then(|switch| {
            Some((switch, definition(class, c"throw", ffi::METH_VARARGS)?, (*class).tp_dealloc?))
        });
        let Some((switch_definition, throw_definition, dealloc)) = definitions else {
            ffi::PyErr_Clear();
            error::set_runtime(messages::UNKNOWN_GREENLET);
            return false;
        };
        original::note(&Originals {
            get_current: *api.add(GET_CURRENT_AT),
            is_main: *api.add(MAIN_AT),
            is_active: *api.add(ACTIVE_AT),
            switch: pointer_of(switch_definition),
            throw: pointer_of(throw_definition),
            api_switch: *api.add(SWITCH_AT),
            api_throw: *api.add(THROW_AT),
            dealloc: dealloc as *mut c_void,
        });

        (*switch_definition).ml_meth.PyCFunctionWithKeywords = switch;
        (*throw_definition).ml_meth.PyCFunction = throw;
        *api.add(SWITCH_AT) = api_switch as *mut c_void;
        *api.add(THROW_AT) = api_throw as *mut c_void;
        meet_dealloc(class, dealloc as *mut c_void);
        true
    }
}

/// The definition of a method in C; None if the type has no such one.
unsafe fn definition(
    class: *mut PyTypeObject,
    name: &CStr,
    flags: c_int,
) -> Option<*mut ffi::PyMethodDef> {
    // SAFETY: attached; the type is checked before the object is taken for a descriptor, which the
    // type's dictionary keeps alive.
    unsafe {
        let descriptor = ffi::PyObject_GetAttrString(class.cast(), name.as_ptr());
        if descriptor.is_null() {
            return None;
        }
        ffi::Py_DECREF(descriptor);
        if ffi::Py_TYPE(descriptor) != &raw mut ffi::PyMethodDescr_Type {
            return None;
        }
        let definition = *field::<_, *mut ffi::PyMethodDef>(descriptor, facts::METHOD_DESCR_METHOD);
        let fits = CStr::from_ptr((*definition).ml_name) == name && (*definition).ml_flags == flags;
        fits.then_some(definition)
    }
}

/// The function of a method, whatever its kind.
unsafe fn pointer_of(definition: *mut ffi::PyMethodDef) -> *mut c_void {
    // SAFETY: a valid definition; all variants of the union are function pointers.
    unsafe { (*definition).ml_meth.PyCFunction as *mut c_void }
}

/// Our `tp_dealloc` for the type, and for those derived from it which inherited it.
unsafe fn meet_dealloc(class: *mut PyTypeObject, original: *mut c_void) {
    // SAFETY: attached; the list owns the types.
    unsafe {
        let same =
            |of: *mut PyTypeObject| (*of).tp_dealloc.is_some_and(|f| f as *mut c_void == original);
        if same(class) {
            (*class).tp_dealloc = Some(dealloc);
        }
        let list = ffi::PyObject_CallMethod(class.cast(), c"__subclasses__".as_ptr(), ptr::null());
        if list.is_null() {
            return ffi::PyErr_Clear();
        }
        for index in 0..ffi::PyList_GET_SIZE(list) {
            meet_dealloc(ffi::PyList_GET_ITEM(list, index).cast(), original);
        }
        ffi::Py_DECREF(list);
    }
}

unsafe extern "C" fn switch(
    this: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { switches::perform(Action::Switch { greenlet: this, arguments, keywords }) }
    })
}

unsafe extern "C" fn throw(this: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { switches::perform(Action::Throw { greenlet: this, arguments }) }
    })
}

unsafe extern "C" fn api_switch(
    this: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { switches::perform(Action::ApiSwitch { greenlet: this, arguments, keywords }) }
    })
}

unsafe extern "C" fn api_throw(
    this: *mut PyObject,
    class: *mut PyObject,
    value: *mut PyObject,
    trace: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe {
            switches::perform(Action::ApiThrow { greenlet: this, exception: [class, value, trace] })
        }
    })
}

unsafe extern "C" fn dealloc(this: *mut PyObject) {
    barrier((), || {
        // SAFETY: attached; the last reference is gone.
        unsafe { switches::dealloc(this) }
    });
}
