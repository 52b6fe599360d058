//! A loop that runs all its callbacks on runners, from the beginning: its host runs nothing else.

use super::change::switch_from_host;
use super::driver::{Driver, Host, Next};
use crate::barrier::barrier;
use crate::error;
use crate::interp::frames::Place;
use crate::thread::Thread;
use crate::worker;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.run_hosted(loop)`: a loop's `_run_once` that runs everything on runners.
pub(crate) unsafe extern "C" fn run_hosted(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let driver = Driver::of(event_loop);
            if driver.is_null() {
                return ptr::null_mut();
            }
            let done = host(driver);
            Driver::release(driver);
            if done { ffi::Py_NewRef(ffi::Py_None()) } else { ptr::null_mut() }
        }
    })
}

/// `_fiberback.end_hosted(loop)`: `run_hosted` is to return as soon as it can.
pub(crate) unsafe extern "C" fn end_hosted(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let driver = Driver::of(event_loop);
            if driver.is_null() {
                return ptr::null_mut();
            }
            (*driver).unhosted = true;
            Driver::release(driver);
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// The host runs nothing but runners: for a loop whose `_run_once` we are. Comes back when the loop
/// is to stop. False with an error set.
///
/// # Safety
///
/// Attached, no error set.
unsafe fn host(driver: *mut Driver) -> bool {
    // SAFETY: attached.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        let worker = Thread::take_worker();
        if worker.is_null() {
            return false;
        }
        let place = Place::current(ts);
        (*driver).host_worker = worker::current();
        (*driver).batch = 0;
        (*driver).hosted = true;
        (*driver).unhosted = false;
        (*driver).host = Host::Idles;
        switch_from_host(driver, ts, &place, Next::Fresh(worker));
        (*driver).host = Host::Runs;
        (*driver).hosted = false;
        let exception = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
        if !exception.is_null() {
            error::restore(exception);
            return false;
        }
        true
    }
}
