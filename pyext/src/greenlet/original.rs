//! greenlet's own functions, as they were before ours took their places.
//!
//! # Invariant
//!
//! They are noted once, all at a time, when greenlet is met, with the GIL held; [`is_loaded`] says whether
//! they have been. A switch of theirs is called on the thread's own stack only (the invariant of `mod.rs`).

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Switch = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type Throw = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
type ApiThrow = unsafe extern "C" fn(
    *mut PyObject,
    *mut PyObject,
    *mut PyObject,
    *mut PyObject,
) -> *mut PyObject;
type GetCurrent = unsafe extern "C" fn() -> *mut PyObject;
type Question = unsafe extern "C" fn(*mut PyObject) -> c_int;

/// One of greenlet's own functions; null while it is not loaded.
struct Original(AtomicPtr<c_void>);

impl Original {
    const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    fn get(&self) -> *mut c_void {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, function: *mut c_void) {
        self.0.store(function, Ordering::Relaxed);
    }
}

static GET_CURRENT: Original = Original::new();
static IS_MAIN: Original = Original::new();
static IS_ACTIVE: Original = Original::new();
static SWITCH: Original = Original::new();
static THROW: Original = Original::new();
static API_SWITCH: Original = Original::new();
static API_THROW: Original = Original::new();
static DEALLOC: Original = Original::new();

/// True once greenlet is known.
#[inline(always)]
pub(crate) fn is_loaded() -> bool {
    !GET_CURRENT.get().is_null()
}

/// What [`note`] is told: functions that the C API and the type had.
pub(super) struct Originals {
    pub(super) get_current: *mut c_void,
    pub(super) is_main: *mut c_void,
    pub(super) is_active: *mut c_void,
    pub(super) switch: *mut c_void,
    pub(super) throw: *mut c_void,
    pub(super) api_switch: *mut c_void,
    pub(super) api_throw: *mut c_void,
    pub(super) dealloc: *mut c_void,
}

/// From now on greenlet is loaded.
///
/// # Safety
///
/// Attached; each must be the function of its type.
pub(super) unsafe fn note(originals: &Originals) {
    IS_MAIN.set(originals.is_main);
    IS_ACTIVE.set(originals.is_active);
    SWITCH.set(originals.switch);
    THROW.set(originals.throw);
    API_SWITCH.set(originals.api_switch);
    API_THROW.set(originals.api_throw);
    DEALLOC.set(originals.dealloc);
    GET_CURRENT.set(originals.get_current);
}

/// The current greenlet as a new reference, or null if greenlet is not loaded or not any more.
///
/// # Safety
///
/// Attached.
#[inline]
pub(super) unsafe fn current() -> *mut PyObject {
    let get_current = GET_CURRENT.get();
    if get_current.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the function of that type that greenlet published.
    unsafe {
        let get_current = std::mem::transmute::<*mut c_void, GetCurrent>(get_current);
        let current = get_current();
        if current.is_null() {
            ffi::PyErr_Clear();
        }
        current
    }
}

/// Whether it has been begun, is not dead, and is no thread's main one: what is killed when it is
/// dropped.
///
/// # Safety
///
/// Attached; a greenlet.
pub(super) unsafe fn is_under_way(greenlet: *mut PyObject) -> bool {
    // SAFETY: functions of that type; they only read a field.
    unsafe {
        let is_main = std::mem::transmute::<*mut c_void, Question>(IS_MAIN.get());
        is_active(greenlet) && is_main(greenlet) == 0
    }
}

/// Whether it has been begun and is not dead.
///
/// # Safety
///
/// As [`is_under_way`].
pub(super) unsafe fn is_active(greenlet: *mut PyObject) -> bool {
    // SAFETY: as in `is_under_way`.
    unsafe {
        let is_active = std::mem::transmute::<*mut c_void, Question>(IS_ACTIVE.get());
        is_active(greenlet) == 1
    }
}

/// Whether the greenlet (borrowed) is not current, but may be again.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn is_away(greenlet: *mut PyObject) -> bool {
    // SAFETY: attached; an error that is set stays.
    unsafe {
        let mut is_away = false;
        error::keeping(|| {
            let now = current();
            is_away = now != greenlet && is_active(greenlet);
            ffi::Py_XDECREF(now);
        });
        is_away
    }
}

/// greenlet's own `switch`.
///
/// # Safety
///
/// Attached, on the thread's own stack.
pub(super) unsafe fn switch(
    greenlet: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, Switch>(SWITCH.get());
        function(greenlet, arguments, keywords)
    }
}

/// greenlet's own `throw`.
///
/// # Safety
///
/// As [`switch`].
pub(super) unsafe fn throw(greenlet: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, Throw>(THROW.get());
        function(greenlet, arguments)
    }
}

/// greenlet's own `PyGreenlet_Switch`.
///
/// # Safety
///
/// As [`switch`].
pub(super) unsafe fn api_switch(
    greenlet: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, Switch>(API_SWITCH.get());
        function(greenlet, arguments, keywords)
    }
}

/// greenlet's own `PyGreenlet_Throw`.
///
/// # Safety
///
/// As [`switch`].
pub(super) unsafe fn api_throw(
    greenlet: *mut PyObject,
    [class, value, trace]: [*mut PyObject; 3],
) -> *mut PyObject {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, ApiThrow>(API_THROW.get());
        function(greenlet, class, value, trace)
    }
}

/// greenlet's own `tp_dealloc`.
///
/// # Safety
///
/// Attached, on the thread's own stack if the greenlet [`is_under_way`].
pub(super) unsafe fn dealloc(greenlet: *mut PyObject) {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, ffi::destructor>(DEALLOC.get());
        function(greenlet);
    }
}
