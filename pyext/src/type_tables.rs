//! What type objects of our own are made of: static, as the interpreter keeps pointers into it for ever.
//!
//! # Invariant
//!
//! A type is filled in once, attached, before anything can use it. From then on only the interpreter touches it
//! and its tables, with the GIL held.

use pyo3::ffi::{self, PyTypeObject};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_ulong};
use std::mem::MaybeUninit;
use std::ptr;

/// A type object; zeroed, which is one to fill in: all of its slots are null.
pub(crate) struct Type(UnsafeCell<MaybeUninit<PyTypeObject>>);

// SAFETY: the invariant.
unsafe impl Sync for Type {}

impl Type {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    #[inline(always)]
    pub(crate) const fn get(&'static self) -> *mut PyTypeObject {
        self.0.get().cast()
    }
}

/// Sets `tp_flags`, which are atomic in free-threaded builds. Elsewhere the conversion does nothing.
///
/// # Safety
///
/// `class` is being filled in.
#[allow(clippy::useless_conversion)]
pub(crate) unsafe fn set_flags(class: *mut PyTypeObject, flags: c_ulong) {
    // SAFETY: the caller's promise.
    unsafe { (*class).tp_flags = flags.into() };
}

/// A table that the interpreter wants as a mutable pointer.
pub(crate) struct Table<T>(UnsafeCell<T>);

// SAFETY: the invariant.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    pub(crate) const fn new(content: T) -> Self {
        Self(UnsafeCell::new(content))
    }

    pub(crate) const fn get(&'static self) -> *mut T {
        self.0.get()
    }
}

/// An attribute. Its functions get its name as their closure.
pub(crate) const fn attribute(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
    doc: &'static CStr,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef { set, doc: doc.as_ptr(), ..undocumented(name, get) }
}

/// An attribute that is only read, with no words about it.
pub(crate) const fn undocumented(name: &'static CStr, get: ffi::getter) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: None,
        doc: ptr::null(),
        closure: name.as_ptr().cast_mut().cast(),
    }
}

/// What a table of attributes ends with.
pub(crate) const fn last_attribute() -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: ptr::null(),
        get: None,
        set: None,
        doc: ptr::null(),
        closure: ptr::null_mut(),
    }
}
