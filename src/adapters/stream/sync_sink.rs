//! Sending to a sink from synchronous code.

use crate::bridge::await_;
use futures_sink::Sink;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;

/// A `Sink` for synchronous code.
///
/// Below [`run`](crate::run) only. A sink that is not `Unpin` goes in pinned:
/// `SyncSink::new(Box::pin(sink))`.
///
/// ```
/// use fiberback::stream::SyncSink;
/// use tokio_util::sync::PollSender;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
/// let sending = fiberback::run(move || {
///     let mut sink = SyncSink::new(PollSender::new(sender));
///     sink.send_all(1..=3)?;
///     sink.send(4)?;
///     sink.close()
/// });
/// let receiving = async {
///     let mut sum = 0;
///     while let Some(number) = receiver.recv().await {
///         sum += number;
///     }
///     sum
/// };
/// let (sent, sum) = tokio::join!(sending, receiving);
/// assert!(sent.is_ok());
/// assert_eq!(sum, 10);
/// # }
/// ```
///
/// # Errors
///
/// Those of the sink.
///
/// # Cancellation and panics
///
/// All methods wait as [`await_`] does: they unwind when the [`Run`](crate::Run) is dropped, and
/// panic off a fiber. An item that the sink had not taken by then is dropped.
///
/// Dropping a `SyncSink` neither flushes nor closes the sink.
pub struct SyncSink<S, T> {
    sink: S,
    /// A type may be a sink of several item types; this one is meant.
    item: PhantomData<fn(T)>,
}

impl<S, T> SyncSink<S, T> {
    /// The sink.
    pub const fn get_ref(&self) -> &S {
        &self.sink
    }

    /// The sink.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Returns the sink, neither flushed nor closed.
    pub fn into_inner(self) -> S {
        self.sink
    }
}

impl<S: Sink<T> + Unpin, T> SyncSink<S, T> {
    /// Wraps `sink`. May be called anywhere.
    pub const fn new(sink: S) -> Self {
        Self { sink, item: PhantomData }
    }

    /// Waits until the sink takes `item`, but not until it is flushed.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    #[track_caller]
    pub fn feed(&mut self, item: T) -> Result<(), S::Error> {
        await_(poll_fn(|context| Pin::new(&mut self.sink).poll_ready(context)))?;
        Pin::new(&mut self.sink).start_send(item)
    }

    /// Waits until the sink has taken `item` and is flushed.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    #[track_caller]
    pub fn send(&mut self, item: T) -> Result<(), S::Error> {
        self.feed(item)?;
        self.flush()
    }

    /// [Feeds](Self::feed) all items, then flushes once.
    ///
    /// # Errors
    ///
    /// Those of the sink; the items after the one that failed are not asked for.
    #[track_caller]
    pub fn send_all(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), S::Error> {
        items.into_iter().try_for_each(|item| self.feed(item))?;
        self.flush()
    }

    /// Waits until everything taken so far is through.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    #[track_caller]
    pub fn flush(&mut self) -> Result<(), S::Error> {
        await_(poll_fn(|context| Pin::new(&mut self.sink).poll_flush(context)))
    }

    /// Flushes and closes the sink.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    #[track_caller]
    pub fn close(&mut self) -> Result<(), S::Error> {
        await_(poll_fn(|context| Pin::new(&mut self.sink).poll_close(context)))
    }
}

impl<S: fmt::Debug, T> fmt::Debug for SyncSink<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSink").field("sink", &self.sink).finish()
    }
}
