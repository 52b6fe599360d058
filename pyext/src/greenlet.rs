//! Real `greenlet` in the same process (SQLAlchemy, Playwright).
//!
//! greenlet moves slices of the C stack to the heap and back to the *same addresses*. Two things
//! follow for portals:
//!
//! * While a task may have greenlets with slices on its stack, it must keep that stack: as soon as
//!   `greenlet` is loaded, a portal keeps its worker for life (see `portal.rs`).
//! * A fiber must not be suspended while a greenlet that was started on it is current: greenlet's
//!   idea of "current" belongs to the thread, not to the fiber. `await_` compares.

use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type GetCurrent = unsafe extern "C" fn() -> *mut PyObject;

/// `PyGreenlet_GetCurrent`, or null while greenlet is not loaded.
static GET_CURRENT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// The interned string "greenlet".
static NAME: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Index of `PyGreenlet_GetCurrent` in the C API capsule; part of greenlet's ABI since 0.4.
const GET_CURRENT_INDEX: usize = 4;

/// True once greenlet has been found by [`look`].
#[inline(always)]
pub(crate) fn is_loaded() -> bool {
    !GET_CURRENT.load(Ordering::Relaxed).is_null()
}

/// Looks whether greenlet has been imported since, and remembers it. About 10 ns when it has not.
///
/// # Safety
///
/// Attached, with no exception set.
#[inline]
pub(crate) unsafe fn look() -> bool {
    if is_loaded() {
        return true;
    }
    // SAFETY: attached; `sys.modules` is a borrowed reference, null only while the interpreter
    // goes down, and the look-up neither fails nor runs code for a `str` key in a plain dict.
    unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        if modules.is_null() {
            return false;
        }
        let found = ffi::PyDict_GetItemWithError(modules, NAME.load(Ordering::Relaxed));
        !found.is_null() && bind()
    }
}

/// Gets the C API of a greenlet that has been imported.
#[cold]
unsafe fn bind() -> bool {
    // SAFETY: attached. The capsule's array has at least 8 entries in every release since 0.4.
    unsafe {
        let api: *const *mut c_void = ffi::PyCapsule_Import(c"greenlet._C_API".as_ptr(), 0).cast();
        if api.is_null() {
            // Half imported (look again later), or not the greenlet we know.
            ffi::PyErr_Clear();
            return false;
        }
        GET_CURRENT.store(*api.add(GET_CURRENT_INDEX), Ordering::Relaxed);
        true
    }
}

/// The current greenlet as a new reference, or null if greenlet is not loaded.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn current() -> *mut PyObject {
    let get_current = GET_CURRENT.load(Ordering::Relaxed);
    if get_current.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the function of that type that greenlet published.
    unsafe {
        let get_current: GetCurrent = std::mem::transmute::<*mut c_void, GetCurrent>(get_current);
        let current = get_current();
        if current.is_null() {
            ffi::PyErr_Clear();
        }
        current
    }
}

/// The greenlet at the root of `greenlet`'s line of parents (its thread's main greenlet), as a new
/// reference; null if `greenlet` is null or has parents that cannot be read.
///
/// # Safety
///
/// Attached; `greenlet` borrowed, or null.
pub(crate) unsafe fn root_of(greenlet: *mut PyObject) -> *mut PyObject {
    if greenlet.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: attached; each step owns the reference that it looks at.
    unsafe {
        let mut root = ffi::Py_NewRef(greenlet);
        loop {
            let parent = ffi::PyObject_GetAttr(root, crate::names::PARENT.get());
            if parent.is_null() {
                ffi::PyErr_Clear();
                ffi::Py_DECREF(root);
                return ptr::null_mut();
            }
            if parent == ffi::Py_None() {
                ffi::Py_DECREF(parent);
                return root;
            }
            ffi::Py_DECREF(root);
            root = parent;
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
    let name = unsafe { ffi::PyUnicode_InternFromString(c"greenlet".as_ptr()) };
    NAME.store(name, Ordering::Relaxed);
    !name.is_null()
}
