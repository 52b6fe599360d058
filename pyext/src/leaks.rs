//! What was given up for good: counted, and said once for each reason.
//!
//! A stack with something on it that nobody can end must stay as it is. That is safe, and costs the
//! memory that it has touched and its address space for ever; so nobody should learn of it from a
//! process that grows. `stats()["stacks_leaked"]` has the number, and the test-suite fails if it is not
//! zero at the end of a process that did not ask for it.

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
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

struct Known {
    message: &'static CStr,
    told: AtomicBool,
}

impl Known {
    const fn new(message: &'static CStr) -> Self {
        Self { message, told: AtomicBool::new(false) }
    }
}

static DISORDER: Known = Known::new(
    c"the stack that %R ran on is given up for good, with the memory that it has touched: code on it \
      has left an interpreter frame or a contextvars context behind. Native code that switches stacks \
      itself does that, or that calls PyContext_Enter() and not PyContext_Exit(): please report it, \
      with the extension modules that were called. fiberback.stats()['stacks_leaked'] counts such \
      stacks.",
);
static THREAD_ENDED: Known = Known::new(
    c"%R waited in await_() when its thread ended: its stack, and all that its frames refer to, can \
      never be freed. Let asyncio.run(), fiberback.run() or asyncio.Runner run the loop in that \
      thread, which cancel what is left, or cancel the tasks and await them before the thread ends. \
      fiberback.stats()['stacks_leaked'] counts such stacks.",
);
static WOULD_NOT_END: Known = Known::new(
    c"%R was dropped, and goes on waiting each time that GeneratorExit is raised in it: its stack, and \
      all that its frames refer to, is given up for good. Do not wait again in a loop after \
      `except BaseException` or `finally`. fiberback.stats()['stacks_leaked'] counts such stacks.",
);

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
    let known = match reason {
        Reason::Disorder => &DISORDER,
        Reason::ThreadEnded => &THREAD_ENDED,
        Reason::WouldNotEnd => &WOULD_NOT_END,
    };
    if known.told.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: attached; the format takes one object, which is alive. What is raised where warnings
    // are errors has nobody to go to.
    unsafe {
        let pending = error::take();
        let whose = if whose.is_null() { ffi::Py_None() } else { whose };
        let text = ffi::PyUnicode_FromFormat(known.message.as_ptr(), whose);
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
