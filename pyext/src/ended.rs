//! The end of the interpreter that has loaded this module, in a process that may begin another one.
//!
//! A program that embeds Python may finalize it and initialise it again. The statics of this module and
//! of CPython's own C modules live on, and what they refer to does not.

use crate::backends::running_loop;
use crate::messages;
use pyo3::ffi;
use std::sync::atomic::{AtomicBool, Ordering};

static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// To be called when the module is loaded: what is wrong if it was before, by another interpreter.
pub(crate) fn check() -> Result<(), &'static str> {
    if HAS_ENDED.load(Ordering::Relaxed) { Err(messages::SECOND_INTERPRETER) } else { Ok(()) }
}

/// To be called when the module has been loaded.
pub(crate) fn watch() {
    // SAFETY: the function stays. There are 32 places (Python/pylifecycle.c), and those of the embedding
    // program come first; without one, this module works, but would not refuse a second interpreter.
    unsafe { ffi::Py_AtExit(Some(end)) };
}

extern "C" fn end() {
    HAS_ENDED.store(true, Ordering::Relaxed);
    // SAFETY: `Py_AtExit` functions are called when no interpreter runs any more.
    unsafe { running_loop::forget() };
}
