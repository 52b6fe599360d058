//! The callback that ends a wait, as a Python object: what futures and handles call.

use super::driver::{self, Driver, Parked};
use crate::{error, fallbacks, names};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;

/// What calling it does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
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
    driver: *mut Driver,
    /// `wait`, as long as the caller waits; null once it has been woken, or waits no more.
    pub(super) parked: *mut Parked,
    kind: Kind,
    wait: ManuallyDrop<Parked>,
}

struct Type(UnsafeCell<MaybeUninit<PyTypeObject>>);

// SAFETY: written by `init` before anything can use it, then only by the interpreter.
unsafe impl Sync for Type {}

static TYPE: Type = Type(UnsafeCell::new(MaybeUninit::zeroed()));

/// A waker for a caller that is about to wait for `future` (or null) on behalf of `task` (or null); null
/// with an error set.
///
/// # Safety
///
/// Attached; the driver is this thread's. The caller keeps the waker, the task and the future as long as
/// it waits, and then sets `parked` to null.
pub(super) unsafe fn for_wait(
    driver: *mut Driver,
    task: *mut PyObject,
    future: *mut PyObject,
) -> *mut WakerObject {
    // SAFETY: the contract.
    unsafe {
        let waker = new(driver, Parked::new(driver, task, future), Kind::Wake);
        if !waker.is_null() {
            (*waker).parked = (&raw mut (*waker).wait).cast();
        }
        waker
    }
}

/// A callback that lets a runner drive; null with an error set.
///
/// # Safety
///
/// Attached; the driver is this thread's.
pub(super) unsafe fn for_take_over(driver: *mut Driver) -> *mut PyObject {
    let nobody = Parked::new(driver, ptr::null_mut(), ptr::null_mut());
    // SAFETY: the contract.
    unsafe { new(driver, nobody, Kind::TakeOver).cast() }
}

unsafe fn new(driver: *mut Driver, wait: Parked, kind: Kind) -> *mut WakerObject {
    // SAFETY: the type is ready; fresh memory is filled in.
    unsafe {
        let waker: *mut WakerObject = ffi::PyObject_New(TYPE.0.get().cast());
        if !waker.is_null() {
            (*waker).driver = driver;
            (*waker).parked = ptr::null_mut();
            (*waker).kind = kind;
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
    error::barrier(ptr::null_mut(), || {
        let waker: *mut WakerObject = this.cast();
        // SAFETY: attached; the caller holds a reference to the waker, which holds the driver.
        unsafe {
            let driver = (*waker).driver;
            if !Driver::is_ours(driver) {
                error::set_runtime(error::PARKED_ELSEWHERE);
                return ptr::null_mut();
            }
            if !(*waker).parked.is_null() {
                driver::prefetch((*waker).parked);
                take_failure((*waker).parked, arguments);
            }
            let done = match (*waker).kind {
                Kind::TakeOver => driver::take_over(driver),
                Kind::Wake if (*waker).parked.is_null() => true,
                Kind::Wake if !note_outcome((*waker).parked, arguments) => false,
                Kind::Wake => match driver::wake(driver, (*waker).parked) {
                    driver::Wake::Done => {
                        (*waker).parked = ptr::null_mut();
                        true
                    }
                    driver::Wake::Later => {
                        fallbacks::WAKE_PUT_OFF.note();
                        driver::call_later(driver, this)
                    }
                    driver::Wake::Switch(first) => {
                        (*waker).parked = ptr::null_mut();
                        driver::idle(driver, first)
                    }
                },
            };
            if done { ffi::Py_NewRef(ffi::Py_None()) } else { ptr::null_mut() }
        }
    })
}

/// As a task's `__wakeup` raises what the future that it is called with failed with, be it the one
/// that it waits for or not, so will the caller.
unsafe fn take_failure(parked: *mut Parked, arguments: *mut PyObject) {
    // SAFETY: attached; a tuple; the caller waits.
    unsafe {
        if ffi::PyTuple_Size(arguments) != 1 {
            ffi::PyErr_Clear();
            return;
        }
        let future = ffi::PyTuple_GetItem(arguments, 0);
        if future == (*parked).future {
            return;
        }
        let result = names::call_none(future, names::RESULT.get());
        if result.is_null() {
            let before = std::mem::replace(&mut (*parked).exception, error::take());
            ffi::Py_XDECREF(before);
        }
        ffi::Py_XDECREF(result);
    }
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

struct Attributes(UnsafeCell<[ffi::PyGetSetDef; 2]>);

// SAFETY: only the interpreter reads it.
unsafe impl Sync for Attributes {}

static ATTRIBUTES: Attributes = Attributes(UnsafeCell::new([
    ffi::PyGetSetDef {
        name: c"__self__".as_ptr(),
        get: Some(get_self),
        set: None,
        doc: c"The task that waits, or None.".as_ptr(),
        closure: ptr::null_mut(),
    },
    ffi::PyGetSetDef {
        name: ptr::null(),
        get: None,
        set: None,
        doc: ptr::null(),
        closure: ptr::null_mut(),
    },
]));

/// Notes which future is done: usually, but not always, the one that the caller waits for. False
/// with an error set.
unsafe fn note_outcome(parked: *mut Parked, arguments: *mut PyObject) -> bool {
    // SAFETY: attached; a tuple; the waiting caller's frame is alive.
    unsafe {
        if ffi::PyTuple_Size(arguments) > 0 {
            let future = ffi::Py_NewRef(ffi::PyTuple_GetItem(arguments, 0));
            let before = std::mem::replace(&mut (*parked).outcome, future);
            ffi::Py_XDECREF(before);
        }
        ffi::PyErr_Occurred().is_null()
    }
}

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
    let class: *mut PyTypeObject = TYPE.0.get().cast();
    // SAFETY: zeroed memory is a valid type object to fill in, not in use yet.
    unsafe {
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"fiberback._fiberback.Waker".as_ptr();
        (*class).tp_basicsize = size_of::<WakerObject>() as ffi::Py_ssize_t;
        (*class).tp_flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        (*class).tp_doc = c"Ends the wait of a parked stack.".as_ptr();
        (*class).tp_call = Some(tp_call);
        (*class).tp_dealloc = Some(tp_dealloc);
        (*class).tp_repr = Some(tp_repr);
        (*class).tp_getset = ATTRIBUTES.0.get().cast();
        ffi::PyType_Ready(class) == 0
    }
}
