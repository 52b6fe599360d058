//! A callback in progress: who asks can tell it from all others; in debug mode it is known as the current one,
//! and timed.

use super::hooks;
use crate::interp::frames::Place;
use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// A callback in progress. In the native frame that runs it.
pub(super) struct Turn {
    pub(super) handle: *mut PyObject,
    /// Seconds that it was parked, in debug mode.
    pub(super) parked: f64,
    /// What stands for it in Python code, once somebody has asked; owned, or null. A handle would not do: that of
    /// a reader or a signal is called again and again, also while an earlier call of it is parked.
    token: *mut PyObject,
}

impl Turn {
    /// Of a handle that its caller keeps.
    pub(super) fn new(handle: *mut PyObject) -> Self {
        Self { handle, parked: 0.0, token: ptr::null_mut() }
    }

    /// The object that stands for the turn, as a new reference; null with an error set.
    ///
    /// # Safety
    ///
    /// Attached, no error set, in this very turn.
    pub(super) unsafe fn token(turn: *mut Self) -> *mut PyObject {
        // SAFETY: the contract: code above the turn's native frame cannot see it end.
        unsafe {
            if (*turn).token.is_null() {
                let token = hooks::TURN.call(&[]);
                // A finalizer may have run meanwhile, and asked.
                if (*turn).token.is_null() {
                    (*turn).token = token;
                } else {
                    ffi::PyErr_Clear();
                    ffi::Py_XDECREF(token);
                }
            }
            ffi::Py_XNewRef((*turn).token)
        }
    }

    /// The callback has returned.
    ///
    /// # Safety
    ///
    /// Attached, no error set; nobody's current turn any more.
    #[inline]
    pub(super) unsafe fn end(self) {
        if !self.token.is_null() {
            // SAFETY: passed on; owned.
            unsafe {
                let done = ffi::PyObject_SetAttr(self.token, names::IS_OVER.get(), ffi::Py_True());
                if done < 0 {
                    ffi::PyErr_WriteUnraisable(self.token);
                }
                ffi::Py_DECREF(self.token);
            }
        }
    }
}

/// `handle._run()` as debug mode has it: known as the current one, and timed.
///
/// # Safety
///
/// Attached, no error set; the turn is in our caller's frame.
pub(super) unsafe fn run_timed(event_loop: *mut PyObject, turn: *mut Turn) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let handle = (*turn).handle;
        set_current_handle(event_loop, handle);
        let started = now(event_loop);
        let done = names::call_none(handle, names::RUN.get());
        let pending = error::take();
        let seconds = now(event_loop) - started - (*turn).parked;
        set_current_handle(event_loop, ptr::null_mut());
        if !pending.is_null() {
            error::restore(pending);
            return done;
        }
        let seconds = ffi::PyFloat_FromDouble(seconds);
        let told = hooks::SLOW.call(&[event_loop, handle, seconds]);
        ffi::Py_XDECREF(seconds);
        if told.is_null() {
            ffi::Py_XDECREF(done);
            return told;
        }
        ffi::Py_DECREF(told);
        done
    }
}

/// The loop's time; 0 if it does not tell.
unsafe fn now(event_loop: *mut PyObject) -> f64 {
    // SAFETY: attached, no error set.
    unsafe {
        let time = names::call_none(event_loop, names::TIME.get());
        if time.is_null() {
            ffi::PyErr_Clear();
            return 0.0;
        }
        let seconds = ffi::PyFloat_AsDouble(time);
        ffi::Py_DECREF(time);
        ffi::PyErr_Clear();
        seconds
    }
}

unsafe fn set_current_handle(event_loop: *mut PyObject, handle: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        let handle = if handle.is_null() { ffi::Py_None() } else { handle };
        if ffi::PyObject_SetAttr(event_loop, names::CURRENT_HANDLE.get(), handle) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// Debug mode: the callback that runs now is left. Returns the time.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn begin_break(event_loop: *mut PyObject) -> f64 {
    // SAFETY: the contract.
    unsafe {
        set_current_handle(event_loop, ptr::null_mut());
        now(event_loop)
    }
}

/// Debug mode: the callback of this turn goes on.
///
/// # Safety
///
/// Attached, no error set; the turn's frame must be alive.
pub(super) unsafe fn end_break(event_loop: *mut PyObject, turn: *mut Turn, started: f64) {
    // SAFETY: the contract.
    unsafe {
        if !turn.is_null() {
            set_current_handle(event_loop, (*turn).handle);
            (*turn).parked += now(event_loop) - started;
        }
    }
}

/// Debug mode: the callback of stock `_run_once` goes on. The time that it was away is added to the
/// time at which it began, so that it does not count as the callback's own.
///
/// # Safety
///
/// Attached, no error set; `place` must be the frame of `_run_once`, waiting in a call.
pub(super) unsafe fn end_stock_break(
    event_loop: *mut PyObject,
    place: &Place,
    handle: *mut PyObject,
    started: f64,
) {
    // SAFETY: the contract.
    unsafe {
        set_current_handle(event_loop, handle);
        let index = hooks::locals().started;
        let began = place.local(index);
        if began.is_null() || ffi::PyFloat_CheckExact(began) == 0 {
            return;
        }
        let began = ffi::PyFloat_AsDouble(began) + now(event_loop) - started;
        let began = ffi::PyFloat_FromDouble(began);
        if began.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        place.replace_local(index, began);
    }
}
