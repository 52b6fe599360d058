//! A thread's calls of greenlet's that have not returned.
//!
//! Code in a greenlet that somebody on a portal (or in a callback of a loop) has switched to may call
//! `await_`, too. The awaitable is stepped there; but it is the base of that call that can wait (see
//! `switches.rs`), the portal's fiber or the callback's stack, since it is their task. So the greenlet switches
//! to the base with a [`Request`]; the base waits, in the middle of its own call of `switch`, and switches
//! back with the [`Answer`].
//!
//! # Invariant
//!
//! * `bases` are the calls that have not returned yet, in the order in which they were made. All code
//!   on the thread's own stack that is not in the greenlet of the last one was switched to by it,
//!   directly or not. A call that returns takes those made after it out: they return later, or never.
//! * A request is taken by the base for which it was made, at once; an answer by the greenlet that it is
//!   for. Between the two that greenlet is in `waiting`, and nobody else can switch to it.
//! * All of this is in the thread's record: frames of greenlets that do not run are no place for it.

use super::answer::Answer;
use super::original;
use crate::interp::tracing::OnBehalf;
use crate::worker::{self, Worker};
use crate::{error, messages};
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::ptr;

/// A call of greenlet's that has not returned.
pub(super) struct Base {
    id: u64,
    /// The greenlet that has made it, owned.
    greenlet: *mut PyObject,
    /// The fiber on whose behalf it was made, or null.
    worker: *mut Worker,
    /// Whether the caller can wait for those whom it has switched to.
    can_wait: bool,
}

/// A greenlet cannot go on before its base has waited.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) base: u64,
    /// Who asks; owned.
    pub(super) greenlet: *mut PyObject,
    /// What is being stepped there, and what it has yielded; both the greenlet's.
    pub(super) iterator: *mut PyObject,
    pub(super) yielded: *mut PyObject,
}

/// A thread's part of all this.
pub(super) struct Calls {
    pub(super) bases: Vec<Base>,
    last_id: u64,
    pub(super) request: Option<Request>,
    pub(super) answer: Option<Answer>,
    /// Greenlets that wait for an answer; only compared.
    pub(super) waiting: Vec<*mut PyObject>,
}

thread_local! {
    // Without a destructor, so that greenlets can end at any time in the life of their thread.
    static CALLS: UnsafeCell<ManuallyDrop<Calls>> =
        const { UnsafeCell::new(ManuallyDrop::new(Calls::new())) };
    static END: End = const { End };
}

/// The thread ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: the thread's own record, borrowed by nothing: no code of a call runs here. What the record
        // owns of Python stays as it is, since Python may be gone; an empty one takes its place.
        let calls =
            CALLS.with(|calls| unsafe { calls.get().replace(ManuallyDrop::new(Calls::new())) });
        drop(ManuallyDrop::into_inner(calls));
    }
}

impl Calls {
    const fn new() -> Self {
        Self { bases: Vec::new(), last_id: 0, request: None, answer: None, waiting: Vec::new() }
    }

    /// The calling thread's record.
    pub(super) fn of_this_thread() -> *mut Self {
        // In a thread that is past its destructors the record just stays; nothing is wrong with that but
        // the memory.
        let _ = END.try_with(|_| ());
        CALLS.with(UnsafeCell::get).cast()
    }

    /// Notes a call that begins. `greenlet` is owned.
    pub(super) unsafe fn enter(
        this: *mut Self,
        greenlet: *mut PyObject,
        worker: *mut Worker,
        can_wait: bool,
    ) -> u64 {
        // SAFETY: the thread's own record, borrowed for no longer than this.
        let calls = unsafe { &mut *this };
        calls.last_id += 1;
        calls.bases.push(Base { id: calls.last_id, greenlet, worker, can_wait });
        calls.last_id
    }

    /// Notes that a call has returned.
    pub(super) unsafe fn leave(this: *mut Self, id: u64) {
        // SAFETY: as in `enter`. Dropping greenlets can run any code, so they are taken out before.
        unsafe {
            let ended = {
                let calls = &mut *this;
                let Some(at) = calls.bases.iter().rposition(|base| base.id == id) else { return };
                calls.bases.split_off(at)
            };
            let pending = error::take();
            for base in ended {
                ffi::Py_DECREF(base.greenlet);
            }
            if !pending.is_null() {
                error::restore(pending);
            }
        }
    }

    pub(super) unsafe fn waits_no_more(this: *mut Self, greenlet: *mut PyObject) {
        // SAFETY: as in `enter`.
        let calls = unsafe { &mut *this };
        calls.waiting.retain(|&other| other != greenlet);
    }
}

/// Where code in a greenlet is that somebody has switched to.
pub(crate) struct Inside {
    base: u64,
    /// The current greenlet, owned.
    pub(crate) greenlet: *mut PyObject,
    /// The base's, borrowed from the record.
    base_greenlet: *mut PyObject,
    /// The fiber on whose behalf it was switched to, or null.
    pub(crate) worker: *mut Worker,
    can_wait: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: attached, as whoever asked; owned, and current, so that nothing ends with it.
        unsafe { ffi::Py_DECREF(self.greenlet) }
    }
}

/// Where this code is, if it is in a greenlet that the last of the calls has switched to.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn inside() -> Option<Inside> {
    // SAFETY: attached.
    unsafe {
        if !original::is_loaded() || !worker::current().is_null() { None } else { look_inside() }
    }
}

#[inline(never)]
unsafe fn look_inside() -> Option<Inside> {
    // SAFETY: attached; the thread's own record, borrowed while nothing else runs.
    unsafe {
        let calls = Calls::of_this_thread();
        let bases = &(*calls).bases;
        let last = bases.last()?;
        let (base, base_greenlet) = (last.id, last.greenlet);
        let (worker, can_wait) = (last.worker, last.can_wait);
        // An error may be set where this is asked, and greenlets of other threads may end in it.
        let mut greenlet = ptr::null_mut();
        error::keeping(|| greenlet = original::current());
        if greenlet.is_null() {
            return None;
        }
        if greenlet == base_greenlet {
            ffi::Py_DECREF(greenlet);
            return None;
        }
        Some(Inside { base, greenlet, base_greenlet, worker, can_wait })
    }
}

/// Has the base wait for what `iterator` has yielded (both borrowed).
///
/// # Safety
///
/// Attached, no error set, on the thread's own stack.
pub(crate) unsafe fn wait(
    inside: Inside,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> Answer {
    // SAFETY: attached. The base is in the middle of a call of ours, and takes the request at once. All
    // that is used after the switch back is this frame's, which is in place then.
    unsafe {
        if !inside.can_wait {
            error::set_runtime(messages::GREENLET_ENDS);
            return Answer::Refuse(error::take());
        }
        let calls = Calls::of_this_thread();
        let greenlet = inside.greenlet;
        (*calls).waiting.push(greenlet);
        (*calls).request = Some(Request {
            base: inside.base,
            greenlet: ffi::Py_NewRef(greenlet),
            iterator,
            yielded,
        });
        let none = ptr::null_mut();
        let base = ffi::Py_NewRef(inside.base_greenlet);
        let on_behalf = OnBehalf::begin(ffi::PyThreadState_Get());
        let result = original::api_switch(base, none, none);
        drop(on_behalf);
        let exception = if result.is_null() { error::take() } else { none };
        ffi::Py_XDECREF(result);
        ffi::Py_DECREF(base);
        Calls::waits_no_more(calls, greenlet);
        if let Some(answer) = (*calls).answer.take() {
            ffi::Py_XDECREF(exception);
            return answer;
        }
        // The base was not there to be asked, or somebody has come to us around `switch`.
        if let Some(request) = (*calls).request.take_if(|request| request.greenlet == greenlet) {
            ffi::Py_DECREF(request.greenlet);
        }
        if exception.is_null() {
            error::set_runtime(messages::GREENLET_WAITS);
            return Answer::Refuse(error::take());
        }
        Answer::Refuse(exception)
    }
}
