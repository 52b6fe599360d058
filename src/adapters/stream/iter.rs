//! An iterator over a stream.

use crate::bridge::{await_, try_await};
use crate::error::AwaitError;
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;

/// Iterates over `stream`, waiting for each item.
///
/// Below [`run`](crate::run) only. Nothing is buffered: each call of `next` polls the stream once at
/// least, and suspends the fiber only while it is pending. A stream that is not `Unpin` goes in
/// pinned: `iter(Box::pin(stream))` or `iter(std::pin::pin!(stream))`; `iter(&mut stream)` lends it.
///
/// ```
/// use futures_util::stream;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let total: u32 = fiberback::run(|| {
///     let mut total = 0;
///     for number in fiberback::stream::iter(stream::iter([1, 2, 3])) {
///         total += number;
///     }
///     total
/// })
/// .await;
/// assert_eq!(total, 6);
/// # }
/// ```
///
/// # Cancellation and panics
///
/// `next` waits as [`await_`] does: it unwinds when the [`Run`](crate::Run) is dropped, and panics
/// off a fiber. No item is lost: the stream is only polled. [`Iter::try_next`] returns an error
/// instead.
pub const fn iter<S: Stream + Unpin>(stream: S) -> Iter<S> {
    Iter { stream }
}

/// An iterator over a stream. Made by [`iter`].
///
/// Like the stream, it says nothing about what follows the end; [`Iterator::fuse`] does.
#[derive(Clone, Debug)]
#[must_use = "iterators are lazy"]
pub struct Iter<S> {
    stream: S,
}

impl<S> Iter<S> {
    /// The stream.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Returns the stream, with all the items that were not asked for.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: Stream + Unpin> Iter<S> {
    /// Waits for the next item; for destructors, and where unwinding is not welcome.
    ///
    /// # Errors
    ///
    /// As [`try_await`].
    #[track_caller]
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<S::Item>, AwaitError> {
        try_await(poll_fn(|context| Pin::new(&mut self.stream).poll_next(context)))
    }
}

impl<S: Stream + Unpin> Iterator for Iter<S> {
    type Item = S::Item;

    #[inline]
    fn next(&mut self) -> Option<S::Item> {
        await_(poll_fn(|context| Pin::new(&mut self.stream).poll_next(context)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}
