//! CPython 3.13.

use super::facts::{self, field};
use super::shared::{BaseFrame, Frame, c_recursion_units};
use pyo3::ffi::{PyObject, PyThreadState};
use std::ops::Range;
use std::ptr;

/// What only this version does this way: current frame in the thread state, separate counters for
/// Python and C recursion, an executor left for the tier-two interpreter.
///
/// The trashcan needs nothing: it works from `c_recursion_remaining`
/// (`Py_TRASHCAN_HEADROOM` in cpython/object.h), and its list belongs to the thread.
pub(super) struct Version {
    base: BaseFrame,
    top: *mut Frame,
    host_frame: *mut Frame,
    py_depth: i32,
    host_py_depth: i32,
    /// C calls that the stack has room for, and that are left.
    c_capacity: i32,
    c_remaining: i32,
    host_c_remaining: i32,
    executor: *mut PyObject,
    host_executor: *mut PyObject,
}

impl Version {
    /// What must be there before anything else makes sense.
    pub(super) fn preflight() -> Result<(), String> {
        Ok(())
    }

    pub(super) fn new(stack: Range<usize>, base_code: *mut PyObject) -> Self {
        Self {
            base: BaseFrame::new(base_code),
            top: ptr::null_mut(),
            host_frame: ptr::null_mut(),
            py_depth: 0,
            host_py_depth: 0,
            c_capacity: c_recursion_units(&stack),
            c_remaining: c_recursion_units(&stack),
            host_c_remaining: 0,
            executor: ptr::null_mut(),
            host_executor: ptr::null_mut(),
        }
    }

    pub(super) fn pin(&mut self) {
        self.top = self.base.as_ptr();
    }

    #[inline(always)]
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState, _outer: Option<&Self>) {
        // SAFETY: `ts` is the attached thread state (contract of `State::enter`).
        unsafe {
            let current = field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME);
            self.host_frame = *current;
            self.base.set_previous(self.host_frame);
            *current = self.top;

            let limit = *field::<_, i32>(ts, facts::TS_PY_RECURSION_LIMIT);
            let remaining = field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING);
            self.host_py_depth = limit - *remaining;
            *remaining -= self.py_depth;

            let c_remaining = field::<_, i32>(ts, facts::TS_C_RECURSION_REMAINING);
            self.host_c_remaining = c_remaining.replace(self.c_remaining);

            let executor = field::<_, *mut PyObject>(ts, facts::TS_PREVIOUS_EXECUTOR);
            self.host_executor = executor.replace(self.executor);
        }
    }

    #[inline(always)]
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            let current = field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME);
            self.top = current.replace(self.host_frame);
            self.base.set_previous(ptr::null_mut());

            // Depths, not remainders: `sys.setrecursionlimit` may have moved both meanwhile.
            let limit = *field::<_, i32>(ts, facts::TS_PY_RECURSION_LIMIT);
            let remaining = field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING);
            self.py_depth = limit - *remaining - self.host_py_depth;
            *remaining = limit - self.host_py_depth;

            let c_remaining = field::<_, i32>(ts, facts::TS_C_RECURSION_REMAINING);
            self.c_remaining = c_remaining.replace(self.host_c_remaining);

            let executor = field::<_, *mut PyObject>(ts, facts::TS_PREVIOUS_EXECUTOR);
            self.executor = executor.replace(self.host_executor);
        }
    }

    /// The fiber goes on on another C stack. The interpreter counts C calls, and does not know where
    /// they are.
    #[inline(always)]
    pub(super) unsafe fn swap_stack(&mut self, _: *mut PyThreadState, _: &mut Range<usize>) {}

    pub(super) fn top_frame(&self) -> *mut Frame {
        self.top
    }

    /// Has the fiber's frames end at its base, as if nothing were below.
    pub(super) fn cut_off(&mut self) {
        self.base.set_previous(ptr::null_mut());
    }

    /// The frame below all of the fiber's.
    pub(super) fn base_frame(&mut self) -> *mut Frame {
        self.base.as_ptr()
    }

    /// Whether no frame is left when a step has ended. Counters begin anew: they are no more than that,
    /// and may drift.
    pub(super) fn settle(&mut self) -> bool {
        self.py_depth = 0;
        self.c_remaining = self.c_capacity;
        ptr::eq(self.top, self.base.as_ptr())
    }

    /// The thread's current frame.
    #[inline(always)]
    pub(super) unsafe fn current_frame(ts: *mut PyThreadState) -> *mut Frame {
        // SAFETY: as in `enter`.
        unsafe { *field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME) }
    }

    /// Makes `frame` the thread's current frame, and returns the one that was.
    pub(super) unsafe fn swap_current_frame(
        ts: *mut PyThreadState,
        frame: *mut Frame,
    ) -> *mut Frame {
        // SAFETY: as in `enter`.
        unsafe { field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME).replace(frame) }
    }
}

/// See `level::Level`.
pub(super) struct Lowered {
    frame: *mut Frame,
    above: i32,
}

impl Lowered {
    pub(super) const fn new() -> Self {
        Self { frame: ptr::null_mut(), above: 0 }
    }

    /// Makes `frame` the current one, with `above` frames fewer on the recursion counter.
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState, frame: *mut Frame, above: i32) {
        // SAFETY: `ts` is the attached thread state (contract of `Level::enter`).
        unsafe {
            self.frame = field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME).replace(frame);
            self.above = above;
            *field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING) += above;
        }
    }

    /// Undoes [`enter`](Self::enter).
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            *field::<_, *mut Frame>(ts, facts::TS_CURRENT_FRAME) = self.frame;
            *field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING) -= self.above;
        }
    }
}
