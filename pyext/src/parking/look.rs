//! The callers that are parked, of all threads, with what is on their stacks.
//!
//! # Invariant
//!
//! Drivers come and go, and callers park and go on, with the GIL held: so all of this stands still for whoever is
//! attached. What lies on the stack or the data stack of a thread that has ended is not read.

use super::below::runner;
use super::driver::{Driver, Host, Parked, all};
use crate::barrier::barrier;
use crate::greenlet;
use crate::lines::Lines;
use crate::no_collections::NoCollections;
use crate::roster::Alive;
use crate::worker::Worker;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;

/// `_fiberback.parked()`.
pub(crate) unsafe extern "C" fn parked(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached. Until all is read no collection begins, and nothing of a user's is freed.
        unsafe {
            let _no_collections = NoCollections::new();
            let ts = ffi::PyThreadState_Get();
            let alive = Alive::now();
            let mut list = ffi::PyList_New(0);
            for driver in all() {
                if !alive.has((*driver).tstate_id) {
                    continue;
                }
                if let Host::Waits(parked) = (*driver).host {
                    append(&mut list, ts, parked, true);
                }
                let mut parked = (*driver).first;
                while !parked.is_null() {
                    append(&mut list, ts, parked, false);
                    parked = (*parked).after;
                }
            }
            list
        }
    })
}

/// Appends what is known of a caller; sets the list to null, with an error set, if that fails.
unsafe fn append(
    list: &mut *mut PyObject,
    ts: *mut PyThreadState,
    parked: *mut Parked,
    on_host: bool,
) {
    // SAFETY: attached; the caller waits, and owns what its `Parked` names. New references are handed on or
    // dropped.
    unsafe {
        if list.is_null() {
            return;
        }
        let driver = (*parked).driver;
        let or_none =
            |object: *mut PyObject| if object.is_null() { ffi::Py_None() } else { object };
        let seconds = ffi::PyFloat_FromDouble((*parked).since.seconds());
        let thread = ffi::PyLong_FromUnsignedLong((*driver).thread);
        let is_whole = !on_host || is_host_readable(driver);
        let lines = lines_of(ts, parked, on_host, is_whole);
        let mut one = ptr::null_mut();
        if !seconds.is_null() && !thread.is_null() && !lines.is_null() {
            one = ffi::PyTuple_Pack(
                8,
                (*driver).event_loop,
                or_none((*parked).task),
                or_none((*parked).future),
                or_none((*parked).iterator),
                seconds,
                thread,
                lines,
                if is_whole { ffi::Py_True() } else { ffi::Py_False() },
            );
        }
        ffi::Py_XDECREF(seconds);
        ffi::Py_XDECREF(thread);
        ffi::Py_XDECREF(lines);
        if one.is_null() || ffi::PyList_Append(*list, one) < 0 {
            ffi::Py_CLEAR(list);
        }
        ffi::Py_XDECREF(one);
    }
}

/// What is on the caller's stack, down to what drives the loop (and further); without the host's frames unless
/// `is_whole`.
unsafe fn lines_of(
    ts: *mut PyThreadState,
    parked: *mut Parked,
    on_host: bool,
    is_whole: bool,
) -> *mut PyObject {
    // SAFETY: attached; see the invariant. Workers that are parked on top of each other are suspended, each
    // with the one in `outer` that has resumed it.
    unsafe {
        let driver = (*parked).driver;
        let last = if on_host { (*driver).host_worker } else { (*parked).worker };
        let mut lines = Lines::new();
        let mut worker = (*parked).innermost;
        while !worker.is_null() {
            if on_host && worker == last {
                break; // its frames are among the host's
            }
            lines.add(Worker::top_frame(worker, ts));
            if worker == last {
                break;
            }
            worker = Worker::outer(worker);
        }
        if on_host && is_whole {
            if let Some(place) = &(*driver).host_top {
                lines.add(place.frame_object(ts));
            }
        }
        lines.into_list()
    }
}

/// Whether the host's frames are where they were when it parked. Interpreter frames are linked through ones on
/// the C stack (from 3.12 on), and greenlets that run on the thread's own stack move what is there. None does
/// while a runner runs.
unsafe fn is_host_readable(driver: *mut Driver) -> bool {
    // SAFETY: attached; in use.
    unsafe {
        if !greenlet::is_loaded() || !(*driver).host_worker.is_null() {
            return true;
        }
        Driver::is_ours(driver) && !runner(driver).is_null()
    }
}
