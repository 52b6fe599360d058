//! Whether greenlet is loaded, found out in time.

use super::entries::meet;
use super::original::is_loaded;
use crate::modules;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, Ordering};

/// The length that `sys.modules` had without greenlet in it.
static SEEN_LENGTH: AtomicIsize = AtomicIsize::new(-1);
/// The module of that name that is ours (`greenlet_api`), owned: not to be met.
static OURS: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static REPLACED: AtomicBool = AtomicBool::new(false);
/// The interned string "greenlet._greenlet".
static NAME: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Whether greenlet is loaded. The Python layer tells us (`meet_greenlet`) when it is imported, before
/// anybody can use it; this finds it if that was prevented.
///
/// # Safety
///
/// Attached, with no exception set, after [`init`].
#[inline]
pub(crate) unsafe fn look() -> bool {
    if is_loaded() {
        return true;
    }
    // SAFETY: attached.
    unsafe { modules::length() != SEEN_LENGTH.load(Ordering::Relaxed) && look_up() }
}

#[cold]
unsafe fn look_up() -> bool {
    // SAFETY: attached; a module that is found is borrowed.
    unsafe {
        let found = modules::find(NAME.load(Ordering::Relaxed));
        if found.is_null() || found == ffi::Py_None() || is_ours(found) || !meet(found) {
            if !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_WriteUnraisable(found);
            }
            SEEN_LENGTH.store(modules::length(), Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Notes which module `greenlet._greenlet` is none of greenlet's (borrowed; kept for ever).
///
/// # Safety
///
/// Attached; a valid object.
pub(crate) unsafe fn note_ours(module: *mut PyObject) {
    // SAFETY: the contract.
    OURS.store(unsafe { ffi::Py_NewRef(module) }, Ordering::Relaxed);
}

/// `_fiberback.note_greenlet_replaced()`: `import greenlet` gives what is ours from now on.
pub(crate) unsafe extern "C" fn note_replaced(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    REPLACED.store(true, Ordering::Relaxed);
    // SAFETY: attached.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

/// Whether `import greenlet` gives what is ours.
pub(crate) fn is_replaced() -> bool {
    REPLACED.load(Ordering::Relaxed)
}

fn is_ours(module: *mut PyObject) -> bool {
    module == OURS.load(Ordering::Relaxed)
}

/// `_fiberback.meet_greenlet(module)`: the module `greenlet._greenlet` has just been made.
pub(crate) unsafe extern "C" fn meet_greenlet(
    _: *mut PyObject,
    module: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; lent.
    unsafe {
        if is_ours(module) || meet(module) {
            ffi::Py_NewRef(ffi::Py_None())
        } else {
            ptr::null_mut()
        }
    }
}

/// False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn init() -> bool {
    // SAFETY: attached; the reference is kept for ever.
    let name = unsafe { ffi::PyUnicode_InternFromString(c"greenlet._greenlet".as_ptr()) };
    NAME.store(name, Ordering::Relaxed);
    !name.is_null()
}
