//! The bridge in other crates' terms: one file for each crate it names, each behind a feature.

mod block_on;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use block_on::block_on;
