//! What was given up for good: counted, and said once for each reason.
//!
//! A stack with something on it that nobody can end must stay as it is. That is safe, and costs the
//! memory that it has touched and its address space for ever; so nobody should learn of it from a
//! process that grows. `stats()["stacks_leaked"]` has the number, and the test-suite fails if it is not
//! zero at the end of a process that did not ask for it.

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Why a stack is given up.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// A step has ended, and something of it is left in the interpreter's records.
    Disorder,
    /// A portal waits on a thread that is no more.
    ThreadEnded,
    /// A portal went on waiting each time that it was to end.
    WouldNotEnd,
}

static STACKS: AtomicUsize = AtomicUsize::new(0);
/// The reasons that were told.
static TOLD: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

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
    if TOLD[reason as usize].swap(true, Ordering::Relaxed) {
        return;
    }
    let message = match reason {
        Reason::Disorder => error::LEFT_BEHIND,
        Reason::ThreadEnded => error::THREAD_ENDED,
        Reason::WouldNotEnd => error::WOULD_NOT_END,
    };
    let message = CString::new(message).expect("our messages have no zero bytes");
    // SAFETY: attached; the format takes an object, which is alive, and a C string. What is raised where warnings
    // are errors has nobody to go to.
    unsafe {
        let pending = error::take();
        let whose = if whose.is_null() { ffi::Py_None() } else { whose };
        let text = ffi::PyUnicode_FromFormat(c"%R: %s".as_ptr(), whose, message.as_ptr());
        let bytes = if text.is_null() { ptr::null() } else { ffi::PyUnicode_AsUTF8(text) };
        if bytes.is_null() || ffi::PyErr_WarnEx(ffi::PyExc_RuntimeWarning, bytes, 1) < 0 {
            ffi::PyErr_WriteUnraisable(whose);
        }
        ffi::Py_XDECREF(text);
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}
