//! A sink in front of synchronous code.

use super::exchange::Exchange;
use crate::bridge::{Builder, Run, await_, try_await};
use crate::error::{AwaitError, StackError};
use futures_sink::Sink;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A sink whose items go to synchronous code, as an iterator.
///
/// `consume` runs on a fiber, so it may wait anywhere. It starts with the first operation on the
/// sink, and stops in [`Items::next`] until an item is there.
///
/// ```
/// use futures_util::SinkExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), String> {
/// let (sender, receiver) = tokio::sync::oneshot::channel();
/// let mut sink = fiberback::stream::into_sink(|numbers| {
///     let mut total = 0_u32;
///     for number in numbers {
///         fiberback::await_(tokio::task::yield_now());
///         total += number;
///     }
///     sender.send(total).map_err(|_| String::from("nobody asked"))
/// });
/// for number in [1, 2, 3] {
///     sink.send(number).await?;
/// }
/// sink.close().await?;
/// assert_eq!(receiver.await, Ok(6));
/// # Ok(())
/// # }
/// ```
///
/// # Buffering
///
/// One item at most is on its way. A flush is ready when the code has dealt with all items and asks
/// for another; a close, when the code has returned.
///
/// # Errors
///
/// When the code returns an error, the operation under way fails with it. When the code has
/// returned before the sink was closed, further items are dropped, as they are by a code that reads
/// and ignores them; see [`Consumer::is_done`].
///
/// # Cancellation
///
/// Dropping the sink without closing it unwinds `consume` from where it waits. Dropping a pending
/// `send` or `flush` future loses nothing.
///
/// # Panics
///
/// Panics if no stack can be had; use [`Consumer::with_builder`] for an error instead. A panic in
/// `consume` comes out of the poll.
#[track_caller]
pub fn into_sink<T, E, F>(consume: F) -> Consumer<T, E>
where
    F: FnOnce(Items<T>) -> Result<(), E> + 'static,
    T: 'static,
    E: 'static,
{
    match Consumer::with_builder(&Builder::new(), consume) {
        Ok(consumer) => consumer,
        Err(error) => panic!(
            "fiberback::stream: {error}. `stream::Consumer::with_builder` returns this as an error"
        ),
    }
}

/// What is sent to a sink, for the synchronous code behind it. Given by [`into_sink`].
///
/// Ends when the sink is closed or dropped, and when the code behind it has returned. It may be moved to
/// another fiber of the thread; the sink then waits for that one.
pub struct Items<T> {
    exchange: Rc<Exchange<T>>,
}

impl<T> Items<T> {
    /// Waits for the next item; `None` once the sink is closed.
    ///
    /// # Errors
    ///
    /// As [`try_await`](crate::try_await). `next` unwinds or panics instead.
    #[track_caller]
    pub fn try_next(&mut self) -> Result<Option<T>, AwaitError> {
        try_await(self.exchange.next())
    }
}

impl<T> Iterator for Items<T> {
    type Item = T;

    /// Waits for the next item, as [`await_`] does.
    fn next(&mut self) -> Option<T> {
        await_(self.exchange.next())
    }
}

impl<T> std::iter::FusedIterator for Items<T> {}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

/// A sink in front of synchronous code. Made by [`into_sink`]. Like [`Run`] it is `!Send`.
#[must_use = "sinks do nothing unless polled"]
pub struct Consumer<T: 'static, E: 'static> {
    /// `None` once the code has returned or panicked.
    run: Option<Run<Result<(), E>>>,
    exchange: Rc<Exchange<T>>,
}

impl<T: 'static, E: 'static> Consumer<T, E> {
    /// [`into_sink`] with a name, a stack size or a pool of one's choice.
    ///
    /// # Errors
    ///
    /// As [`Builder::run`].
    #[track_caller]
    pub fn with_builder<F>(builder: &Builder, consume: F) -> Result<Self, StackError>
    where
        F: FnOnce(Items<T>) -> Result<(), E> + 'static,
    {
        let exchange = Exchange::new();
        let items = Items { exchange: Rc::clone(&exchange) };
        let run = Some(builder.run(move || consume(items))?);
        Ok(Self { run, exchange })
    }

    /// True once the code has returned: further items are dropped.
    pub fn is_done(&self) -> bool {
        self.run.is_none()
    }

    /// Lets the code go on until it asks for an item that is not there, or returns.
    fn poll_until_hungry(&mut self, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        let Some(mut run) = self.run.take() else {
            drop(self.exchange.take());
            return Poll::Ready(Ok(()));
        };
        self.exchange.begin_poll(context.waker());
        // A panic in here leaves `run` taken.
        let polled = {
            let mut ended = scopeguard::guard(true, |ended| {
                self.exchange.end_poll(!ended);
                if ended {
                    self.end();
                }
            });
            let polled = Pin::new(&mut run).poll(context);
            *ended = polled.is_ready();
            polled
        };
        if polled.is_ready() {
            return polled;
        }
        self.run = Some(run);
        if self.exchange.is_hungry() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// The code takes no more items; nor does whoever it has given them to.
    fn end(&self) {
        drop(self.exchange.take());
        self.exchange.close();
    }
}

impl<T, E> Drop for Consumer<T, E> {
    fn drop(&mut self) {
        // The code is unwound, and then those that it has given its items to hear that it is over.
        drop(self.run.take());
        self.exchange.close();
    }
}

impl<T, E> Unpin for Consumer<T, E> {}

impl<T: 'static, E: 'static> Sink<T> for Consumer<T, E> {
    type Error = E;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.get_mut().poll_until_hungry(context)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), E> {
        if !self.is_done() {
            self.exchange.put(item);
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.get_mut().poll_until_hungry(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        let this = self.get_mut();
        this.exchange.close();
        ready!(this.poll_until_hungry(context))?;
        // Closed, the code never waits for an item; ready means that it has returned.
        debug_assert!(this.is_done());
        Poll::Ready(Ok(()))
    }
}

impl<T, E> fmt::Debug for Consumer<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("run", &self.run).finish_non_exhaustive()
    }
}
