//! Synchronous code that waits, as tokio tasks.
//!
//! A [`Run`](crate::Run) is a future like any other, but it is `!Send`: it stays on one thread.
//!
//! | you are on | use |
//! |---|---|
//! | a `LocalSet`, or a runtime that runs local tasks | [`spawn_local`] |
//! | a multi-threaded runtime, or none | a [`PinnedPool`], which has threads of its own |
//! | on a plain thread, with no runtime | [`block_on`](crate::block_on), which has a [`background`] runtime |
//! | any runtime, in a future that `block_on` or `#[tokio::main]` drives | `run(f).await` as it is |

pub mod background;
pub(super) mod blocking;
pub(super) mod call;
mod clock;
mod constrained;
pub(crate) mod facade;
mod fork;
#[cfg(any(feature = "io", feature = "stream"))]
pub(super) mod handover;
mod job;
mod pinned_pool;
mod spawn;
pub(super) mod within;
mod worker;

pub use call::PinnedRun;
pub use pinned_pool::{PinnedPool, PinnedPoolBuilder, PoolClosed};
pub use spawn::spawn_local;
