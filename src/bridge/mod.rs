//! Futures on fibers: [`run`] makes a future of synchronous code, [`await_`] makes synchronous code
//! wait for a future.
//!
//! # How the two meet
//!
//! `run` starts a fiber whose root frame holds a [`waiter::Waiter`]. Each poll of the [`Run`]
//! resumes the fiber and passes in the poll's `Context`. `await_` finds the waiter through the
//! fiber's header, polls the future, and suspends the fiber while it is pending.
//!
//! # The three words of a fiber's header
//!
//! | word | holds | null when |
//! |---|---|---|
//! | `hot` | the waker to poll with | off a fiber, before the first wait, during a poll, while suspended, cancelled |
//! | `home` | what `hot` returns to after a poll | before the first wait, while a waker is dropped or cloned outside any poll, cancelled |
//! | `state` | the `Waiter` | off a fiber, or on a fiber that is not `run`'s |
//!
//! So the one load of `hot` answers every question that an `await_` of a ready future has to ask.

mod await_;
mod builder;
mod concurrent;
mod exclusive;
mod group;
mod inbox;
mod ready;
mod run;
mod scope;
mod waiter;

pub use await_::{await_, on_fiber, try_await};
pub(crate) use await_::{inbox, raise};
pub use builder::Builder;
pub use concurrent::{join, map_concurrent};
pub use exclusive::{Exclusive, Occupied};
pub(crate) use inbox::{Inbox, Outcome, Response};
pub use run::{Run, run, run_unchecked};
pub use scope::{Scope, ScopedJoinHandle, scope};
