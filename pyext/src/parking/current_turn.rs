//! Which callback a runner runs now.
//!
//! The frame of `Handle._run`, which tells callbacks of the stock loop apart, is not on a runner (see `handle.rs`).

use super::below::runner;
use super::driver::{Driver, all, existing};
use super::turn::Turn;
use crate::barrier::barrier;
use crate::current_loop::running_loop;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.current_turn()`.
pub(crate) unsafe extern "C" fn current_turn(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, no error set; owned references are dropped or handed on. The code that asks is above
        // the turn's native frame, on the runner that runs it or on what that has resumed.
        unsafe {
            let event_loop = running_loop();
            if event_loop.is_null() {
                return event_loop;
            }
            let driver = existing(event_loop);
            ffi::Py_DECREF(event_loop);
            if driver.is_null() {
                return ffi::Py_NewRef(ffi::Py_None());
            }
            let turn = (*driver).turn;
            let token = if turn.is_null() || runner(driver).is_null() {
                ffi::Py_NewRef(ffi::Py_None())
            } else {
                Turn::token(turn)
            };
            Driver::release(driver);
            token
        }
    })
}

/// `_fiberback.is_in_turn(loop)`.
pub(crate) unsafe extern "C" fn is_in_turn(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; drivers stand still meanwhile. Neither the loop nor the turn, which may be another
        // thread's, is looked into.
        unsafe {
            let runs = |driver: *mut Driver| {
                (*driver).event_loop == event_loop && !(*driver).turn.is_null()
            };
            let answer = if all().any(runs) { ffi::Py_True() } else { ffi::Py_False() };
            ffi::Py_NewRef(answer)
        }
    })
}
