//! CPython 3.12.

use super::facts::{self, field};
use super::shared::{BaseFrame, Frame, c_recursion_units};
use pyo3::ffi::{PyObject, PyThreadState};
use std::ops::Range;
use std::ptr;

/// `_PyCFrame`, asserted against the headers below.
#[repr(C)]
struct CFrame {
    current_frame: *mut Frame,
    previous: *mut CFrame,
}

const _: () = assert!(size_of::<CFrame>() == facts::CFRAME_SIZE as usize);
const _: () =
    assert!(std::mem::offset_of!(CFrame, current_frame) == facts::CFRAME_CURRENT_FRAME as usize);
const _: () = assert!(std::mem::offset_of!(CFrame, previous) == facts::CFRAME_PREVIOUS as usize);

/// What only this version does this way: the current frame hangs in a `_PyCFrame` on the C stack,
/// recursion has separate counters for Python and C, the trashcan counts its nesting.
///
/// Each evaluation loop on the fiber puts back `cframe.previous` when it ends, so the fiber has a
/// base `_PyCFrame` of its own below all of them, at a fixed address.
pub(super) struct Version {
    base: BaseFrame,
    base_cframe: CFrame,
    top: *mut CFrame,
    host_cframe: *mut CFrame,
    py_depth: i32,
    host_py_depth: i32,
    /// C calls that the stack has room for, and that are left.
    c_capacity: i32,
    c_remaining: i32,
    host_c_remaining: i32,
    trash_nesting: i32,
    host_trash_nesting: i32,
}

impl Version {
    /// What must be there before anything else makes sense.
    pub(super) fn preflight() -> Result<(), String> {
        Ok(())
    }

    pub(super) fn new(stack: Range<usize>, base_code: *mut PyObject) -> Self {
        Self {
            base: BaseFrame::new(base_code),
            base_cframe: CFrame { current_frame: ptr::null_mut(), previous: ptr::null_mut() },
            top: ptr::null_mut(),
            host_cframe: ptr::null_mut(),
            py_depth: 0,
            host_py_depth: 0,
            c_capacity: c_recursion_units(&stack),
            c_remaining: c_recursion_units(&stack),
            host_c_remaining: 0,
            trash_nesting: 0,
            host_trash_nesting: 0,
        }
    }

    pub(super) fn pin(&mut self) {
        self.base_cframe.current_frame = self.base.as_ptr();
        self.top = &raw mut self.base_cframe;
    }

    #[inline(always)]
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState, _outer: Option<&Self>) {
        // SAFETY: `ts` is the attached thread state (contract of `State::enter`), whose `cframe`
        // is never null.
        unsafe {
            let cframe = field::<_, *mut CFrame>(ts, facts::TS_CFRAME);
            self.host_cframe = cframe.replace(self.top);
            self.base_cframe.previous = self.host_cframe;
            self.base.set_previous((*self.host_cframe).current_frame);

            let limit = *field::<_, i32>(ts, facts::TS_PY_RECURSION_LIMIT);
            let remaining = field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING);
            self.host_py_depth = limit - *remaining;
            *remaining -= self.py_depth;

            let c_remaining = field::<_, i32>(ts, facts::TS_C_RECURSION_REMAINING);
            self.host_c_remaining = c_remaining.replace(self.c_remaining);

            let nesting = field::<_, i32>(ts, facts::TS_TRASH_NESTING);
            self.host_trash_nesting = nesting.replace(self.trash_nesting);
        }
    }

    #[inline(always)]
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            let cframe = field::<_, *mut CFrame>(ts, facts::TS_CFRAME);
            self.top = cframe.replace(self.host_cframe);
            self.base_cframe.previous = ptr::null_mut();
            self.base.set_previous(ptr::null_mut());

            // Depths, not remainders: `sys.setrecursionlimit` may have moved both meanwhile.
            let limit = *field::<_, i32>(ts, facts::TS_PY_RECURSION_LIMIT);
            let remaining = field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING);
            self.py_depth = limit - *remaining - self.host_py_depth;
            *remaining = limit - self.host_py_depth;

            let c_remaining = field::<_, i32>(ts, facts::TS_C_RECURSION_REMAINING);
            self.c_remaining = c_remaining.replace(self.host_c_remaining);

            let nesting = field::<_, i32>(ts, facts::TS_TRASH_NESTING);
            self.trash_nesting = nesting.replace(self.host_trash_nesting);
        }
    }

    /// The fiber goes on on another C stack. The interpreter counts C calls, and does not know where
    /// they are.
    #[inline(always)]
    pub(super) unsafe fn swap_stack(&mut self, _: *mut PyThreadState, _: &mut Range<usize>) {}

    pub(super) fn top_frame(&self) -> *mut Frame {
        // SAFETY: `top` is the base or a `_PyCFrame` on the suspended fiber's stack.
        unsafe { (*self.top).current_frame }
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
        self.trash_nesting = 0;
        ptr::eq(self.top, &raw const self.base_cframe)
            && ptr::eq(self.base_cframe.current_frame, self.base.as_ptr())
    }

    /// The thread's current frame.
    #[inline(always)]
    pub(super) unsafe fn current_frame(ts: *mut PyThreadState) -> *mut Frame {
        // SAFETY: as in `enter`.
        unsafe { (**field::<_, *mut CFrame>(ts, facts::TS_CFRAME)).current_frame }
    }

    /// Makes `frame` the thread's current frame, and returns the one that was.
    pub(super) unsafe fn swap_current_frame(
        ts: *mut PyThreadState,
        frame: *mut Frame,
    ) -> *mut Frame {
        // SAFETY: as in `enter`.
        unsafe {
            let cframe = *field::<_, *mut CFrame>(ts, facts::TS_CFRAME);
            std::mem::replace(&mut (*cframe).current_frame, frame)
        }
    }
}

/// See `level::Level`.
pub(super) struct Lowered {
    cframe: CFrame,
    host: *mut CFrame,
    above: i32,
}

impl Lowered {
    pub(super) const fn new() -> Self {
        let none = ptr::null_mut();
        Self {
            cframe: CFrame { current_frame: none, previous: ptr::null_mut() },
            host: ptr::null_mut(),
            above: 0,
        }
    }

    /// Makes `frame` the current one, with `above` frames fewer on the recursion counter.
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState, frame: *mut Frame, above: i32) {
        // SAFETY: `ts` is the attached thread state (contract of `Level::enter`), and we do not
        // move until `leave`.
        unsafe {
            let place = field::<_, *mut CFrame>(ts, facts::TS_CFRAME);
            self.host = *place;
            self.cframe.current_frame = frame;
            self.cframe.previous = self.host;
            *place = &raw mut self.cframe;
            self.above = above;
            *field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING) += above;
        }
    }

    /// Undoes [`enter`](Self::enter).
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            *field::<_, *mut CFrame>(ts, facts::TS_CFRAME) = self.host;
            *field::<_, i32>(ts, facts::TS_PY_RECURSION_REMAINING) -= self.above;
        }
    }
}
