//! Iterators over streams, and streams and sinks of synchronous code.
//!
//! | you have | you want | use |
//! |---|---|---|
//! | a `Stream` | a `for` loop, or an iterator for a synchronous crate | [`iter`] |
//! | an iterator that waits inside | a `Stream` | [`from_iter`] |
//! | synchronous code that produces items as it goes | a `Stream` | [`from_fn`], [`try_from_fn`] |
//! | a `Sink` | to send from synchronous code | [`SyncSink`] |
//! | synchronous code that takes items as they come | a `Sink` | [`into_sink`] |
//! | either of these two on a multi-threaded server | a `Send` stream or sink | `PinnedPool::stream`, `PinnedPool::sink` (feature `tokio`) |
//! | a channel | either of its ends in synchronous code | see [below](#channels) |
//!
//! ```
//! use futures_util::{StreamExt, stream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // From a stream through synchronous code ...
//! let words = stream::iter(["one", "two", "three"]).then(|word| async move { word.to_owned() });
//! let long = fiberback::stream::from_iter(
//!     fiberback::stream::iter(Box::pin(words)).filter(|word| word.len() > 3),
//! );
//! // ... to a stream.
//! assert_eq!(long.collect::<Vec<_>>().await, ["three"]);
//! # }
//! ```
//!
//! # Channels
//!
//! They need no adapter: their methods are futures.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use fiberback::await_;
//!
//! let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
//! let producer = fiberback::run(move || {
//!     for number in 1..=10 {
//!         // Waits for room; an error means that nobody receives any more.
//!         await_(sender.send(number)).unwrap();
//!     }
//! });
//! let consumer = fiberback::run(move || {
//!     // An iterator until all senders are gone.
//!     std::iter::from_fn(|| await_(receiver.recv())).sum::<u32>()
//! });
//! assert_eq!(tokio::join!(producer, consumer).1, 55);
//! # }
//! ```
//!
//! Receivers that are streams (`async-channel`, `flume`, `tokio_stream::wrappers`) go into [`iter`].

mod exchange;
mod iter;
#[cfg(feature = "tokio")]
mod pinned;
mod producer;
mod sink;
mod sync_sink;

pub use iter::{Iter, iter};
#[cfg(feature = "tokio")]
pub use pinned::{PinnedItems, PinnedSink, PinnedStream, PinnedYielder};
pub use producer::{Producer, Yielder, from_fn, from_iter, try_from_fn};
pub use sink::{Consumer, Items, into_sink};
pub use sync_sink::SyncSink;
