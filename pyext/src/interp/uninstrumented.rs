//! 3.11 instruments no code: whether a tracer is there is looked up at each line.

use super::facts::{self, field};
use super::shared::Frame;
use pyo3::ffi::{PyObject, PyThreadState};

/// See `instrumentation.rs`.
#[derive(Clone, Copy)]
pub(crate) struct Instrumented;

impl Instrumented {
    /// # Safety
    ///
    /// None.
    #[inline(always)]
    pub(crate) unsafe fn now(_: *mut PyThreadState) -> Self {
        Self
    }

    /// Whether somebody is told when code runs: a tracer or a profiler.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn may_be_told(ts: *mut PyThreadState, _: *mut PyObject) -> bool {
        // SAFETY: the contract.
        unsafe {
            let cframe = *field::<_, *mut u8>(ts, facts::TS_CFRAME);
            *field::<_, u8>(cframe, facts::CFRAME_USE_TRACING) != 0
        }
    }

    /// # Safety
    ///
    /// None.
    #[inline(always)]
    pub(super) unsafe fn catch_up(self, _: *mut PyThreadState, _: *mut Frame) {}
}

/// # Safety
///
/// None.
pub(super) unsafe fn init() -> bool {
    true
}
