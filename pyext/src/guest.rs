//! A greenlet of our own that waits: its host does, on the stack that has resumed it.
//!
//! # Invariant
//!
//! While a guest `waits`, it is suspended, in [`wait_on_host`]; what the host is told is in the guest's frame, which
//! stays where it is.

use crate::greenlet::Answer;
use crate::worker::{self, Worker};
use crate::{error, interp};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

/// What others do for guests and their hosts, who know more of waits.
pub(crate) struct Functions {
    /// `wait_here::take_and_wait`.
    pub(crate) wait: unsafe fn(*mut PyObject, *mut PyObject) -> Answer,
    /// `parking::can_wait_here`.
    pub(crate) can_wait: unsafe fn() -> bool,
    /// Has a guest that is current be resumed by a stack that can wait for it, if there is one. False if there is
    /// none.
    pub(crate) move_guest: unsafe fn(*mut Worker) -> bool,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// To be called before there are guests.
pub(crate) fn set(functions: Functions) {
    let _ = FUNCTIONS.set(functions);
}

fn functions() -> &'static Functions {
    FUNCTIONS.get().expect("set before there are guests")
}

/// What a guest has its host wait for; in the guest's frame.
struct Wait {
    guest: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
    /// It was tried to find another host.
    is_last: bool,
    /// `None` if somebody else might wait.
    answer: Option<Answer>,
}

/// Waits for what `iterator` has yielded (which is taken over), on the stack that has resumed the current worker,
/// which is a guest.
///
/// # Safety
///
/// Attached, no error set; the worker is current, and both objects are its code's.
pub(crate) unsafe fn wait_on_host(
    worker: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> Answer {
    // SAFETY: the contract. The frame stays where it is while the guest is suspended.
    unsafe {
        let mut wait = Wait { guest: worker, iterator, yielded, is_last: false, answer: None };
        loop {
            if let Some(message) = interp::refusal(ffi::PyThreadState_Get()) {
                ffi::Py_DECREF(yielded);
                error::set_runtime(message);
                return Answer::Refuse(error::take());
            }
            Worker::call_on_host(worker, wait_for_guest, (&raw mut wait).cast());
            if let Some(answer) = wait.answer {
                return answer;
            }
            (functions().move_guest)(worker);
            wait.is_last = true;
        }
    }
}

/// The part of [`wait_on_host`] that is done there.
unsafe fn wait_for_guest(wait: *mut c_void) {
    let wait: *mut Wait = wait.cast();
    // SAFETY: attached, no error set; what it points to is in the frame of the guest, which is suspended. A worker
    // that is current is alive. The collector is shown the guest's reference to what it awaits, and, by the
    // owner, that of this stack to the guest.
    unsafe {
        let host = worker::current();
        let guest = (*wait).guest;
        let is_barred = (*guest).barred;
        let is_owned = !host.is_null() && !is_barred && !Worker::is_masked(host);
        if !is_owned && !(*wait).is_last && !(functions().can_wait)() {
            return;
        }
        (*guest).awaiting = (*wait).iterator;
        (*guest).waits = true;
        let owner = if is_owned { (*host).owner } else { ptr::null_mut() };
        if !owner.is_null() {
            (*owner).waits_for = (*guest).guest;
        }
        let answer = if is_barred && !host.is_null() {
            wait_barred(host, (*wait).iterator, (*wait).yielded)
        } else {
            (functions().wait)((*wait).iterator, (*wait).yielded)
        };
        if !owner.is_null() {
            (*owner).waits_for = ptr::null_mut();
        }
        (*guest).waits = false;
        (*guest).awaiting = ptr::null_mut();
        (*wait).answer = Some(answer);
    }
}

/// Waits on a stack that must not be suspended for the guest that waits, as below `call_masked`: that is what the
/// guest's code is in.
unsafe fn wait_barred(
    host: *mut Worker,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> Answer {
    // SAFETY: attached, no error set; the host is current, and so it is again when the wait is over.
    unsafe {
        if (*host).guest.is_null() {
            let was_masked = std::mem::replace(&mut (*host).masked, true);
            let answer = (functions().wait)(iterator, yielded);
            (*host).masked = was_masked || !(*host).forked_on.is_null();
            answer
        } else {
            let was_barred = std::mem::replace(&mut (*host).barred, true);
            let answer = (functions().wait)(iterator, yielded);
            (*host).barred = was_barred;
            answer
        }
    }
}
