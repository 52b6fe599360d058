//! A loop's callbacks, run one by one, as stock `_run_once` runs them.

use super::driver::{Asked, Driver, Host, Next, Parked, ready_count};
use super::handle;
use super::hooks;
use super::turn::{Turn, run_timed};
use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::time::Instant;

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
        let mut turn = Turn::new(handle);
        (*driver).turn = &raw mut turn;
        let is_done = if Driver::is_debug(driver) {
            let done = run_timed((*driver).event_loop, &raw mut turn);
            ffi::Py_XDECREF(done);
            !done.is_null()
        } else {
            handle::run(ffi::PyThreadState_Get(), handle)
        };
        let go_on = is_done || raise_on_host(driver);
        (*driver).turn = ptr::null_mut();
        turn.end();
        ffi::Py_DECREF(handle);
        go_on && matches!((*driver).next, Next::Same)
    }
}
