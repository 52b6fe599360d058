//! Whether `tracing` is telling a subscriber something, and on which stack.
//!
//! Where a subscriber has been set for a scope, `tracing` keeps a `RefCell` of the thread borrowed while it
//! tells one of an event or a span (`tracing_core::dispatcher`, `get_default`). Whoever asks for the default
//! meanwhile gets none, and to set one panics. So a subscriber that suspended its fiber would leave the thread
//! without any, and its own default could not be swapped: its waits are refused.

use std::cell::Cell;
use tracing::Dispatch;
use tracing::dispatcher::has_been_set;

thread_local! {
    /// Whether a dispatch had begun when the fiber was resumed that the thread is on: that one is on a stack
    /// below, which stays where it is.
    static BEGAN_BELOW: Cell<bool> = const { Cell::new(false) };
}

/// [`BEGAN_BELOW`], for the time on a fiber.
#[derive(Default)]
pub(super) struct Within {
    /// What it was for the resumer.
    outer: bool,
}

impl Within {
    /// The fiber is about to run, and a dispatch has begun or not.
    pub(super) fn enter(&mut self, has_begun: bool) {
        self.outer = BEGAN_BELOW.replace(has_begun);
    }

    /// The fiber has been left. Returns what [`enter`](Self::enter) was told.
    pub(super) fn leave(&mut self) -> bool {
        BEGAN_BELOW.replace(self.outer)
    }
}

/// Calls `f` with the thread's default; in the middle of a dispatch, which has it borrowed, returns `None`.
pub(super) fn outside<R>(f: impl FnOnce(&Dispatch) -> R) -> Option<R> {
    // Public and not documented; `get_default` does the same, and does not tell that from there being none.
    tracing_core::dispatcher::get_current(f)
}

/// Whether the fiber that the caller is on is in the middle of a dispatch, which it would take away with it.
#[inline(always)]
pub(crate) fn must_not_suspend() -> bool {
    has_been_set() && is_in_a_dispatch_of_its_own()
}

#[inline(never)]
fn is_in_a_dispatch_of_its_own() -> bool {
    !BEGAN_BELOW.get() && outside(|_| ()).is_none()
}
