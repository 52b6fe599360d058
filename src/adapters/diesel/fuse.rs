//! Whether a connection was cut off in the middle of something.

use ::diesel::result::{DatabaseErrorKind, Error};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Asks the server to stop what a connection is doing. Must not block.
pub(super) type Interrupt = Box<dyn Fn() + Send + Sync>;

/// Blown once, for ever, when an operation is dropped before it has ended.
pub(super) struct Fuse {
    blown: AtomicBool,
    interrupt: Option<Interrupt>,
}

impl Fuse {
    pub(super) fn new(interrupt: Option<Interrupt>) -> Self {
        Self { blown: AtomicBool::new(false), interrupt }
    }

    pub(super) fn is_blown(&self) -> bool {
        self.blown.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// If blown: whatever came back might be the answer to something else.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.is_blown() {
            return Ok(());
        }
        let message = "fiberback: this connection was cut off in the middle of an operation, by a \
                       cancellation, and cannot be used any more: get another one";
        Err(Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(message.to_owned())))
    }

    fn blow(&self) {
        if !self.blown.swap(true, Ordering::Relaxed) {
            if let Some(interrupt) = &self.interrupt {
                interrupt();
            }
        }
    }
}

impl fmt::Debug for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fuse").field("blown", &self.is_blown()).finish_non_exhaustive()
    }
}

/// Blows the fuse when dropped while an operation is under way.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    fuse: &'a Fuse,
    under_way: UnderWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnderWay {
    /// Not begun, or ended.
    No,
    /// Rows are left, but nobody waits: they can be skipped.
    Rows,
    /// Somebody waits for an answer.
    Yes,
}

impl<'a> Watch<'a> {
    pub(super) fn new(fuse: &'a Fuse) -> Self {
        Self { fuse, under_way: UnderWay::No }
    }

    /// Marks the beginning of a poll.
    ///
    /// # Errors
    ///
    /// If the fuse has blown, at the beginning of an operation.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if self.under_way == UnderWay::No {
            self.fuse.check()?;
        }
        self.under_way = UnderWay::Yes;
        Ok(())
    }

    pub(super) fn set(&mut self, under_way: UnderWay) {
        self.under_way = under_way;
    }

    /// Goes on watching the same operation elsewhere.
    pub(super) fn hand_over(&mut self) -> Self {
        let under_way = std::mem::replace(&mut self.under_way, UnderWay::No);
        Self { fuse: self.fuse, under_way }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        match self.under_way {
            UnderWay::No => {}
            // Left early on purpose, as `first` does; a fiber that is cancelled has no purposes.
            UnderWay::Rows if !thread::panicking() => {}
            UnderWay::Rows | UnderWay::Yes => self.fuse.blow(),
        }
    }
}
