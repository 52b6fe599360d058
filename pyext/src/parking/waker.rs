//! The callback that ends a wait, as a Python object: what futures and handles call.

use super::driver::{Driver, Parked};
use crate::barrier::barrier;
use crate::type_tables::{Table, Type, attribute, last_attribute, set_flags};
use crate::{error, messages, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;

/// What it is for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The parked stack goes on.
    Wake,
    /// The host lets a runner drive.
    TakeOver,
}

/// The Python object.
#[repr(C)]
pub(super) struct WakerObject {
    ob_base: PyObject,
    /// One of its uses is ours.
    pub(super) driver: *mut Driver,
    /// `wait`, as long as the caller waits; null once it has been woken, or waits no more.
    pub(super) parked: *mut Parked,
    kind: Kind,
    called: Called,
    wait: ManuallyDrop<Parked>,
}

/// What calling it does, with the arguments (a tuple) that it was called with: attached, no error set, on the
/// driver's thread. False with an error set.
pub(super) type Called = unsafe fn(*mut WakerObject, *mut PyObject) -> bool;

impl WakerObject {
    /// The wait that it has in it.
    ///
    /// # Safety
    ///
    /// A waker.
    #[inline]
    pub(super) unsafe fn wait(waker: *mut Self) -> *mut Parked {
        // SAFETY: the contract.
        unsafe { (&raw mut (*waker).wait).cast() }
    }
}

static TYPE: Type = Type::new();

/// The object as a waker of somebody who waits; null if it is none.
///
/// # Safety
///
/// A valid object, or null.
#[inline]
pub(super) unsafe fn of_a_wait(object: *mut PyObject) -> *mut WakerObject {
    if object.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the contract; objects of that type are wakers.
    unsafe {
        let waker: *mut WakerObject = object.cast();
        let is_waker = ptr::eq(ffi::Py_TYPE(object), TYPE.get())
            && (*waker).kind == Kind::Wake
            && !(*waker).parked.is_null();
        if is_waker { waker } else { ptr::null_mut() }
    }
}

/// A callback; null with an error set.
///
/// # Safety
///
/// Attached, after [`init`]; the driver is this thread's.
#[inline]
pub(super) unsafe fn new(
    driver: *mut Driver,
    wait: Parked,
    kind: Kind,
    called: Called,
) -> *mut WakerObject {
    // SAFETY: the type is ready; fresh memory is filled in.
    unsafe {
        let waker: *mut WakerObject = ffi::PyObject_New(TYPE.get());
        if !waker.is_null() {
            (*waker).driver = driver;
            (*waker).parked = ptr::null_mut();
            (*waker).kind = kind;
            (*waker).called = called;
            (&raw mut (*waker).wait).write(ManuallyDrop::new(wait));
            Driver::hold(driver);
        }
        waker
    }
}

unsafe extern "C" fn tp_call(
    this: *mut PyObject,
    arguments: *mut PyObject,
    _keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let waker: *mut WakerObject = this.cast();
        // SAFETY: attached; the caller holds a reference to the waker, which holds the driver.
        unsafe {
            if !Driver::is_ours((*waker).driver) {
                error::set_runtime(messages::PARKED_ELSEWHERE);
                return ptr::null_mut();
            }
            let done = ((*waker).called)(waker, arguments);
            if done { ffi::Py_NewRef(ffi::Py_None()) } else { ptr::null_mut() }
        }
    })
}

/// `__self__`: the task on whose behalf it is called, as that of a task's own wakeup.
unsafe extern "C" fn get_self(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; the caller's task is alive as long as it waits.
    unsafe {
        let parked = (*this.cast::<WakerObject>()).parked;
        let task = if parked.is_null() { ptr::null_mut() } else { (*parked).task };
        ffi::Py_NewRef(if task.is_null() { ffi::Py_None() } else { task })
    }
}

static ATTRIBUTES: Table<[ffi::PyGetSetDef; 2]> = Table::new([
    attribute(c"__self__", get_self, None, c"The task that waits, or None."),
    last_attribute(),
]);

unsafe extern "C" fn tp_dealloc(this: *mut PyObject) {
    // SAFETY: the last reference is gone, so nobody waits.
    unsafe {
        let waker: *mut WakerObject = this.cast();
        ManuallyDrop::drop(&mut (*waker).wait);
        Driver::release((*waker).driver);
        ffi::PyObject_Free(this.cast());
    }
}

unsafe extern "C" fn tp_repr(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; formats without arguments, or with the task's name.
    unsafe {
        let waker: *mut WakerObject = this.cast();
        if (*waker).kind == Kind::TakeOver {
            return ffi::PyUnicode_FromString(c"<fiberback: drive the loop>".as_ptr());
        }
        if (*waker).parked.is_null() {
            return ffi::PyUnicode_FromString(c"<fiberback: resumed>".as_ptr());
        }
        let task = (*(*waker).parked).task;
        let task = if task.is_null() { ffi::Py_None() } else { task };
        let name = names::attribute(task, names::GET_NAME.get());
        let name = if name.is_null() {
            ffi::PyObject_Repr(task)
        } else {
            let got = ffi::PyObject_CallNoArgs(name);
            ffi::Py_DECREF(name);
            got
        };
        if name.is_null() {
            return name;
        }
        let text = ffi::PyUnicode_FromFormat(c"<fiberback: resume %S>".as_ptr(), name);
        ffi::Py_DECREF(name);
        text
    }
}

/// Readies the type. False with an error set on failure.
///
/// # Safety
///
/// Attached; called once.
pub(super) unsafe fn init(_module: *mut PyObject) -> bool {
    let class = TYPE.get();
    // SAFETY: zeroed memory is a valid type object to fill in, not in use yet.
    unsafe {
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"fiberback._fiberback.Waker".as_ptr();
        (*class).tp_basicsize = size_of::<WakerObject>() as ffi::Py_ssize_t;
        set_flags(class, ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION);
        (*class).tp_doc = c"Ends the wait of a parked stack.".as_ptr();
        (*class).tp_call = Some(tp_call);
        (*class).tp_dealloc = Some(tp_dealloc);
        (*class).tp_repr = Some(tp_repr);
        (*class).tp_getset = ATTRIBUTES.get().cast();
        ffi::PyType_Ready(class) == 0
    }
}
