//! A fiber as a task of the current `LocalSet`.

use ::tokio::task::{self, JoinHandle};

/// Spawns synchronous code, below which [`await_`](crate::await_) waits, as a task on the current
/// thread: `tokio::task::spawn_local(fiberback::run(f))`.
///
/// The task runs whether or not the handle is awaited; dropping the handle detaches it.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # tokio::task::LocalSet::new().block_on(&runtime, async {
/// fn plain_function() -> u32 {
///     fiberback::await_(tokio::task::yield_now());
///     7
/// }
/// let task = fiberback::tokio::spawn_local(plain_function);
/// assert_eq!(task.await.unwrap(), 7);
/// # });
/// ```
///
/// # Cancellation
///
/// [`JoinHandle::abort`], or dropping the `LocalSet`, unwinds the code from where it waits, so
/// destructors run. The handle is ready, with an error for which `is_cancelled` is true, after
/// that.
///
/// # Errors
///
/// A panic in `f` comes out of the handle, as a [`JoinError`](::tokio::task::JoinError) for which
/// `is_panic` is true.
///
/// # Panics
///
/// Outside a `LocalSet` (or another context where tokio's own `spawn_local` works), and if no stack
/// can be had. To handle the latter, spawn what [`Builder::run`](crate::Builder::run) returns.
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    task::spawn_local(crate::run(f))
}
