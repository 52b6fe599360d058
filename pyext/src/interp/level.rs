//! The thread's state as it was further down the stack that the thread is on.
//!
//! When a stack is parked in the middle of a loop's callback, other code goes on as if the callback
//! had not been called: what it finds below its own frames is the loop's frame, not the parked
//! code. [`Level`] makes the thread state look so for as long as the stack is parked.
//!
//! The data stack stays as it is: it really is in use up to its top.
//!
//! Whoever looks at a parked task's own frames (`task.get_stack()` follows `f_back` from its coroutine's) finds
//! nothing further out than those: the loop's frames, which go on without it, are not its callers' any more.

use super::facts::{self, field};
use super::frames::Place;
use super::instrumentation::Instrumented;
use super::profiled::Profiled;
use super::shared::{ErrStackItem, Frame};
use super::tracing::{self, Hidden};
use super::version::Lowered;
use pyo3::ffi::PyThreadState;

/// A lowered view of the thread state; must not move between `enter` and `leave`.
pub(crate) struct Level {
    lowered: Lowered,
    /// What is handled at this level: nothing. (What the code that runs the loop may handle is in
    /// the same item as what a callback handles.)
    handled: ErrStackItem,
    exc_info: *mut ErrStackItem,
    /// The first frame that stays in sight.
    place: *mut Frame,
    /// The frame of the task's coroutine, and the one below it, which it does not show meanwhile; or nulls.
    task: (*mut Frame, *mut Frame),
    /// The trace functions above it.
    hidden: Option<Hidden>,
    seen: Option<Instrumented>,
    /// What profilers were told of the frames above it.
    told: Profiled,
}

impl Level {
    pub(crate) const fn new() -> Self {
        Self {
            lowered: Lowered::new(),
            handled: ErrStackItem::EMPTY,
            exc_info: std::ptr::null_mut(),
            place: std::ptr::null_mut(),
            task: (std::ptr::null_mut(), std::ptr::null_mut()),
            hidden: None,
            seen: None,
            told: Profiled::NOTHING,
        }
    }

    /// From here on the thread state is that of the frame at `place`. Above that a task's step is suspended if
    /// `in_task`; the place has then been searched for from the current frame.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, `place` on the stack that the thread is on. No
    /// Python code may run on that stack until [`leave`](Self::leave), and `self` must not move.
    pub(crate) unsafe fn enter(&mut self, ts: *mut PyThreadState, place: &Place, in_task: bool) {
        // SAFETY: the contract; the offsets are those of the thread state's fields. Nobody but whoever looks from
        // outside follows the frames above the place until `leave`.
        unsafe {
            self.told = Profiled::leave(ts, place.frame);
            // Then, since on 3.11 what comes next copies whether the code is traced.
            self.hidden = Some(Hidden::hide(ts, tracing::depth_at(ts, place)));
            self.lowered.enter(ts, place.frame, place.above);
            let exc_info = field::<_, *mut ErrStackItem>(ts, facts::TS_EXC_INFO);
            self.exc_info = exc_info.replace(&raw mut self.handled);
            self.place = place.frame;
            self.seen = Some(Instrumented::now(ts));
            // Of a task of Cython's there is no such frame.
            let task = place.generator;
            if in_task && !task.is_null() {
                let below = field::<_, *mut Frame>(task, facts::FRAME_PREVIOUS);
                self.task = (task, below.replace(std::ptr::null_mut()));
            }
        }
    }

    /// Puts back what [`enter`](Self::enter) changed. The frames above the place hear of tracers that
    /// have come or gone.
    ///
    /// # Safety
    ///
    /// Entered, with the same `ts`, and on the same stack.
    pub(crate) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: the contract.
        unsafe {
            let (task, below) = self.task;
            if !task.is_null() {
                *field(task, facts::FRAME_PREVIOUS) = below;
            }
            *field::<_, *mut ErrStackItem>(ts, facts::TS_EXC_INFO) = self.exc_info;
            self.lowered.leave(ts);
            if let Some(hidden) = self.hidden.take() {
                hidden.show(ts);
            }
            if let Some(seen) = self.seen.take() {
                seen.catch_up(ts, self.place);
            }
            std::mem::replace(&mut self.told, Profiled::NOTHING).enter(ts, self.place);
        }
    }
}
