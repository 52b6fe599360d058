//! The bridge in other crates' terms: one file for each crate it names, each behind a feature.

#[cfg(feature = "dump")]
mod activity;
mod alarm;
mod block_on;
#[cfg(feature = "diesel")]
pub mod diesel;
#[cfg(feature = "dump")]
mod dump;
#[cfg(feature = "io")]
pub mod io;
#[cfg(windows)]
mod loader_lock;
mod loop_thread;
mod park;
mod remote;
#[cfg(feature = "stream")]
pub mod stream;
#[cfg(feature = "dump")]
mod symbols;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "dump")]
mod watch;
#[cfg(feature = "dump")]
mod who;
mod yielding;

pub use block_on::{block_on, try_block_on};
#[cfg(feature = "dump")]
pub use dump::{Dump, FiberDump, Frame, dump};
pub use remote::{Remote, remote, try_remote};
#[cfg(feature = "dump")]
pub use watch::{Blocked, Waiting, Watch, watch};
pub use yielding::{Budget, try_yield_now, yield_now};
