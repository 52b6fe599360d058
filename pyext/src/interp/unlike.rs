//! An interpreter whose internals are not those that this is built for: what is said of it.

use super::facts;
use crate::{error, messages};
use pyo3::ffi;

/// What the `ImportError` says, given what is unlike.
pub(super) fn text(what: &str) -> String {
    // SAFETY: reads a constant of the interpreter.
    let running = unsafe { ffi::Py_Version } as u32;
    messages::UNLIKE_PYTHON
        .replace("{built}", &version(facts::BUILT_VERSION_HEX as u32))
        .replace("{running}", &version(running))
        .replace("{what}", what)
}

/// Sets that error.
#[cold]
pub(crate) fn set(what: &str) {
    // SAFETY: reads a static of the interpreter.
    error::set(unsafe { ffi::PyExc_ImportError }, &text(what));
}

fn version(hex: u32) -> String {
    format!("{}.{}.{}", hex >> 24, hex >> 16 & 0xff, hex >> 8 & 0xff)
}
