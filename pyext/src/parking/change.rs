//! The change from one stack that drives a loop to the next.

use super::below::{Below, Stock, is_runner_of, stock};
use super::driver::{Driver, Host, Next, Parked, ready_count};
use super::next_wake;
use super::turns;
use super::waker::{self, Kind, WakerObject};
use super::{hooks, turn};
use crate::interp::contexts::Left;
use crate::interp::frames::Place;
use crate::interp::level::Level;
use crate::thread::Thread;
use crate::worker::{self, Input, Output, Worker};
use crate::{error, fallbacks, messages, names};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::c_void;
use std::ptr;

/// Parks the stack that we are on, for `parked`, and comes back when it is woken. `stock` is what `can_park`
/// has found for code on this stack, if it was on this one.
///
/// # Safety
///
/// Attached, no error set; `can_park` and `prepare_runner` have said yes. No task may be current.
#[inline]
pub(super) unsafe fn give_way(driver: *mut Driver, parked: *mut Parked, below: Option<&Below>) {
    // SAFETY: the contract. The current worker runs, hence is alive; if it is no runner it steps a
    // portal, and its resumer is told.
    unsafe {
        let worker = worker::current();
        if !Driver::is_driven(driver) {
            if worker == (*driver).host_worker {
                let ts = ffi::PyThreadState_Get();
                let sought;
                let stock = if let Some(Below::Loop(stock)) = below {
                    stock
                } else {
                    sought = stock(driver, ts).expect("can_park() has found it");
                    &sought
                };
                let first = Next::Fresh(std::mem::replace(&mut (*driver).spare, ptr::null_mut()));
                host_away(driver, ts, stock, Host::Waits(parked), first);
                before_user_code(driver, stock.wants);
            } else {
                park_worker(driver, worker, parked);
            }
            return;
        }
        if !is_runner_of(worker, driver) {
            return park_worker(driver, worker, parked);
        }
        let ts = ffi::PyThreadState_Get();
        let parked_turn = std::mem::replace(&mut (*driver).turn, ptr::null_mut());
        let debug = Driver::is_debug(driver);
        let started = if debug { turn::begin_break((*driver).event_loop) } else { 0.0 };
        let base = Worker::inherited_context(worker);
        (*parked).contexts.leave(ts, base);
        park_worker(driver, worker, parked);
        (*parked).contexts.enter();
        (*driver).turn = parked_turn;
        if debug {
            turn::end_break((*driver).event_loop, parked_turn, started);
        }
    }
}

/// Parks what is below a portal's worker that is parked.
///
/// # Safety
///
/// As `give_way`; called by whoever resumed the worker.
unsafe fn pass_on(parked: *mut c_void) {
    let parked: *mut Parked = parked.cast();
    // SAFETY: the contract; the parked caller's frame is on the suspended worker's stack.
    unsafe { give_way((*parked).driver, parked, None) }
}

/// Parks the worker, which others may do meanwhile, too.
///
/// # Safety
///
/// As [`Worker::park`].
unsafe fn park_worker(driver: *mut Driver, worker: *mut Worker, parked: *mut Parked) {
    // SAFETY: the contract; a parked caller's driver is in use.
    unsafe {
        let changing = std::mem::replace(&mut (*driver).changing, ptr::null_mut());
        (*parked).frames = (&raw const changing).cast();
        if (*parked).innermost.is_null() {
            (*parked).innermost = worker;
        }
        Worker::park(worker, pass_on, parked.cast());
        (*driver).changing = changing;
    }
}

/// Lets others go on while the host does something else than to run the stock loop.
unsafe fn host_away(
    driver: *mut Driver,
    ts: *mut PyThreadState,
    stock: &Stock,
    host: Host,
    first: Next,
) {
    // SAFETY: attached, on the host. `level` does not move, and no Python code runs on this stack
    // between its `enter` and `leave`.
    unsafe {
        Driver::hold(driver);
        let changing = Driver::begin_change(driver);
        withdraw_take_over(driver);
        (*driver).batch = stock.wants.min(ready_count(driver));
        let debug = Driver::is_debug(driver);
        let started = if debug { turn::begin_break((*driver).event_loop) } else { 0.0 };
        let mut own = Left::new();
        let contexts = match host {
            Host::Waits(parked) => &raw mut (*parked).contexts,
            _ => &raw mut own,
        };
        (*contexts).leave(ts, stock.base);
        (*driver).host = host;
        (*driver).host_handle = stock.handle;
        switch_from_host(driver, ts, &stock.place, first);
        (*driver).host = Host::Runs;
        (*contexts).enter();
        if debug {
            turn::end_stock_break((*driver).event_loop, &stock.place, stock.handle, started);
        }
        Driver::end_change(driver, changing);
        Driver::release(driver);
    }
}

/// Resumes runners, one after the other, until it is the host's turn.
///
/// # Safety
///
/// Attached, no error set, on the host, whose [`Host`] says so; `place` is on its stack, and no Python code
/// runs there meanwhile.
pub(super) unsafe fn switch_from_host(
    driver: *mut Driver,
    ts: *mut PyThreadState,
    place: &Place,
    mut next: Next,
) {
    let mut level = Level::new();
    // SAFETY: the contract; the workers are this thread's, and wait for what they are given. A parked
    // caller's frame is on the worker's stack, which stays as it is.
    unsafe {
        (*driver).host_top = Some(Place::current(ts));
        let in_task = matches!((*driver).host, Host::Waits(parked) if !(*parked).task.is_null());
        level.enter(ts, place, in_task);
        let changing = std::mem::replace(&mut (*driver).changing, ptr::null_mut());
        loop {
            let (worker, input) = match next {
                Next::Fresh(worker) => {
                    (*worker).masked = true;
                    (*worker).runs = driver.cast();
                    (worker, Input::Run(turns::drive, driver.cast()))
                }
                Next::Parked(parked) => (Parked::unlink(parked), Input::Unpark),
                Next::Host | Next::Same => break,
            };
            match Worker::resume_once(worker, ts, input) {
                Output::Parked(_, parked) => {
                    let parked: *mut Parked = parked.cast(); // only `park_worker` parks
                    Parked::link(parked, worker);
                    let woken = next_wake::take(driver, ts);
                    next = if woken.is_null() {
                        let spare = std::mem::replace(&mut (*driver).spare, ptr::null_mut());
                        Next::Fresh(spare)
                    } else {
                        Next::Parked(woken)
                    };
                }
                Output::Left => {
                    retire(worker);
                    next = std::mem::replace(&mut (*driver).next, Next::Same);
                }
                Output::Done(_, result) => {
                    // A panic of ours.
                    ffi::Py_XDECREF(result);
                    (*driver).turn = ptr::null_mut();
                    (*driver).host_exception = error::take();
                    retire(worker);
                    next = Next::Host;
                }
                Output::Suspended(_)
                | Output::CallOut(..)
                | Output::CallHost(..)
                | Output::Away => {
                    unreachable!("a runner has no portal, and calls out in `resume_once`")
                }
            }
        }
        (*driver).changing = changing;
        (*driver).host_top = None;
        Driver::give_back_spare(driver);
        level.leave(ts);
    }
}

/// Gives back a worker that drives no more.
unsafe fn retire(worker: *mut Worker) {
    // SAFETY: idle, this thread's.
    unsafe {
        (*worker).masked = false;
        (*worker).runs = ptr::null();
        Thread::give_back(worker);
    }
}

/// Before a caller on the host goes on: when its callback is done, stock `_run_once` will take
/// handles that others may have run by now, as many as it `wants`. The next handle then must be one that
/// lets others drive.
unsafe fn before_user_code(driver: *mut Driver, wants: isize) {
    // SAFETY: attached, on the host.
    unsafe {
        if wants <= ready_count(driver) {
            return;
        }
        let nobody = Parked::new(driver, ptr::null_mut(), ptr::null_mut());
        let callback: *mut PyObject = waker::new(driver, nobody, Kind::TakeOver, take_over).cast();
        let handle = if callback.is_null() {
            callback
        } else {
            let nothing = ffi::PyTuple_New(0);
            let context = (*driver).context;
            let handle = hooks::HANDLE.call(&[callback, nothing, (*driver).event_loop, context]);
            ffi::Py_XDECREF(nothing);
            ffi::Py_DECREF(callback);
            handle
        };
        let done = if handle.is_null() {
            handle
        } else {
            names::call_one((*driver).ready, names::APPENDLEFT.get(), handle)
        };
        if done.is_null() {
            ffi::Py_XDECREF(handle);
            ffi::PyErr_WriteUnraisable((*driver).event_loop);
            return;
        }
        ffi::Py_DECREF(done);
        (*driver).take_over = handle;
    }
}

/// Cancels a handle that lets others drive: the host does not get to it.
unsafe fn withdraw_take_over(driver: *mut Driver) {
    // SAFETY: attached.
    unsafe {
        let handle = std::mem::replace(&mut (*driver).take_over, ptr::null_mut());
        if !handle.is_null() {
            let done = names::call_none(handle, names::CANCEL.get());
            if done.is_null() {
                ffi::PyErr_Clear();
            }
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(handle);
        }
    }
}

/// The callback with which the host gives the loop to a runner.
///
/// # Safety
///
/// As [`idle`].
unsafe fn take_over(waker: *mut WakerObject, _: *mut PyObject) -> bool {
    // SAFETY: the contract; the waker holds the driver.
    unsafe {
        let driver = (*waker).driver;
        let handle = std::mem::replace(&mut (*driver).take_over, ptr::null_mut());
        ffi::Py_XDECREF(handle);
        let ts = ffi::PyThreadState_Get();
        if (*driver).parked == 0 || Driver::is_stopping(driver) || Driver::is_driven(driver) {
            return settle(driver, ts);
        }
        let worker = Thread::take_worker();
        if worker.is_null() {
            ffi::PyErr_Clear();
            if fallbacks::NO_RUNNER.note() {
                fallbacks::tell_due();
            }
            return settle(driver, ts);
        }
        idle(driver, Next::Fresh(worker))
    }
}

/// In a callback of the host: others go on, beginning with `first`, until the host is needed. False
/// with an error set, which is to leave the loop.
///
/// # Safety
///
/// Attached, no error set, on the host.
#[inline]
pub(super) unsafe fn idle(driver: *mut Driver, first: Next) -> bool {
    // SAFETY: the contract.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        let Some(stock) = stock(driver, ts) else {
            error::set_runtime(messages::NOT_IN_A_CALLBACK);
            return false;
        };
        (*driver).host_worker = Worker::stack_of(ts, &stock.place);
        host_away(driver, ts, &stock, Host::Idles, first);
        settle(driver, ts)
    }
}

/// Before the host goes back to stock `_run_once`: that finds as many handles as it wants. If the
/// loop is to stop, they are cancelled ones, and the others are left for the next run. False with
/// an error set if the host is to raise.
unsafe fn settle(driver: *mut Driver, ts: *mut PyThreadState) -> bool {
    // SAFETY: attached, on the host.
    unsafe {
        let exception = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
        if !exception.is_null() {
            let leaves = ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_KeyboardInterrupt)
                != 0
                || ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_SystemExit) != 0;
            if leaves {
                error::restore(exception);
                return false;
            }
            // From the selector: the stock loop will ask it again, and raise by itself.
            ffi::Py_DECREF(exception);
        }
        let wants = stock(driver, ts).map_or(0, |stock| stock.wants);
        let missing = if Driver::is_stopping(driver) { wants } else { wants - ready_count(driver) };
        if missing <= 0 {
            return true;
        }
        let count = ffi::PyLong_FromSsize_t(missing);
        let done = hooks::PAD.call(&[(*driver).event_loop, count]);
        ffi::Py_XDECREF(count);
        ffi::Py_XDECREF(done);
        !done.is_null()
    }
}
