//! A suspended fiber's own account of its stack: where its calls will return to.
//!
//! # Invariant
//!
//! [`Report::write`] runs on the fiber's stack, on whichever thread has resumed it for that, in the middle of a
//! suspension. It calls nothing but the unwinder, which reads the stack and the program's unwind tables: no
//! code of the fiber's, no allocator, no lock of ours, no thread-local of anybody's.

#![allow(unsafe_code)]

use super::stack_pointer::stack_pointer;
use std::ops::Range;

/// As many as anybody reads. The innermost.
const MAX_FRAMES: usize = 128;

/// What a fiber must have left of its stack for the unwinder, which takes some 5 KiB.
const NEEDED: usize = 16 << 10;

/// What a fiber writes when it is asked to report.
pub(crate) struct Report {
    /// Innermost first.
    returns_to: Vec<usize>,
    /// There was no room on the stack for the unwinder.
    is_refused: bool,
    /// There are more.
    is_cut: bool,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { returns_to: Vec::with_capacity(MAX_FRAMES), is_refused: false, is_cut: false }
    }

    /// Called on the fiber's stack, which is at these addresses.
    #[cold]
    #[inline(never)]
    pub(super) fn write(&mut self, stack: Range<usize>) {
        let here = stack_pointer();
        if !stack.contains(&here) || here - stack.start < NEEDED {
            self.is_refused = true;
            return;
        }
        let visit = |frame: &backtrace::Frame| {
            // The fiber's first frame has been called by whoever has resumed it, on another stack.
            if !stack.contains(&frame.sp().addr()) {
                return false;
            }
            self.is_cut = self.returns_to.len() == MAX_FRAMES;
            if !self.is_cut {
                self.returns_to.push(frame.ip().addr());
            }
            !self.is_cut
        };
        // SAFETY: on Unix the unwinder may run in several threads at once (it does, when they panic); the lock
        // of `trace` is for what it does on Windows, and another fiber may have been suspended with it.
        #[cfg(not(windows))]
        unsafe {
            backtrace::trace_unsynchronized(visit);
        }
        #[cfg(windows)]
        backtrace::trace(visit);
    }

    pub(crate) fn returns_to(&self) -> &[usize] {
        &self.returns_to
    }

    /// The fiber had no room on its stack to report.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// There are more frames than were written down.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }
}
