//! The end of callers that outlive a run of their loop.

use super::change::switch_from_host;
use super::driver::{self, Driver, Host, Next};
use super::hooks;
use crate::barrier::barrier;
use crate::current_loop::running_loop;
use crate::interp::frames::Place;
use crate::{error, interp, worker};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// Times that a caller that goes on waiting is told to end.
const MOST_EXITS: usize = 100;

/// Ends all callers that this thread has parked on runners: CancelledError is raised in them. Returns
/// how many have ended.
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn close_all() -> usize {
    let mut closed = 0;
    let mut driver = driver::first();
    // SAFETY: this thread's list; a driver with parked callers stays in it. It is held while it is
    // at work, and the list is read anew after.
    unsafe {
        while !driver.is_null() {
            if (*driver).parked > 0 && Driver::is_ours(driver) && !Driver::is_driven(driver) {
                Driver::hold(driver);
                closed += close(driver);
                let others = (*driver).others;
                Driver::release(driver);
                driver = others;
            } else {
                driver = (*driver).others;
            }
        }
    }
    closed
}

/// `_fiberback.parked_on(loop)`: of each caller that this thread has parked on a fiber of its own, the
/// task and what it waits for, or None for what there is not.
pub(crate) unsafe extern "C" fn parked_on(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent. The callers' frames hold their tasks and futures, and nothing runs
        // while they are looked through. What is found is owned by the pairs, or dropped.
        unsafe {
            let or_none =
                |object: *mut PyObject| if object.is_null() { ffi::Py_None() } else { object };
            let mut found = Vec::new();
            let driver = driver::existing(event_loop);
            if !driver.is_null() {
                let mut parked = (*driver).first;
                while !parked.is_null() {
                    found.push(
                        [(*parked).task, (*parked).future].map(|o| ffi::Py_NewRef(or_none(o))),
                    );
                    parked = (*parked).after;
                }
                Driver::release(driver);
            }
            let mut list = ffi::PyList_New(0);
            for [task, future] in found {
                let pair = if list.is_null() { list } else { ffi::PyTuple_Pack(2, task, future) };
                if !list.is_null() && (pair.is_null() || ffi::PyList_Append(list, pair) < 0) {
                    ffi::Py_CLEAR(&raw mut list);
                }
                ffi::Py_XDECREF(pair);
                ffi::Py_DECREF(task);
                ffi::Py_DECREF(future);
            }
            list
        }
    })
}

/// `_fiberback.close_parked(loop)`: raises CancelledError in the callers that `parked_on` tells of.
/// Returns how many have ended.
pub(crate) unsafe extern "C" fn close_parked(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, no error set; lent.
        unsafe {
            if let Some(message) = interp::refusal(ffi::PyThreadState_Get()) {
                error::set_runtime(message);
                return ptr::null_mut();
            }
            let driver = driver::existing(event_loop);
            let mut closed = 0;
            if !driver.is_null() {
                if (*driver).parked > 0 && !Driver::is_driven(driver) {
                    closed = close(driver);
                }
                Driver::release(driver);
            }
            ffi::PyLong_FromSize_t(closed)
        }
    })
}

unsafe fn close(driver: *mut Driver) -> usize {
    // SAFETY: attached, on a stack that is no runner of this driver; its callers wait.
    unsafe {
        let count = (*driver).parked;
        let running = running_loop();
        set_running_loop((*driver).event_loop);
        (*driver).closing = true;
        for _ in 0..count.saturating_mul(2).saturating_add(MOST_EXITS) {
            let parked = (*driver).first;
            if parked.is_null() {
                break;
            }
            let exception = ffi::PyObject_CallNoArgs(hooks::CANCELLED_ERROR.get());
            if exception.is_null() {
                ffi::PyErr_Clear();
                break;
            }
            (*parked).exception = exception;
            let ts = ffi::PyThreadState_Get();
            let place = Place::current(ts);
            (*driver).batch = 0;
            (*driver).host_worker = worker::current();
            (*driver).host = Host::Idles;
            switch_from_host(driver, ts, &place, Next::Parked(parked));
            (*driver).host = Host::Runs;
            let raised = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
            if !raised.is_null() {
                error::restore(raised);
                ffi::PyErr_WriteUnraisable((*driver).event_loop);
            }
        }
        (*driver).closing = false;
        if running.is_null() {
            ffi::PyErr_Clear();
        } else {
            set_running_loop(running);
            ffi::Py_DECREF(running);
        }
        count.saturating_sub((*driver).parked)
    }
}

unsafe fn set_running_loop(event_loop: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        let done = hooks::SET_RUNNING_LOOP.call(&[event_loop]);
        if done.is_null() {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(done);
    }
}
