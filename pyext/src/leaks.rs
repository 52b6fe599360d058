//! What was given up for good: counted, and said once for each reason.
//!
//! A stack with something on it that nobody can end must stay as it is. That is safe, and costs the
//! memory that it has touched and its address space for ever; so nobody should learn of it from a
//! process that grows. `stats()["stacks_leaked"]` has the number, and the test-suite fails if it is not
//! zero at the end of a process that did not ask for it.

use crate::messages;
use crate::notices::Notice;
use pyo3::ffi::{self, PyObject};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a stack is given up.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// A step has ended, and something of it is left in the interpreter's records.
    Disorder,
    /// A portal waits on a thread that is no more.
    ThreadEnded,
    /// A portal went on waiting each time that it was to end.
    WouldNotEnd,
    /// A greenlet switched away each time that it was to end.
    Greenlet,
}

static LEFT_BEHIND: Notice = Notice::new(messages::LEFT_BEHIND);
static THREAD_ENDED: Notice = Notice::new(messages::THREAD_ENDED);
static WOULD_NOT_END: Notice = Notice::new(messages::WOULD_NOT_END);
static LEFT_GREENLET: Notice = Notice::new(messages::LEFT_GREENLET);

static STACKS: AtomicUsize = AtomicUsize::new(0);

/// Stacks that were given up since the process began.
pub(crate) fn stacks() -> usize {
    STACKS.load(Ordering::Relaxed)
}

/// Counts stacks that are given up where nothing can be said: Python may be gone.
pub(crate) fn count(stacks: usize) {
    STACKS.fetch_add(stacks, Ordering::Relaxed);
}

/// Says why the stack of `whose` (borrowed, or null) is given up, if that was never said before. An
/// error that is set stays.
///
/// # Safety
///
/// Attached.
#[cold]
pub(crate) unsafe fn tell(reason: Reason, whose: *mut PyObject) {
    let notice = match reason {
        Reason::Disorder => &LEFT_BEHIND,
        Reason::ThreadEnded => &THREAD_ENDED,
        Reason::WouldNotEnd => &WOULD_NOT_END,
        Reason::Greenlet => &LEFT_GREENLET,
    };
    // SAFETY: passed on. Whoever has no portal any more is told as None.
    unsafe {
        let whose = if whose.is_null() { ffi::Py_None() } else { whose };
        notice.tell(whose);
    }
}

/// `_fiberback.leak(object)`.
pub(crate) unsafe extern "C" fn leak(_: *mut PyObject, object: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; lent. One reference that nobody will drop.
    unsafe {
        ffi::Py_INCREF(object);
        ffi::Py_NewRef(ffi::Py_None())
    }
}
