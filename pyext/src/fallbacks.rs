//! Where something is not had and less does as well: counted, and said once for each kind.
//!
//! Nothing is lost by any of these, so that nobody would notice: not even that a machine is short of
//! address space, or that a wait of ours is a millisecond longer than it must be. `stats()` has the numbers,
//! and the test-suite fails if one is not zero at the end of a process that did not ask for it.

use crate::messages;
use crate::notices::Notice;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What was done instead of what was wanted.
pub(crate) struct Fallback {
    count: AtomicUsize,
    /// To be told at the next opportunity.
    is_due: AtomicBool,
    notice: Option<Notice>,
}

/// A fiber got a smaller stack than was asked for.
pub(crate) static SMALL_STACK: Fallback = Fallback::new(Some(Notice::new(messages::STACKS_SMALL)));

/// What a task awaits was stepped on the task's own stack, though many tasks wait.
pub(crate) static OWN_STACK: Fallback =
    Fallback::new(Some(Notice::new(messages::STACKS_NOT_SHARED)));

/// A caller whose wait was over could not go on at once, and was tried again a millisecond later.
pub(crate) static WAKE_PUT_OFF: Fallback = Fallback::new(None);

/// Callers on fibers are parked, and the stack on which the event loop was begun went on driving it, since
/// there was no other.
pub(crate) static NO_RUNNER: Fallback =
    Fallback::new(Some(Notice::new(messages::LOOP_NOT_PASSED_ON)));

impl Fallback {
    const fn new(notice: Option<Notice>) -> Self {
        Self { count: AtomicUsize::new(0), is_due: AtomicBool::new(false), notice }
    }

    /// How often it was done since the process began.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Notes that it was done. True if somebody should call [`tell_due`] soon: what is said can run any
    /// code, so not here.
    pub(crate) fn note(&self) -> bool {
        let first = self.count.fetch_add(1, Ordering::Relaxed) == 0;
        let is_due = first && self.notice.is_some();
        if is_due {
            self.is_due.store(true, Ordering::Relaxed);
        }
        is_due
    }

    unsafe fn tell_if_due(&self) {
        if self.is_due.swap(false, Ordering::Relaxed) {
            if let Some(notice) = &self.notice {
                // SAFETY: passed on.
                unsafe { notice.tell(ptr::null_mut()) }
            }
        }
    }
}

/// Says what has been noted and not said yet. An error that is set stays.
///
/// # Safety
///
/// Attached.
#[cold]
pub(crate) unsafe fn tell_due() {
    for fallback in [&SMALL_STACK, &OWN_STACK, &NO_RUNNER] {
        // SAFETY: passed on.
        unsafe { fallback.tell_if_due() }
    }
}
