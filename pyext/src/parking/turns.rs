//! A loop's callbacks, run one by one, as stock `_run_once` runs them.

use super::driver::{self, Asked, Driver, Host, Next, Parked, ready_count};
use super::hooks;
use crate::interp::frames::Place;
use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::time::Instant;

/// A callback in progress. In the native frame that runs it.
pub(crate) struct Turn {
    handle: *mut PyObject,
    /// Seconds that it was parked, in debug mode.
    parked: f64,
}

/// Seconds that a caller in the way of the loop's end has before it is cancelled, and before it is
/// cancelled again.
const GRACE: f64 = 0.5;
const PATIENCE: f64 = 5.0;

/// Runs callbacks until another stack is to go on. The body of a runner.
///
/// # Safety
///
/// Attached, on a runner of the driver, which is in use.
pub(super) unsafe fn drive(driver: *mut c_void) {
    let driver: *mut Driver = driver.cast();
    // SAFETY: the contract.
    unsafe {
        loop {
            // Not the `while`'s condition: clippy does not see that the calls below may set it.
            if (*driver).closing {
                break;
            }
            let go_on = if (*driver).batch > 0 { one(driver) } else { look(driver) };
            if !go_on {
                break;
            }
        }
        (*driver).turn = ptr::null_mut();
        if matches!((*driver).next, Next::Same) {
            (*driver).next = Next::Host;
        }
    }
}

/// Between two batches of callbacks: what does the loop want? False if it is the host's turn.
unsafe fn look(driver: *mut Driver) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        let stopping = Driver::is_stopping(driver);
        let mut limit = if stopping { Some(0.0) } else { None };
        if !stopping {
            (*driver).end_asked = None;
        }
        match (*driver).host {
            Host::Idles => {
                let wanted =
                    if (*driver).hosted { (*driver).unhosted } else { (*driver).parked == 0 };
                if stopping || wanted {
                    return false;
                }
            }
            Host::Waits(parked) if stopping => {
                // Only the host can end the loop, and a caller is in its way.
                match end_wait(driver, parked) {
                    Some(seconds) => limit = Some(seconds),
                    None => return raise_on_host(driver),
                }
            }
            Host::Waits(_) | Host::Runs => {}
        }
        let limit = match limit {
            None => ffi::Py_NewRef(ffi::Py_None()),
            Some(seconds) => ffi::PyFloat_FromDouble(seconds),
        };
        let done = hooks::POLL.call(&[(*driver).event_loop, limit]);
        ffi::Py_XDECREF(limit);
        if done.is_null() {
            return raise_on_host(driver);
        }
        ffi::Py_DECREF(done);
        (*driver).batch = ready_count(driver);
        true
    }
}

/// Sees to it that the caller that is parked on the host comes to an end. Returns for how many
/// seconds there is nothing more to do about it; `None` with an error set.
unsafe fn end_wait(driver: *mut Driver, parked: *mut Parked) -> Option<f64> {
    // SAFETY: attached, no error set; the caller waits.
    unsafe {
        let handle = (*driver).host_handle;
        let asked = (*driver).end_asked.take_if(|asked| asked.handle == handle);
        let (is_over, left) = match &asked {
            None => (false, 0.0),
            Some(asked) => {
                let time = if asked.cancelled { PATIENCE } else { GRACE };
                let left = time - asked.since.elapsed().as_secs_f64();
                (true, left)
            }
        };
        if left > 0.0 {
            (*driver).end_asked = asked;
            return Some(left);
        }
        let or_none =
            |object: *mut PyObject| if object.is_null() { ffi::Py_None() } else { object };
        let answer = hooks::END_WAIT.call(&[
            (*driver).event_loop,
            or_none((*parked).task),
            or_none((*parked).future),
            if is_over { ffi::Py_True() } else { ffi::Py_False() },
        ]);
        if answer.is_null() {
            return None;
        }
        let cancelled = answer == ffi::Py_True();
        ffi::Py_DECREF(answer);
        (*driver).end_asked = Some(Asked { handle, since: Instant::now(), cancelled });
        // Cancelled, it may be ready to go on.
        Some(if cancelled { 0.0 } else { GRACE })
    }
}

/// The error that is set is one that the loop's caller must see. Always false.
unsafe fn raise_on_host(driver: *mut Driver) -> bool {
    // SAFETY: attached, an error is set.
    unsafe {
        let exception = error::take();
        if let Host::Waits(parked) = (*driver).host {
            let before = std::mem::replace(&mut (*parked).exception, exception);
            ffi::Py_XDECREF(before);
        } else {
            let before = std::mem::replace(&mut (*driver).host_exception, exception);
            ffi::Py_XDECREF(before);
        }
        (*driver).next = Next::Host;
        false
    }
}

/// Runs the next callback. False if another stack is to go on.
unsafe fn one(driver: *mut Driver) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        (*driver).batch -= 1;
        if ready_count(driver) == 0 {
            (*driver).batch = 0;
            return true;
        }
        let handle = names::call_none((*driver).ready, names::POPLEFT.get());
        if handle.is_null() {
            return raise_on_host(driver);
        }
        let cancelled = ffi::PyObject_GetAttr(handle, names::CANCELLED_FLAG.get());
        let skip = !cancelled.is_null() && ffi::PyObject_IsTrue(cancelled) == 1;
        ffi::Py_XDECREF(cancelled);
        ffi::PyErr_Clear();
        if skip {
            ffi::Py_DECREF(handle);
            return true;
        }
        let mut turn = Turn { handle, parked: 0.0 };
        (*driver).turn = &raw mut turn;
        let done = if Driver::is_debug(driver) {
            run_timed(driver, &raw mut turn)
        } else {
            names::call_none(handle, names::RUN.get())
        };
        let go_on = if done.is_null() {
            raise_on_host(driver)
        } else {
            ffi::Py_DECREF(done);
            true
        };
        ffi::Py_DECREF(handle);
        (*driver).turn = ptr::null_mut();
        go_on && matches!((*driver).next, Next::Same)
    }
}

/// `handle._run()` as debug mode has it: known as the current one, and timed.
unsafe fn run_timed(driver: *mut Driver, turn: *mut Turn) -> *mut PyObject {
    // SAFETY: attached; the turn is in our caller's frame.
    unsafe {
        let handle = (*turn).handle;
        set_current_handle(driver, handle);
        let started = now(driver);
        let done = names::call_none(handle, names::RUN.get());
        let pending = error::take();
        let seconds = now(driver) - started - (*turn).parked;
        set_current_handle(driver, ptr::null_mut());
        if !pending.is_null() {
            error::restore(pending);
            return done;
        }
        let seconds = ffi::PyFloat_FromDouble(seconds);
        let told = hooks::SLOW.call(&[(*driver).event_loop, handle, seconds]);
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
unsafe fn now(driver: *mut Driver) -> f64 {
    // SAFETY: attached, no error set.
    unsafe {
        let time = names::call_none((*driver).event_loop, names::TIME.get());
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

unsafe fn set_current_handle(driver: *mut Driver, handle: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        let handle = if handle.is_null() { ffi::Py_None() } else { handle };
        if ffi::PyObject_SetAttr((*driver).event_loop, names::CURRENT_HANDLE.get(), handle) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// Debug mode: the callback that runs now is left. Returns the time.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn begin_break(driver: *mut Driver) -> f64 {
    // SAFETY: the contract.
    unsafe {
        set_current_handle(driver, ptr::null_mut());
        now(driver)
    }
}

/// Debug mode: the callback of this turn goes on.
///
/// # Safety
///
/// Attached, no error set; the turn's frame must be alive.
pub(super) unsafe fn end_break(driver: *mut Driver, turn: *mut Turn, started: f64) {
    // SAFETY: the contract.
    unsafe {
        if !turn.is_null() {
            set_current_handle(driver, (*turn).handle);
            (*turn).parked += now(driver) - started;
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
    driver: *mut Driver,
    place: &Place,
    handle: *mut PyObject,
    started: f64,
) {
    // SAFETY: the contract.
    unsafe {
        set_current_handle(driver, handle);
        let index = hooks::locals().started;
        let began = place.local(index);
        if began.is_null() || ffi::PyFloat_CheckExact(began) == 0 {
            return;
        }
        let began = ffi::PyFloat_AsDouble(began) + now(driver) - started;
        let began = ffi::PyFloat_FromDouble(began);
        if began.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        place.replace_local(index, began);
    }
}

/// `_fiberback.run_hosted(loop)`: a loop's `_run_once` that runs everything on runners.
pub(crate) unsafe extern "C" fn run_hosted(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let driver = Driver::of(event_loop);
            if driver.is_null() {
                return ptr::null_mut();
            }
            let done = driver::host(driver);
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
    error::barrier(ptr::null_mut(), || {
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
