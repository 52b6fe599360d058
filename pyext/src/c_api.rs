//! The C API: `fiberback._C_API`, a capsule with the functions that native extensions call.
//!
//! # Invariant
//!
//! `Api` is what `fiberback/include/fiberback.h` declares, field by field. Fields are only ever added at the
//! end; `size` tells a caller how many there are.

use crate::await_;
use crate::barrier::barrier;
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `fiberback_api` of `fiberback/include/fiberback.h`.
#[repr(C)]
struct Api {
    version: u32,
    size: u32,
    await_: unsafe extern "C" fn(*mut PyObject) -> *mut PyObject,
    event: unsafe extern "C" fn() -> *mut PyObject,
}

static API: Api =
    Api { version: 1, size: size_of::<Api>() as u32, await_: await_in_python, event: new_event };

const CAPSULE_NAME: &CStr = c"fiberback._C_API";

/// The Python layer's `ExternalEvent`.
static EVENT_TYPE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Gives the module its capsule. False with an error set on failure.
///
/// # Safety
///
/// Attached, with the module.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    // SAFETY: attached. The capsule's content is a static, which nobody writes to.
    unsafe {
        let content = (&raw const API).cast_mut().cast();
        let capsule = ffi::PyCapsule_New(content, CAPSULE_NAME.as_ptr(), None);
        if capsule.is_null() {
            return false;
        }
        let added = ffi::PyModule_AddObjectRef(module, c"_C_API".as_ptr(), capsule);
        ffi::Py_DECREF(capsule);
        added == 0
    }
}

unsafe extern "C" fn await_in_python(awaitable: *mut PyObject) -> *mut PyObject {
    let mut argument = awaitable;
    // SAFETY: the header asks for an attached caller, and for a reference that lasts for the call.
    // The argument lies on no Python frame's value stack, so the caller's reference is nobody's
    // that the collector is shown.
    unsafe { await_::await_(ptr::null_mut(), &raw mut argument, 1) }
}

unsafe extern "C" fn new_event() -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: the header asks for an attached caller; the static owns what it points to.
        unsafe { ffi::PyObject_CallNoArgs(EVENT_TYPE.load(Ordering::Relaxed)) }
    })
}

/// `_fiberback.set_external_event(type)`.
pub(crate) unsafe extern "C" fn set_external_event(
    _module: *mut PyObject,
    event_type: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached. It is set once, when the package is imported; a second one would leave the first
    // to those who call it just now.
    unsafe {
        EVENT_TYPE.store(ffi::Py_NewRef(event_type), Ordering::Relaxed);
        ffi::Py_NewRef(ffi::Py_None())
    }
}
