//! Whether a caller can park: what drives its loop below it.

use super::driver::{Driver, here};
use super::hooks;
use crate::interp::contexts;
use crate::interp::frames::Place;
use crate::interp::tracing;
use crate::worker::{self, Worker};
use crate::{error, greenlet, messages, names};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;

/// What drives the loop below a caller that can park. As true as long as the caller has not returned.
pub(super) enum Below {
    Runner,
    Loop(Stock),
}

/// The stock `_run_once` in the middle of a callback.
pub(super) struct Stock {
    pub(super) place: Place,
    /// Borrowed from the frame.
    pub(super) handle: *mut PyObject,
    /// What was current before the callback's context.
    pub(super) base: *mut PyObject,
    /// Handles that it will take from `_ready` after this one.
    pub(super) wants: isize,
}

/// Whether a caller can park now, and below what: the stock loop is below it on this stack, in a
/// callback, or a runner is. `None` with an error set if it cannot.
///
/// # Safety
///
/// Attached, no error set.
#[inline]
pub(super) unsafe fn can_park(driver: *mut Driver, ts: *mut PyThreadState) -> Option<Below> {
    // SAFETY: attached.
    unsafe {
        if ptr::eq((*driver).changing, here()) {
            error::set_runtime(messages::NOT_IN_A_CALLBACK);
            return None;
        }
        if Driver::is_driven(driver) {
            let worker = runner(driver);
            if worker.is_null() {
                set_no_callback(driver, ts);
                return None;
            }
            return may_wait_in_tracer(ts, Worker::host_tracing(worker)).then_some(Below::Runner);
        }
        match stock(driver, ts) {
            Some(stock) => {
                (*driver).host_worker = Worker::stack_of(ts, &stock.place);
                let may = tracing::depth(ts) == 0
                    || may_wait_in_tracer(ts, tracing::depth_at(ts, &stock.place));
                may.then_some(Below::Loop(stock))
            }
            None => {
                set_no_callback(driver, ts);
                None
            }
        }
    }
}

/// Whether the stock loop is below this code, in the greenlet that this code is in.
///
/// # Safety
///
/// Attached, no error set.
#[inline]
pub(super) unsafe fn is_here(driver: *mut Driver, ts: *mut PyThreadState) -> bool {
    // SAFETY: passed on.
    unsafe { stock(driver, ts).is_some() }
}

/// The stock `_run_once` of the driver's loop on the running stack, if it is in a callback.
///
/// # Safety
///
/// Attached, no error set; in use.
#[inline]
pub(super) unsafe fn stock(driver: *mut Driver, ts: *mut PyThreadState) -> Option<Stock> {
    // SAFETY: the contract. The frame waits in a call, so that its local variables stay as they are.
    unsafe {
        let place = Place::find(ts, hooks::RUN_ONCE.get(), (*driver).event_loop)?;
        let locals = hooks::locals();
        let handle = place.local(locals.handle);
        if handle.is_null() || handle == ffi::Py_None() {
            return None;
        }
        let wants = place.integer(locals.count)? - place.integer(locals.index)? - 1;
        let context = names::attribute(handle, names::CONTEXT_FIELD.get());
        ffi::PyErr_Clear();
        if context.is_null() {
            return None;
        }
        // The handle keeps it alive.
        ffi::Py_DECREF(context);
        contexts::is_entered(ts, context).then(|| Stock {
            base: contexts::below(context),
            place,
            handle,
            wants: wants.max(0),
        })
    }
}

/// The driver's runner that this code is on, or that has resumed what it is on; null if it is on none.
///
/// # Safety
///
/// In use.
#[inline]
pub(super) unsafe fn runner(driver: *mut Driver) -> *mut Worker {
    // SAFETY: workers that are current, and those further out, run.
    unsafe {
        let mut worker = worker::current();
        while !worker.is_null() && !is_runner_of(worker, driver) {
            worker = Worker::outer(worker);
        }
        worker
    }
}

/// Whether the worker drives this loop.
///
/// # Safety
///
/// The worker must be running.
#[inline(always)]
pub(super) unsafe fn is_runner_of(worker: *mut Worker, driver: *mut Driver) -> bool {
    // SAFETY: the contract.
    unsafe { ptr::eq((*worker).runs, driver.cast()) }
}

/// Sets the error for a caller that is in no callback of the loop: either the loop itself has been
/// interrupted here, or it runs in another greenlet.
unsafe fn set_no_callback(driver: *mut Driver, ts: *mut PyThreadState) {
    // SAFETY: attached, no error set.
    unsafe {
        let elsewhere = greenlet::is_loaded()
            && Place::find(ts, hooks::RUN_ONCE.get(), (*driver).event_loop).is_none();
        if elsewhere {
            error::set_foreign_greenlet();
        } else {
            error::set_runtime(messages::NOT_IN_A_CALLBACK);
        }
    }
}

/// Whether code in more than `below` trace functions may park: only at a debugger's prompt. Any other trace
/// function is also called for the loop's own code, so that each of its waits would begin more of them.
/// False with an error set.
///
/// # Safety
///
/// `ts` must be the attached thread state, with no error set.
#[inline]
unsafe fn may_wait_in_tracer(ts: *mut PyThreadState, below: i32) -> bool {
    // SAFETY: passed on.
    unsafe {
        let may = tracing::depth(ts) <= below || tracing::is_at_prompt(ts);
        if !may {
            error::set_runtime(messages::IN_A_TRACER);
        }
        may
    }
}
