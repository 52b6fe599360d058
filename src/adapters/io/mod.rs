//! `std::io` over async sources, and async I/O over synchronous code.
//!
//! | you have | you want | use |
//! |---|---|---|
//! | a tokio socket, file or pipe | a synchronous crate to read or write it | [`SyncIo`] |
//! | the same of `futures-io` (smol, async-std) | as above | [`SyncIo`] over `FuturesIo` (feature `futures-io`), or over `tokio_util::compat` |
//! | a synchronous reader that waits inside (a decompressor over `SyncIo`) | tokio's `AsyncRead` | [`AsyncReader`] |
//! | a synchronous writer that waits inside | tokio's `AsyncWrite` | [`AsyncWriter`] |
//! | synchronous code that writes, on a multi-threaded server | a `Send` `AsyncRead`, or a response body | [`PinnedPool::reader`](crate::tokio::PinnedPool::reader) |
//! | synchronous code that reads, on a multi-threaded server | a `Send` `AsyncWrite` | [`PinnedPool::writer`](crate::tokio::PinnedPool::writer) |
//! | a synchronous reader or writer that computes for long | others to have a turn | [`Yielding`] |
//! | an error from somewhere above all this | to know whether it was a cancellation | [`await_error`] |
//!
//! ```
//! use fiberback::io::SyncIo;
//! use std::io::{BufRead, BufReader};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (ours, mut theirs) = tokio::io::duplex(64);
//! let lines = fiberback::run(move || {
//!     // Any synchronous code: a parser, a decompressor, `io::copy`.
//!     BufReader::new(SyncIo::new(ours)).lines().collect::<Result<Vec<_>, _>>()
//! });
//! let (lines, sent) = tokio::join!(lines, async move {
//!     theirs.write_all(b"one\ntwo\n").await // and then hangs up
//! });
//! sent?;
//! assert_eq!(lines?, ["one", "two"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What an operation does
//!
//! It polls the async source at once. If that is ready, nothing is switched and nothing is
//! allocated. If it is pending, the fiber is suspended until it is not.
//!
//! # What it saves, and what not
//!
//! The threads, and the two hand-overs between threads that each wait costs a `spawn_blocking` thread
//! with a bridge. So it is the faster, the more often the source lets the reader wait: many
//! connections, small pieces. Where the bytes are always there, and the time goes into parsing or
//! decompressing them, both take about that time; and a fiber computes on the thread of its executor,
//! not beside it. `benches/io.rs` measures both kinds.
//!
//! # Cancellation
//!
//! When the [`Run`](crate::Run) that an operation waits below is dropped, the operation returns an
//! [`io::Error`](std::io::Error), and so do all later ones: synchronous code cleans up and returns
//! as after any other failed read or write, and a `BufWriter` that flushes when dropped neither
//! hangs nor panics. The error's kind is [`Other`](std::io::ErrorKind::Other), never
//! [`Interrupted`](std::io::ErrorKind::Interrupted), which readers retry;
//! [`source`](std::error::Error::source) is the [`AwaitError`](crate::AwaitError), and
//! [`await_error`] finds it below whatever a crate has wrapped around it.
//!
//! Off a fiber an operation fails with such an error, too; it says what to type.
//!
//! Bytes that an operation has not reported are not lost: the source is only polled, so a
//! cancelled read has read nothing.

mod async_reader;
mod async_writer;
mod error;
#[cfg(feature = "futures-io")]
mod futures_io;
mod operation;
mod pinned;
mod sync_io;
mod yielding;

pub use async_reader::AsyncReader;
pub use async_writer::AsyncWriter;
pub use error::await_error;
#[cfg(feature = "futures-io")]
pub use futures_io::FuturesIo;
pub use pinned::{ByteReceiver, ByteSender, PinnedReader, PinnedWriter};
pub use sync_io::SyncIo;
pub use yielding::Yielding;
