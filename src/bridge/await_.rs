//! Waiting for a future from synchronous code.

#![allow(unsafe_code)]

use super::inbox::Inbox;
use super::waiter::{self, Waiter};
use crate::error::AwaitError;
use crate::fiber::{Site, SuspendError, current};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Waits for `future`, however deep below [`run`](crate::run) the call is.
///
/// The future is polled at once; if it is ready, nothing is switched. Otherwise the whole
/// synchronous call stack, up to `run`, is suspended, other tasks go on, on this thread too, and the
/// call returns when the future is ready. The future may borrow from the stack, and need not be
/// `Send`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// fn plain_function(seconds: f32) -> &'static str {
///     let nap = tokio::time::sleep(std::time::Duration::from_secs_f32(seconds));
///     fiberback::await_(nap);
///     "rested"
/// }
/// assert_eq!(fiberback::run(|| plain_function(0.001)).await, "rested");
/// # }
/// ```
///
/// # Cancellation
///
/// When the [`Run`](crate::Run) is dropped while this call waits, the call does not return: the
/// stack is unwound from here, running destructors, without a panic message. Use [`try_await`] to
/// get an error instead. On a fiber that is already cancelled, the call unwinds again without
/// polling the future; except in a destructor that runs *during* that unwinding, where the future
/// is polled once with a waker that does nothing, and its output is returned if it is ready.
///
/// # Panics
///
/// * Off a fiber, with a message that says what to type.
/// * During a panic (in a destructor), if the future is not ready: other tasks must not run inside
///   somebody's panic. A panic in a destructor during unwinding aborts, so use [`try_await`] there.
/// * In a `tracing` subscriber of a scope, while it is told of something, if the future is not ready (feature
///   `tracing`).
/// * If the future panics.
#[track_caller]
#[inline(always)]
pub fn await_<F: IntoFuture>(future: F) -> F::Output {
    match wait(pin!(future.into_future())) {
        Ok(output) => output,
        Err(error) => raise(error),
    }
}

/// [`await_`] that returns an error where that would panic or unwind.
///
/// The way to wait in destructors and in I/O traits, where unwinding is not welcome.
///
/// # Errors
///
/// * [`is_off_fiber`](AwaitError::is_off_fiber): not called below [`run`](crate::run). The future
///   was not polled.
/// * [`is_cancelled`](AwaitError::is_cancelled): the [`Run`](crate::Run) was dropped, now or
///   earlier. Return soon: code that keeps asking, many thousand times, is taken for an endless
///   loop and the process is aborted with a message.
/// * [`is_unwinding`](AwaitError::is_unwinding): called during a panic, and the future was not
///   ready.
/// * [`is_in_subscriber`](AwaitError::is_in_subscriber): called by a `tracing` subscriber of a scope while it
///   is told of something, and the future was not ready.
///
/// ```
/// let error = fiberback::try_await(async { 1 }).unwrap_err();
/// assert!(error.is_off_fiber());
/// ```
#[track_caller]
#[inline]
pub fn try_await<F: IntoFuture>(future: F) -> Result<F::Output, AwaitError> {
    wait(pin!(future.into_future()))
}

/// True below [`run`](crate::run): where [`await_`] can wait.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert!(!fiberback::on_fiber());
/// assert!(fiberback::run(fiberback::on_fiber).await);
/// # }
/// ```
#[inline]
pub fn on_fiber() -> bool {
    current::with(|current| Waiter::of(&current).is_some())
}

/// The inbox of the fiber that the caller runs on; `None` off a fiber.
pub(crate) fn inbox() -> Option<Arc<Inbox>> {
    current::with(|current| Some(Waiter::of(&current)?.inbox(&current)))
}

#[track_caller]
#[inline(always)]
fn wait<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, AwaitError> {
    // SAFETY: it is passed down only, to calls that return before this frame ends.
    let current = unsafe { current::here() };
    let waker = current.hot.get().cast::<Waker>();
    if waker.is_null() {
        return current.waits_within(Site::caller(), || waiter::wait_slowly(current, future));
    }
    // SAFETY: a non-null `hot` points at the fiber's own waker, and says that no poll is unfinished, so
    // this is the outermost wait, which alone may replace it, and does so only between polls.
    match waiter::poll_marking(current, unsafe { &*waker }, future.as_mut()) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => {
            current.waits_at(Site::caller());
            // SAFETY: `hot` was not null.
            unsafe { waiter::wait_outermost(current, future) }
        }
    }
}

/// Leaves an [`await_`] that cannot return.
#[cold]
#[track_caller]
pub(crate) fn raise(error: AwaitError) -> ! {
    // Where the fiber is cancelled because its owner is unwinding, `CANCELLED_UNWINDING` does not
    // mean that this is a destructor: code that has caught the cancellation may be waiting again.
    let silent = error == AwaitError::CANCELLED
        || error == AwaitError::REMOTE_CANCELLED
        || (error == AwaitError::CANCELLED_UNWINDING
            && current::with(|current| current.was_resumed_panicking()));
    if silent {
        SuspendError::CANCELLED.unwind();
    }
    panic!("{error}");
}
