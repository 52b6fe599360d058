//! A stream of what synchronous code produces.

use super::exchange::Exchange;
use crate::bridge::{Builder, Run, await_, try_await};
use crate::error::{AwaitError, StackError};
use futures_core::Stream;
use futures_core::stream::FusedStream;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The items of an iterator that waits inside, as a stream.
///
/// The iterator runs on a fiber, no further ahead than it is asked: each poll continues it up to its
/// next item.
///
/// ```
/// use futures_util::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let squares = (1..=3).map(|n| fiberback::await_(async move { n * n }));
/// let squares: Vec<i32> = fiberback::stream::from_iter(squares).collect().await;
/// assert_eq!(squares, [1, 4, 9]);
/// # }
/// ```
///
/// # Cancellation and panics
///
/// As [`from_fn`].
#[track_caller]
pub fn from_iter<I>(iterator: I) -> Producer<I::Item>
where
    I: IntoIterator + 'static,
{
    from_fn(move |yielder| iterator.into_iter().for_each(|item| yielder.yield_(item)))
}

/// A stream of what synchronous code yields as it goes.
///
/// `produce` runs on a fiber, so it may wait anywhere. It starts at the first poll, and stops in
/// [`yield_`](Yielder::yield_) until the item has been taken and the next one is asked for.
///
/// ```
/// use fiberback::stream::Yielder;
/// use futures_util::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // A recursive walk, which is easy as a function and tedious as a stream.
/// fn walk(depth: u32, yielder: &Yielder<u32>) {
///     fiberback::await_(tokio::task::yield_now());
///     if depth > 0 {
///         walk(depth - 1, yielder);
///         yielder.yield_(depth);
///         walk(depth - 1, yielder);
///     }
/// }
/// let nodes: Vec<u32> = fiberback::stream::from_fn(|yielder| walk(3, yielder)).collect().await;
/// assert_eq!(nodes, [1, 2, 1, 3, 1, 2, 1]);
/// # }
/// ```
///
/// # Cancellation
///
/// Dropping the stream unwinds `produce` from where it stands: in `yield_` or in a wait. An item that
/// was yielded but not taken is dropped.
///
/// # Panics
///
/// Panics if no stack can be had; use [`Producer::with_builder`] for an error instead. A panic in
/// `produce` comes out of the poll; the stream is then at its end.
#[track_caller]
pub fn from_fn<T, F>(produce: F) -> Producer<T>
where
    F: FnOnce(&Yielder<T>) + 'static,
    T: 'static,
{
    match Producer::with_builder(&Builder::new(), produce) {
        Ok(producer) => producer,
        Err(error) => panic!(
            "fiberback::stream: {error}. `stream::Producer::with_builder` returns this as an error"
        ),
    }
}

/// [`from_fn`] for code that may fail: its error is the stream's last item.
///
/// ```
/// use futures_util::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let numbers = fiberback::stream::try_from_fn(|yielder| {
///     for word in ["1", "2", "three"] {
///         yielder.yield_(word.parse::<u32>()?);
///     }
///     Ok::<_, std::num::ParseIntError>(())
/// });
/// let numbers: Vec<_> = numbers.collect().await;
/// assert!(matches!(numbers[..], [Ok(1), Ok(2), Err(_)]));
/// # }
/// ```
///
/// # Cancellation and panics
///
/// As [`from_fn`].
#[track_caller]
pub fn try_from_fn<T, E, F>(produce: F) -> Producer<Result<T, E>>
where
    F: FnOnce(&OkYielder<'_, T, E>) -> Result<(), E> + 'static,
    T: 'static,
    E: 'static,
{
    from_fn(move |yielder| {
        if let Err(error) = produce(&OkYielder(yielder)) {
            yielder.yield_(Err(error));
        }
    })
}

/// Hands items to a stream, from the synchronous code behind it. Lent by [`from_fn`].
pub struct Yielder<T> {
    exchange: Rc<Exchange<T>>,
}

impl<T> Yielder<T> {
    /// Hands over one item, and waits until the stream is asked for the next.
    ///
    /// # Cancellation
    ///
    /// When the stream is dropped, unwinds from here, as [`await_`].
    /// [`try_yield`](Self::try_yield) returns an error instead.
    ///
    /// # Panics
    ///
    /// In a destructor, during a panic.
    #[track_caller]
    pub fn yield_(&self, item: T) {
        self.exchange.put(item);
        await_(self.exchange.emptied());
    }

    /// [`yield_`](Self::yield_) that returns an error where that would unwind or panic. The item is
    /// then dropped with the stream.
    ///
    /// # Errors
    ///
    /// As [`try_await`](crate::try_await).
    #[track_caller]
    pub fn try_yield(&self, item: T) -> Result<(), AwaitError> {
        self.exchange.put(item);
        try_await(self.exchange.emptied())
    }
}

impl<T> fmt::Debug for Yielder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}

/// A [`Yielder`] of the `Ok` items. Lent by [`try_from_fn`].
#[derive(Debug)]
pub struct OkYielder<'a, T, E>(&'a Yielder<Result<T, E>>);

impl<T, E> OkYielder<'_, T, E> {
    /// As [`Yielder::yield_`], for an `Ok` item.
    ///
    /// # Panics
    ///
    /// As [`Yielder::yield_`].
    #[track_caller]
    pub fn yield_(&self, item: T) {
        self.0.yield_(Ok(item));
    }

    /// As [`Yielder::try_yield`], for an `Ok` item.
    ///
    /// # Errors
    ///
    /// As [`Yielder::try_yield`].
    #[track_caller]
    pub fn try_yield(&self, item: T) -> Result<(), AwaitError> {
        self.0.try_yield(Ok(item))
    }
}

/// The stream of what synchronous code yields. Made by [`from_iter`], [`from_fn`] and
/// [`try_from_fn`].
///
/// Like [`Run`] it is `!Send`. It is fused: after the end it stays at its end.
#[must_use = "streams do nothing unless polled"]
pub struct Producer<T: 'static> {
    /// `None` once the code has returned or panicked.
    run: Option<Run<()>>,
    exchange: Rc<Exchange<T>>,
}

impl<T: 'static> Producer<T> {
    /// [`from_fn`] with a name, a stack size or a pool of one's choice.
    ///
    /// # Errors
    ///
    /// As [`Builder::run`].
    #[track_caller]
    pub fn with_builder<F>(builder: &Builder, produce: F) -> Result<Self, StackError>
    where
        F: FnOnce(&Yielder<T>) + 'static,
    {
        let exchange = Exchange::new();
        let yielder = Yielder { exchange: Rc::clone(&exchange) };
        let run = Some(builder.run(move || produce(&yielder))?);
        Ok(Self { run, exchange })
    }
}

impl<T> Unpin for Producer<T> {}

impl<T: 'static> Stream for Producer<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        let Some(mut run) = this.run.take() else { return Poll::Ready(None) };
        // A panic in here leaves `run` taken.
        if Pin::new(&mut run).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        this.run = Some(run);
        match this.exchange.take() {
            Some(item) => Poll::Ready(Some(item)),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, if self.run.is_none() { Some(0) } else { None })
    }
}

impl<T: 'static> FusedStream for Producer<T> {
    fn is_terminated(&self) -> bool {
        self.run.is_none()
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("run", &self.run).finish_non_exhaustive()
    }
}
