//! Waiting for a future wherever synchronous code happens to run.

use super::park::may_park;
use crate::bridge::{await_, on_fiber, try_await};
use crate::error::AwaitError;

/// Waits for `future`, from synchronous code that does not know where it runs.
///
/// With the feature `tokio`:
///
/// | called | what happens |
/// |---|---|
/// | below [`run`](crate::run), in a tokio runtime | the fiber suspends, as in [`await_`](crate::await_) |
/// | below [`run`](crate::run), on another executor | the same; sockets and timers are those of the background runtime |
/// | on a thread with no runtime, rayon's for instance | the thread blocks; sockets and timers are those of the background runtime |
/// | below another `block_on` there, this one or another executor's | the same |
/// | on a `spawn_blocking` thread, in `block_in_place` | the thread blocks; sockets and timers are those of its runtime |
/// | on a plain thread under a guard of `Handle::enter` | the same; but of a current-thread runtime, which perhaps nobody drives, as with no runtime |
/// | in a destructor of a thread-local value, at the end of the thread | the thread blocks; nothing new can be begun on a runtime. On Windows refused: that holds the loader's lock there, which threads need to begin and to end |
/// | in a task or in the main future of a tokio runtime, off a fiber | refused: blocking would bring the runtime to a halt |
///
/// This is how a nested `block_on` works on any runtime flavour, where tokio's own would panic with
/// "Cannot start a runtime from within a runtime".
///
/// The *background runtime* is one for the process, on one thread, and started by the first call that the table
/// sends there: also by one whose future turns out to be ready, or to need no runtime, since it would panic if
/// it looked for one in vain, and tokio tells nobody beforehand. It has six descriptors, and no call or thread
/// has any beside it. See `fiberback::tokio::background` for how to have another (without I/O it has no
/// descriptor), or to end it.
///
/// A future that looks for its runtime when it is made, as `tokio::time::sleep(..)` does, is not moved by this: made on
/// a thread with no runtime it panics, and made under a guard of a current-thread runtime that nobody drives it waits
/// for ever, as with tokio's own `Handle::block_on`. Made inside, `block_on(async { sleep(..).await })`, it finds the
/// runtime of the table.
///
/// What the future spawns, as a client does for its connections, is on the runtime that the table names. So if a
/// client is used both in a runtime and on threads outside of it, some of its connections are on a runtime that
/// may have ended by the next call, or that nobody drives then (a current-thread one, between two calls of
/// its `block_on`): that call waits for ever. `fiberback::Facade` keeps a client on one runtime, whoever calls.
///
/// Without the feature there is no runtime under it: the thread blocks, and others must do what the
/// future waits for.
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
/// Where the table says "refused", with a message that says what to type; if the system has no
/// resources for the background runtime; and as [`await_`](crate::await_). [`try_block_on`] returns an
/// error instead.
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let future = future.into_future();
    if on_fiber() {
        return match on_a_fiber(future) {
            Ok(future) => await_(future),
            Err(error) => panic!("{error}"),
        };
    }
    match may_park().and_then(|()| off_a_fiber(future)) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// [`block_on`] that returns an error where that would panic or unwind.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// // An async task that calls synchronous code without `fiberback::run`.
/// let error = fiberback::try_block_on(async { 7 }).unwrap_err();
/// assert!(error.is_in_runtime());
/// # });
/// ```
///
/// # Errors
///
/// * [`is_in_runtime`](AwaitError::is_in_runtime): off a fiber, on a thread that a tokio runtime needs.
///   The future was not polled.
/// * [`is_off_fiber`](AwaitError::is_off_fiber) alone: on Windows, in the destructor of a thread-local value. The
///   future was not polled.
/// * [`is_no_runtime`](AwaitError::is_no_runtime): the system has no resources for the background
///   runtime. The future was not polled.
/// * On a fiber, as [`try_await`].
#[track_caller]
pub fn try_block_on<F: IntoFuture>(future: F) -> Result<F::Output, AwaitError> {
    let future = future.into_future();
    if on_fiber() {
        return try_await(on_a_fiber(future)?);
    }
    may_park()?;
    off_a_fiber(future)
}

#[cfg(feature = "tokio")]
use with_tokio::{off_a_fiber, on_a_fiber};
#[cfg(not(feature = "tokio"))]
use without_tokio::{off_a_fiber, on_a_fiber};

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::AwaitError;
    use crate::adapters::park::park_until_ready;
    use crate::adapters::tokio::background;
    use crate::adapters::tokio::blocking::{self, Place};
    use crate::adapters::tokio::within::within;
    use tokio::runtime::Handle;

    /// Blocks this thread until `future` is ready, if nobody else needs the thread.
    pub(super) fn off_a_fiber<F: Future>(future: F) -> Result<F::Output, AwaitError> {
        match blocking::place() {
            Place::Driving => Err(AwaitError::IN_RUNTIME),
            Place::Within | Place::Ending => Ok(park_until_ready(future)),
            Place::Outside => Ok(park_until_ready(within(Some(background()?), future))),
        }
    }

    /// Makes sure that `future` finds a runtime when it is polled on a fiber.
    pub(super) fn on_a_fiber<F: Future>(
        future: F,
    ) -> Result<impl Future<Output = F::Output>, AwaitError> {
        let runtime = match Handle::try_current() {
            Err(none) if none.is_missing_context() => Some(background()?),
            _ => None,
        };
        Ok(within(runtime, future))
    }

    fn background() -> Result<Handle, AwaitError> {
        background::handle().map_err(|error| AwaitError::no_runtime(error.kind()))
    }
}

#[cfg(not(feature = "tokio"))]
mod without_tokio {
    use super::AwaitError;
    use crate::adapters::park::park_until_ready;

    /// Blocks this thread until `future` is ready.
    pub(super) fn off_a_fiber<F: Future>(future: F) -> Result<F::Output, AwaitError> {
        Ok(park_until_ready(future))
    }

    /// There is no runtime to be found.
    pub(super) fn on_a_fiber<F: Future>(future: F) -> Result<F, AwaitError> {
        Ok(future)
    }
}
