//! Streams and sinks whose synchronous code runs on a `PinnedPool`, for any thread.

use crate::adapters::tokio::PinnedPool;
use crate::adapters::tokio::call::Owned;
use crate::adapters::tokio::handover::{Giver, Taker, handover};
use crate::bridge::{await_, try_await};
use crate::error::AwaitError;
use futures_core::Stream;
use futures_core::stream::FusedStream;
use futures_sink::Sink;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Items that the code may be ahead.
const CAPACITY: usize = 32;

impl PinnedPool {
    /// [`stream::from_fn`](super::from_fn) on a thread of the pool: a `Send` stream of what synchronous code
    /// yields as it goes.
    ///
    /// The code begins at once, and may be up to 32 items ahead.
    ///
    /// ```
    /// use futures_util::StreamExt;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let squares = pool.stream(|yielder| {
    ///     for n in 1..=3 {
    ///         fiberback::await_(tokio::task::yield_now());
    ///         yielder.yield_(n * n);
    ///     }
    /// });
    /// let squares = tokio::spawn(squares.collect::<Vec<u32>>()).await?;
    /// assert_eq!(squares, [1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the stream aborts the job: the code unwinds, soon, from where it waits.
    ///
    /// # Panics
    ///
    /// The poll panics with the panic of `produce`, after the items before it; and if the pool is closed, or
    /// has aborted the job.
    #[track_caller]
    pub fn stream<T, F>(&self, produce: F) -> PinnedStream<T>
    where
        F: FnOnce(&PinnedYielder<T>) + Send + 'static,
        T: Send + 'static,
    {
        let (giver, taker) = handover(CAPACITY);
        let job = self.spawn(move || produce(&PinnedYielder(giver)));
        PinnedStream { items: taker, job: Some(Owned(job)) }
    }

    /// [`stream::into_sink`](super::into_sink) on a thread of the pool: a `Send` sink whose items go to
    /// synchronous code, as an iterator.
    ///
    /// Up to 32 items may be on their way; a flush is ready when the code has taken all of them and asks for
    /// more, and `close` when it has returned. Items that it has not taken when it returns are dropped, and so
    /// are all later ones.
    ///
    /// ```
    /// use futures_util::SinkExt;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let (tell, sum) = tokio::sync::oneshot::channel();
    /// let mut sink = pool.sink(|items| tell.send(items.sum::<u32>()));
    /// tokio::spawn(async move {
    ///     for n in 1..=10 {
    ///         sink.feed(n).await?;
    ///     }
    ///     sink.close().await
    /// })
    /// .await?
    /// .unwrap();
    /// assert_eq!(sum.await?, 55);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `consume` returns, once, from the next operation.
    ///
    /// # Cancellation
    ///
    /// Dropping the sink aborts the job, unless `close` was ready: the code unwinds, soon, from where it waits.
    ///
    /// # Panics
    ///
    /// As [`stream`](Self::stream).
    #[track_caller]
    pub fn sink<T, E, F>(&self, consume: F) -> PinnedSink<T, E>
    where
        F: FnOnce(PinnedItems<T>) -> Result<(), E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (giver, taker) = handover(CAPACITY);
        let job = self.spawn(move || consume(PinnedItems(taker)));
        PinnedSink { items: Some(giver), job: Some(Owned(job)) }
    }
}

/// Hands items to a stream on another thread. Lent by [`PinnedPool::stream`].
pub struct PinnedYielder<T>(Giver<T>);

impl<T> PinnedYielder<T> {
    /// Hands over one item; waits while there are many that were not taken.
    ///
    /// # Cancellation
    ///
    /// When the stream is dropped, unwinds from here, as [`await_`].
    ///
    /// # Panics
    ///
    /// As [`await_`], in a destructor.
    #[track_caller]
    pub fn yield_(&self, item: T) {
        // If the stream is gone, the job has been aborted, or is about to be: by the next wait.
        if await_(poll_fn(|context| self.0.poll_ready(context))).is_err() {
            await_(std::future::pending::<()>());
        }
        self.0.give(item);
    }

    /// [`yield_`](Self::yield_) that returns an error where that would unwind or panic. The item is dropped
    /// then.
    ///
    /// # Errors
    ///
    /// As [`try_await`](crate::try_await).
    #[track_caller]
    pub fn try_yield(&self, item: T) -> Result<(), AwaitError> {
        if try_await(poll_fn(|context| self.0.poll_ready(context)))?.is_err() {
            try_await(std::future::pending::<()>())?;
        }
        self.0.give(item);
        Ok(())
    }
}

impl<T> fmt::Debug for PinnedYielder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedYielder").finish_non_exhaustive()
    }
}

/// The stream of what synchronous code on a [`PinnedPool`] yields. Made by [`PinnedPool::stream`]; fused.
#[must_use = "dropping it aborts the code"]
pub struct PinnedStream<T> {
    items: Taker<T>,
    /// `None` at the end.
    job: Option<Owned<()>>,
}

impl<T> Stream for PinnedStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        if this.job.is_none() {
            return Poll::Ready(None);
        }
        if let Some(item) = ready!(this.items.poll_take(context)) {
            return Poll::Ready(Some(item));
        }
        match ready!(Owned::poll_slot(&mut this.job, context)) {
            None | Some(Ok(())) => Poll::Ready(None),
            Some(Err(aborted)) => panic!("{aborted}"),
        }
    }
}

impl<T> FusedStream for PinnedStream<T> {
    fn is_terminated(&self) -> bool {
        self.job.is_none()
    }
}

impl<T> fmt::Debug for PinnedStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedStream").finish_non_exhaustive()
    }
}

/// The items that a [`PinnedSink`] gets. Given to the code by [`PinnedPool::sink`].
pub struct PinnedItems<T>(Taker<T>);

impl<T> Iterator for PinnedItems<T> {
    type Item = T;

    /// Waits for the next item, as [`await_`] does.
    fn next(&mut self) -> Option<T> {
        await_(poll_fn(|context| self.0.poll_take(context)))
    }
}

impl<T> std::iter::FusedIterator for PinnedItems<T> {}

impl<T> fmt::Debug for PinnedItems<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedItems").finish_non_exhaustive()
    }
}

/// A sink in front of synchronous code on a [`PinnedPool`]. Made by [`PinnedPool::sink`].
#[must_use = "dropping it aborts the code"]
pub struct PinnedSink<T, E> {
    /// `None` once closed, or when the code has ended.
    items: Option<Giver<T>>,
    /// `None` once the code has ended.
    job: Option<Owned<Result<(), E>>>,
}

impl<T, E> PinnedSink<T, E> {
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(match ready!(Owned::poll_slot(&mut self.job, context)) {
            None => Ok(()),
            Some(Ok(returned)) => returned,
            Some(Err(aborted)) => panic!("{aborted}"),
        })
    }
}

impl<T, E> Sink<T> for PinnedSink<T, E> {
    type Error = E;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        let this = self.get_mut();
        let Some(items) = &this.items else { return this.poll_end(context) };
        match ready!(items.poll_ready(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_gone) => this.poll_end(context),
        }
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), E> {
        if let Some(items) = &self.items {
            items.give(item);
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        let this = self.get_mut();
        let Some(items) = &this.items else { return this.poll_end(context) };
        match ready!(items.poll_idle(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_gone) => this.poll_end(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        let this = self.get_mut();
        this.items = None;
        this.poll_end(context)
    }
}

impl<T, E> Unpin for PinnedSink<T, E> {}

impl<T, E> Drop for PinnedSink<T, E> {
    /// Before the job is aborted, which takes effect later.
    fn drop(&mut self) {
        if let Some(items) = self.items.take() {
            items.abandon();
        }
    }
}

impl<T, E> fmt::Debug for PinnedSink<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedSink").finish_non_exhaustive()
    }
}
