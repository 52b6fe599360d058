//! Which fiber a report is about.

use crate::fiber::roster::{Roster, Seen};
use std::panic::Location;
use std::sync::Arc;
use std::thread::ThreadId;

/// What tells people one fiber from another.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) name: Option<Arc<str>>,
    pub(super) thread: ThreadId,
    pub(super) thread_name: Option<Box<str>>,
    pub(super) made_at: &'static Location<'static>,
}

impl Who {
    pub(super) fn of(roster: &Roster, seen: &Seen) -> Self {
        Self {
            name: seen.name(),
            thread: roster.thread(),
            thread_name: roster.thread_name().map(Box::from),
            made_at: seen.made_at(),
        }
    }
}

/// The methods of a report whose field `who` is a [`Who`]; with what its thread is to it.
macro_rules! who_methods {
    ($thread:literal) => {
        /// The name it was given ([`Builder::name`](crate::Builder::name)).
        pub fn name(&self) -> Option<&str> {
            self.who.name.as_deref()
        }

        #[doc = $thread]
        pub fn thread(&self) -> ThreadId {
            self.who.thread
        }

        /// That thread's name.
        pub fn thread_name(&self) -> Option<&str> {
            self.who.thread_name.as_deref()
        }

        /// Where it was made: the call of [`run`](crate::run), of a spawning function, of
        /// [`Fiber::new`](crate::fiber::Fiber::new).
        pub fn made_at(&self) -> &'static Location<'static> {
            self.who.made_at
        }
    };
}
pub(super) use who_methods;
