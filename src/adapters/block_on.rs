//! Waiting for a future wherever synchronous code happens to run.

use crate::bridge::{await_, on_fiber};
use crate::error::AwaitError;

/// Waits for `future`, from synchronous code that does not know where it runs.
///
/// * Below [`run`](crate::run): suspends the fiber, as [`await_`](crate::await_) does. This is how
///   a nested `block_on` works on any runtime flavour, where tokio's own would panic with "Cannot
///   start a runtime from within a runtime".
/// * On a thread with no runtime: drives the future here, blocking the thread. With the feature
///   `tokio`, on a current-thread runtime that this thread keeps for the next call, so that timers
///   and sockets work. In a destructor of a thread-local value, where tokio's own may be gone, the
///   thread parks until others have done what the future waits for.
///
/// ```
/// fn fetch() -> u32 {
///     fiberback::block_on(async { 7 })
/// }
/// assert_eq!(fetch(), 7); // no runtime at all
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(fiberback::run(fetch).await, 7); // inside one
/// # });
/// ```
///
/// # Cancellation
///
/// As [`await_`](crate::await_) below `run`; none otherwise.
///
/// # Panics
///
/// Inside a tokio runtime but off a fiber, where blocking would bring the runtime to a halt, with a
/// message that says what to type; and as [`await_`](crate::await_).
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    if on_fiber() {
        return await_(future);
    }
    match drive_here(future.into_future()) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// Drives `future` on this thread, if that cannot hold up a runtime.
#[cfg(feature = "tokio")]
fn drive_here<F: Future>(future: F) -> Result<F::Output, AwaitError> {
    use std::cell::RefCell;
    use tokio::runtime::{Builder, Handle, Runtime};

    thread_local! {
        /// Kept for the next call; taken out while in use.
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }

    match Handle::try_current() {
        Ok(_) => return Err(AwaitError::IN_RUNTIME),
        // In a destructor at the end of a thread: no runtime can run here any more.
        Err(gone) if gone.is_thread_local_destroyed() => return Ok(park_until_ready(future)),
        Err(_) => {}
    }
    let kept = RUNTIME.try_with(|kept| kept.borrow_mut().take()).ok().flatten();
    let runtime = kept.unwrap_or_else(|| {
        Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has the resources for a current-thread runtime")
    });
    let output = runtime.block_on(future);
    let _ = RUNTIME.try_with(|kept| kept.borrow_mut().replace(runtime));
    Ok(output)
}

/// Drives `future` on this thread, if that cannot hold up a runtime.
#[cfg(not(feature = "tokio"))]
fn drive_here<F: Future>(future: F) -> Result<F::Output, AwaitError> {
    Ok(park_until_ready(future))
}

/// Drives `future` on this thread, parking it meanwhile; with nothing below it that sees to timers
/// and sockets.
pub(super) fn park_until_ready<F: Future>(future: F) -> F::Output {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake-up before this, or a spurious one, only costs another poll.
            Poll::Pending => thread::park(),
        }
    }
}
