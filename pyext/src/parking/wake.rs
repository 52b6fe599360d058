//! The end of a wait: what the callback of a parked caller's future does.

use super::change::idle;
use super::driver::{Driver, Host, Next, Parked};
use super::fetch::prefetch;
use super::hooks;
use super::waker::{self, Kind, WakerObject};
use crate::{error, fallbacks, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;

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
        let waker = waker::new(driver, Parked::new(driver, task, future), Kind::Wake, call);
        if !waker.is_null() {
            (*waker).parked = WakerObject::wait(waker);
        }
        waker
    }
}

/// What calling the waker does. False with an error set.
unsafe fn call(waker: *mut WakerObject, arguments: *mut PyObject) -> bool {
    // SAFETY: attached; whoever calls it holds a reference to the waker, which holds the driver.
    unsafe {
        if (*waker).parked.is_null() {
            return true;
        }
        prefetch((*waker).parked);
        take_failure((*waker).parked, arguments);
        // That can run any code.
        if (*waker).parked.is_null() {
            return true;
        }
        if !note_outcome((*waker).parked, arguments) {
            return false;
        }
        let driver = (*waker).driver;
        match wake(driver, (*waker).parked) {
            Wake::Done => {
                (*waker).parked = ptr::null_mut();
                true
            }
            Wake::Later => {
                fallbacks::WAKE_PUT_OFF.note();
                call_later(driver, waker.cast())
            }
            Wake::Switch(first) => {
                (*waker).parked = ptr::null_mut();
                idle(driver, first)
            }
        }
    }
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

/// What has to happen for a caller to go on whose wait has ended.
enum Wake {
    /// Nothing more: whoever drives will see to it.
    Done,
    /// Try again.
    Later,
    /// The host, on which we are, gives way.
    Switch(Next),
}

/// The wait of `parked` has ended.
///
/// # Safety
///
/// Attached, on the driver's thread; the caller waits.
unsafe fn wake(driver: *mut Driver, parked: *mut Parked) -> Wake {
    // SAFETY: attached; the caller's frame is alive as long as it waits.
    unsafe {
        let is_taken = !matches!((*driver).next, Next::Same);
        if is_taken || !(*parked).contexts.are_free() {
            return Wake::Later;
        }
        let worker = (*parked).worker;
        match (*driver).host {
            Host::Waits(host) if ptr::eq(host, parked) => {
                (*driver).next = Next::Host;
                Wake::Done
            }
            _ if worker.is_null() => Wake::Later,
            Host::Runs => Wake::Switch(Next::Parked(parked)),
            _ => {
                (*driver).next = Next::Parked(parked);
                Wake::Done
            }
        }
    }
}

/// Calls `waker` again, after a while. False with an error set.
///
/// # Safety
///
/// Attached.
unsafe fn call_later(driver: *mut Driver, waker: *mut PyObject) -> bool {
    // SAFETY: attached; one keyword argument.
    unsafe {
        let seconds = ffi::PyFloat_FromDouble(0.001);
        let names = hooks::context_alone();
        if seconds.is_null() || names.is_null() {
            ffi::Py_XDECREF(seconds);
            return false;
        }
        let arguments = [(*driver).event_loop, seconds, waker, (*driver).context];
        let handle =
            ffi::PyObject_VectorcallMethod(names::CALL_LATER.get(), arguments.as_ptr(), 3, names);
        ffi::Py_DECREF(seconds);
        ffi::Py_XDECREF(handle);
        !handle.is_null()
    }
}
