//! greenlet's functions, and ours in their places.
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

use super::calls::{self, Action};
use crate::error;
use crate::interp::facts::{self, field};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::ffi::{CStr, c_int, c_void};
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

/// Places in the C API's array; part of greenlet's ABI (`greenlet.h`, 1.0 to 3.5).
const TYPE: usize = 0;
const GET_CURRENT_AT: usize = 4;
const THROW_AT: usize = 5;
const SWITCH_AT: usize = 6;
const MAIN_AT: usize = 8;
const ACTIVE_AT: usize = 10;

/// True once greenlet is known.
#[inline(always)]
pub(super) fn is_loaded() -> bool {
    !GET_CURRENT.get().is_null()
}

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
        if is_loaded() {
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
        let switch_definition = definition(class, c"switch", keywords);
        let throw_definition = definition(class, c"throw", ffi::METH_VARARGS);
        let dealloc = (*class).tp_dealloc;
        let (Some(switch_definition), Some(throw_definition), Some(dealloc)) =
            (switch_definition, throw_definition, dealloc)
        else {
            ffi::PyErr_Clear();
            error::set_runtime(error::UNKNOWN_GREENLET);
            return false;
        };
        IS_MAIN.set(*api.add(MAIN_AT));
        IS_ACTIVE.set(*api.add(ACTIVE_AT));
        SWITCH.set(pointer_of(switch_definition));
        THROW.set(pointer_of(throw_definition));
        API_SWITCH.set(*api.add(SWITCH_AT));
        API_THROW.set(*api.add(THROW_AT));
        DEALLOC.set(dealloc as *mut c_void);
        GET_CURRENT.set(*api.add(GET_CURRENT_AT));

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
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { calls::perform(Action::Switch { greenlet: this, arguments, keywords }) }
    })
}

unsafe extern "C" fn throw(this: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { calls::perform(Action::Throw { greenlet: this, arguments }) }
    })
}

unsafe extern "C" fn api_switch(
    this: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe { calls::perform(Action::ApiSwitch { greenlet: this, arguments, keywords }) }
    })
}

unsafe extern "C" fn api_throw(
    this: *mut PyObject,
    class: *mut PyObject,
    value: *mut PyObject,
    trace: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent for the call.
        unsafe {
            calls::perform(Action::ApiThrow { greenlet: this, exception: [class, value, trace] })
        }
    })
}

unsafe extern "C" fn dealloc(this: *mut PyObject) {
    error::barrier((), || {
        // SAFETY: attached; the last reference is gone.
        unsafe { calls::dealloc(this) }
    });
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

/// greenlet's own `switch`.
///
/// # Safety
///
/// Attached, on the thread's own stack.
pub(super) unsafe fn original_switch(
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
/// As [`original_switch`].
pub(super) unsafe fn original_throw(
    greenlet: *mut PyObject,
    arguments: *mut PyObject,
) -> *mut PyObject {
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
/// As [`original_switch`].
pub(super) unsafe fn original_api_switch(
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
/// As [`original_switch`].
pub(super) unsafe fn original_api_throw(
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
pub(super) unsafe fn original_dealloc(greenlet: *mut PyObject) {
    // SAFETY: a function of that type; the contract.
    unsafe {
        let function = std::mem::transmute::<*mut c_void, ffi::destructor>(DEALLOC.get());
        function(greenlet);
    }
}
