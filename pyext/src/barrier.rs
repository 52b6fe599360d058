//! The barrier that no panic crosses on its way to C: it becomes a Python exception.

// (By `super`, for a test has this file in another crate, examples/store_extension: each panic of the native
// module says that something cannot be, and nothing is known to make it be.)
use super::{error, messages};
use pyo3::ffi;
use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// Runs `body`, which must not unwind into C: a panic becomes a Python exception.
#[inline(always)]
pub(crate) fn barrier<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    // Whatever a panic leaves half done is Python state, which has no unwind safety to lose.
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            set_panic(payload);
            on_panic
        }
    }
}

#[cold]
fn set_panic(payload: Box<dyn Any + Send>) {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string());
    // SAFETY: attached; the type is a static of the interpreter.
    unsafe { error::set(ffi::PyExc_SystemError, &messages::INTERNAL.replace("{text}", &text)) }
}
