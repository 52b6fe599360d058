//! fiberback
mod adapters;
mod ambient;
mod bridge;
mod error;
mod events;
pub mod fiber;
pub use adapters::block_on;
pub use bridge::{Builder, Run, await_, on_fiber, run, run_unchecked, try_await};
pub use error::{AwaitError, StackError};
