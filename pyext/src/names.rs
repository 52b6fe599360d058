//! Attribute names, interned once.

use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An interned `str`, alive for ever after [`init`].
pub(crate) struct Name {
    text: &'static CStr,
    object: AtomicPtr<PyObject>,
}

impl Name {
    const fn new(text: &'static CStr) -> Self {
        Self { text, object: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The `str`, borrowed.
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut PyObject {
        self.object.load(Ordering::Relaxed)
    }
}

macro_rules! names {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(pub(crate) static $name: Name = Name::new($text);)+
        static ALL: &[&Name] = &[$(&$name),+];
    };
}

names! {
    CLOSE = c"close",
    CODE = c"__code__",
    CORO = c"coro",
    CORO_PRIVATE = c"_coro",
    CR_AWAIT = c"cr_await",
    CURRENT_TASK = c"current_task",
    DEAD = c"dead",
    EAGER_START = c"eager_start",
    GET_CORO = c"get_coro",
    GI_CODE = c"gi_code",
    LOOP = c"loop",
    NAME = c"name",
    PARENT = c"parent",
    PROVIDER = c"__sqlalchemy_greenlet_provider__",
    SEND = c"send",
    SNIFFIO = c"sniffio",
    SWITCH = c"switch",
    TASK = c"Task",
    THREAD_LOCAL = c"thread_local",
    THROW = c"throw",
    TRIO = c"trio",
    VALUE = c"value",
}

/// Interns all names. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn init() -> bool {
    ALL.iter().all(|name| {
        // SAFETY: attached; the text ends in a zero byte. The reference is kept for ever.
        let object = unsafe { ffi::PyUnicode_InternFromString(name.text.as_ptr()) };
        name.object.store(object, Ordering::Relaxed);
        !object.is_null()
    })
}

/// `object.name(argument)`, without a bound method in between.
///
/// # Safety
///
/// Attached; all valid and borrowed.
#[inline]
pub(crate) unsafe fn call_one(
    object: *mut PyObject,
    name: *mut PyObject,
    argument: *mut PyObject,
) -> *mut PyObject {
    let arguments = [object, argument];
    // SAFETY: the contract.
    unsafe { ffi::PyObject_VectorcallMethod(name, arguments.as_ptr(), 2, ptr::null_mut()) }
}

/// `object.name()`.
///
/// # Safety
///
/// As [`call_one`].
#[inline]
pub(crate) unsafe fn call_none(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    let arguments = [object];
    // SAFETY: the contract.
    unsafe { ffi::PyObject_VectorcallMethod(name, arguments.as_ptr(), 1, ptr::null_mut()) }
}

/// `getattr(object, name, None)` as a new reference, null instead of `None`'s default. An error
/// other than `AttributeError` is set, with null returned.
///
/// # Safety
///
/// As [`call_one`].
pub(crate) unsafe fn attribute(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let value = ffi::PyObject_GetAttr(object, name);
        if value.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) != 0 {
            ffi::PyErr_Clear();
        }
        value
    }
}
