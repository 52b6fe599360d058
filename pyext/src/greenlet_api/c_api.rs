//! The capsule `greenlet._C_API`, whose entries greenlet.h names by their numbers.
//!
//! # Invariant
//!
//! The order of `Api` is that of greenlet.h's `PyGreenlet_*_NUM`.

use super::layout::{Greenlet, Parcel, TYPE, is_greenlet, new_ref};
use super::{exceptions, names, object, switch, thread};
use crate::barrier::barrier;
use crate::error;
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

const NAME: &CStr = c"greenlet._C_API";
const ENTRIES: usize = 12;

struct Api(UnsafeCell<[*mut c_void; ENTRIES]>);

// SAFETY: written once, before anybody has the capsule.
unsafe impl Sync for Api {}

static API: Api = Api(UnsafeCell::new([ptr::null_mut(); ENTRIES]));

/// The capsule, as a new reference; null with an error set on failure.
///
/// # Safety
///
/// Attached, after `object::init`; called once.
pub(super) unsafe fn capsule() -> *mut PyObject {
    // SAFETY: nobody else has the table yet.
    unsafe {
        *API.0.get() = [
            TYPE.get().cast(),
            exceptions::error().cast(),
            exceptions::exit().cast(),
            new as *mut c_void,
            get_current as *mut c_void,
            throw as *mut c_void,
            switch_to as *mut c_void,
            set_parent as *mut c_void,
            is_main as *mut c_void,
            is_started as *mut c_void,
            is_active as *mut c_void,
            get_parent as *mut c_void,
        ];
        ffi::PyCapsule_New(API.0.get().cast(), NAME.as_ptr(), None)
    }
}

/// Whether it is a greenlet. False with an error set if not.
unsafe fn is_one(object: *mut PyObject) -> bool {
    // SAFETY: attached; valid, or null.
    unsafe {
        if !object.is_null() && is_greenlet(object) {
            return true;
        }
        ffi::PyErr_BadArgument();
        false
    }
}

unsafe extern "C" fn new(run: *mut PyObject, parent: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, as greenlet.h asks; valid objects, or null.
    unsafe {
        let arguments = [
            if run.is_null() { ffi::Py_None() } else { run },
            if parent.is_null() { ffi::Py_None() } else { parent },
        ];
        if run.is_null() && parent.is_null() {
            return ffi::PyObject_CallNoArgs(TYPE.get().cast());
        }
        if run.is_null() {
            let keyword = ffi::PyDict_New();
            if keyword.is_null() {
                return keyword;
            }
            let greenlet = if ffi::PyDict_SetItemString(keyword, c"parent".as_ptr(), parent) < 0 {
                ptr::null_mut()
            } else {
                ffi::PyObject_Call(TYPE.get().cast(), names::empty_tuple(), keyword)
            };
            ffi::Py_DECREF(keyword);
            return greenlet;
        }
        ffi::PyObject_Vectorcall(TYPE.get().cast(), arguments.as_ptr(), 2, ptr::null_mut())
    }
}

/// `getcurrent()`.
///
/// # Safety
///
/// Attached.
pub(super) unsafe extern "C" fn get_current() -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached.
        unsafe {
            if object::is_exiting() {
                error::set_runtime("greenlet is being finalized");
                return ptr::null_mut();
            }
            let record = thread::record();
            if record.is_null() {
                return ptr::null_mut();
            }
            new_ref(thread::current(record)).cast()
        }
    })
}

unsafe extern "C" fn throw(
    greenlet: *mut PyObject,
    class: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, as greenlet.h asks; valid objects, or null.
        unsafe {
            if !is_one(greenlet) {
                return ptr::null_mut();
            }
            if class.is_null() {
                ffi::PyErr_BadArgument();
                return ptr::null_mut();
            }
            object::throw(greenlet, class, value, traceback)
        }
    })
}

unsafe extern "C" fn switch_to(
    greenlet: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, as greenlet.h asks; valid objects, or null.
        unsafe {
            if !is_one(greenlet) {
                return ptr::null_mut();
            }
            let record = thread::record();
            if record.is_null() {
                return ptr::null_mut();
            }
            let arguments = if arguments.is_null() { names::empty_tuple() } else { arguments };
            let is_dict = !keywords.is_null() && ffi::PyDict_Check(keywords) != 0;
            let keywords = if is_dict { ffi::Py_NewRef(keywords) } else { ptr::null_mut() };
            let parcel = Parcel::Value { arguments: ffi::Py_NewRef(arguments), keywords };
            switch::switch(record, greenlet.cast(), parcel)
        }
    })
}

unsafe extern "C" fn set_parent(greenlet: *mut PyObject, parent: *mut PyObject) -> c_int {
    // SAFETY: attached, as greenlet.h asks; valid, or null. (A null parent is refused there.)
    unsafe {
        if is_one(greenlet) { object::set_parent(greenlet, parent, ptr::null_mut()) } else { -1 }
    }
}

unsafe extern "C" fn is_main(greenlet: *mut PyObject) -> c_int {
    // SAFETY: attached, as greenlet.h asks; valid, or null.
    unsafe {
        if is_one(greenlet) { (*(*greenlet.cast::<Greenlet>()).inner).is_main.into() } else { -1 }
    }
}

unsafe extern "C" fn is_started(greenlet: *mut PyObject) -> c_int {
    // SAFETY: attached, as greenlet.h asks; valid, or null.
    unsafe {
        if !is_one(greenlet) {
            return -1;
        }
        let inner = (*greenlet.cast::<Greenlet>()).inner;
        ((*inner).phase != super::layout::Phase::New).into()
    }
}

unsafe extern "C" fn is_active(greenlet: *mut PyObject) -> c_int {
    // SAFETY: attached, as greenlet.h asks; valid, or null.
    unsafe {
        if is_one(greenlet) {
            (*(*greenlet.cast::<Greenlet>()).inner).seems_active().into()
        } else {
            -1
        }
    }
}

unsafe extern "C" fn get_parent(greenlet: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, as greenlet.h asks; valid, or null. Null without an error is "none".
    unsafe {
        if !is_one(greenlet) {
            return ptr::null_mut();
        }
        new_ref((*(*greenlet.cast::<Greenlet>()).inner).parent).cast()
    }
}
