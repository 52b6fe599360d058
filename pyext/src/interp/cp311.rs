//! CPython 3.11.

use super::facts::{self, field};
use super::shared::{BaseFrame, Frame, c_recursion_units};
use pyo3::ffi::{PyObject, PyThreadState};
use std::ops::Range;
use std::ptr;

/// `_PyCFrame`, asserted against the headers below.
#[repr(C)]
struct CFrame {
    use_tracing: u8,
    current_frame: *mut Frame,
    previous: *mut CFrame,
}

const _: () = assert!(size_of::<CFrame>() == facts::CFRAME_SIZE as usize);
const _: () =
    assert!(std::mem::offset_of!(CFrame, use_tracing) == facts::CFRAME_USE_TRACING as usize);
const _: () =
    assert!(std::mem::offset_of!(CFrame, current_frame) == facts::CFRAME_CURRENT_FRAME as usize);
const _: () = assert!(std::mem::offset_of!(CFrame, previous) == facts::CFRAME_PREVIOUS as usize);

/// What only this version does this way: the current frame hangs in a `_PyCFrame` on the C stack,
/// which also says whether the thread is traced; one counter for both kinds of recursion; the
/// trashcan counts its nesting.
///
/// Each evaluation loop on the fiber puts back `cframe.previous` when it ends, so the fiber has a
/// base `_PyCFrame` of its own below all of them, at a fixed address.
///
/// `use_tracing` belongs to the thread, but is copied from `_PyCFrame` to `_PyCFrame` as loops
/// begin and end; the switch copies it likewise.
pub(super) struct Version {
    base: BaseFrame,
    base_cframe: CFrame,
    top: *mut CFrame,
    host_cframe: *mut CFrame,
    /// Calls that the fiber has open, and how many its C stack has room for.
    depth: i32,
    capacity: i32,
    entered_remaining: i32,
    host_remaining: i32,
    host_limit: i32,
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
            base_cframe: CFrame {
                use_tracing: 0,
                current_frame: ptr::null_mut(),
                previous: ptr::null_mut(),
            },
            top: ptr::null_mut(),
            host_cframe: ptr::null_mut(),
            depth: 0,
            capacity: c_recursion_units(&stack),
            entered_remaining: 0,
            host_remaining: 0,
            host_limit: 0,
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
        // is never null; `top` is our base or a `_PyCFrame` on the suspended fiber's stack.
        unsafe {
            let cframe = field::<_, *mut CFrame>(ts, facts::TS_CFRAME);
            self.host_cframe = cframe.replace(self.top);
            let use_tracing = (*self.host_cframe).use_tracing;
            self.base_cframe.previous = self.host_cframe;
            self.base_cframe.use_tracing = use_tracing;
            (*self.top).use_tracing = use_tracing;
            self.base.set_previous((*self.host_cframe).current_frame);

            // Only the remainder is lowered to what the C stack has room for, not the limit:
            // `_Py_CheckRecursiveCall` forgives a remainder of zero if the depth that it computes
            // from both is still below the global limit.
            self.host_limit = *field::<_, i32>(ts, facts::TS_RECURSION_LIMIT);
            let remaining = field::<_, i32>(ts, facts::TS_RECURSION_REMAINING);
            self.host_remaining = *remaining;
            self.entered_remaining = self.host_remaining.min(self.capacity) - self.depth;
            *remaining = self.entered_remaining;

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
            (*self.host_cframe).use_tracing = (*self.top).use_tracing;
            self.base_cframe.previous = ptr::null_mut();
            self.base.set_previous(ptr::null_mut());

            // `sys.setrecursionlimit` moves both numbers by the same amount.
            let moved = *field::<_, i32>(ts, facts::TS_RECURSION_LIMIT) - self.host_limit;
            let remaining = field::<_, i32>(ts, facts::TS_RECURSION_REMAINING);
            self.depth += self.entered_remaining + moved - *remaining;
            *remaining = self.host_remaining + moved;

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
        self.depth = 0;
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
            cframe: CFrame { use_tracing: 0, current_frame: none, previous: ptr::null_mut() },
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
            self.cframe.use_tracing = (*self.host).use_tracing;
            *place = &raw mut self.cframe;
            self.above = above;
            *field::<_, i32>(ts, facts::TS_RECURSION_REMAINING) += above;
        }
    }

    /// Undoes [`enter`](Self::enter).
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            *field::<_, *mut CFrame>(ts, facts::TS_CFRAME) = self.host;
            (*self.host).use_tracing = self.cframe.use_tracing;
            *field::<_, i32>(ts, facts::TS_RECURSION_REMAINING) -= self.above;
        }
    }
}
