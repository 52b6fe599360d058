//! A job that belongs to the future which waits for it.

use super::pinned_pool::PinnedPool;
use crate::fiber::Site;
use std::fmt;
use std::panic;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

impl PinnedPool {
    /// [`run`](crate::run) on a thread of the pool: a `Send` future of what `f` returns.
    ///
    /// Unlike what [`spawn`](Self::spawn) returns, the future owns the job, which begins at once, whether or
    /// not it is polled.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let answer = pool.run(|| fiberback::await_(async { 6 * 7 })).await;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future aborts the job: its code unwinds, soon, from where it waits.
    ///
    /// # Panics
    ///
    /// The future panics with the panic of `f`; and if the pool is closed, or has aborted the job.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> PinnedRun<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        PinnedRun(Owned(self.spawn(f)))
    }

    /// Makes a handler for a web framework of a synchronous function of the request: [`run`](Self::run) with
    /// an argument.
    ///
    /// For axum the argument is any extractor, or a tuple of them; for hyper's or tower's `service_fn` it is
    /// the request. When the client hangs up, and the framework drops the handler's future, the function
    /// unwinds from where it waits.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// use axum::extract::{Path, State};
    /// use axum::routing::{Router, get};
    ///
    /// fn greeting(name: &str, more: &str) -> String {
    ///     fiberback::await_(tokio::task::yield_now()); // waits, in synchronous code
    ///     format!("hello, {name}{more}")
    /// }
    ///
    /// let pool = fiberback::tokio::PinnedPool::builder().worker_threads(2).build()?;
    /// let app: Router = Router::new()
    ///     .route("/{name}", get(pool.handler(|Path(name): Path<String>| greeting(&name, "!"))))
    ///     .route("/", get(pool.handler(
    ///         |(State(more), ()): (State<&'static str>, ())| greeting("all", more),
    ///     )))
    ///     .with_state(" of you");
    /// # drop(app);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The handler's future panics as that of [`run`](Self::run) does.
    #[track_caller]
    pub fn handler<F, A, T>(
        &self,
        f: F,
    ) -> impl Fn(A) -> PinnedRun<T> + Clone + Send + Sync + 'static
    where
        F: Fn(A) -> T + Clone + Send + Sync + 'static,
        A: Send + 'static,
        T: Send + 'static,
    {
        let (pool, site) = (self.clone(), Site::caller());
        move |argument| {
            let f = f.clone();
            PinnedRun(Owned(pool.spawn_at(site, move || f(argument))))
        }
    }
}

/// The future of a job that it owns. Made by [`PinnedPool::run`].
#[must_use = "dropping it aborts the job"]
pub struct PinnedRun<T>(Owned<T>);

impl<T> Future for PinnedRun<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let ended = ready!(self.get_mut().0.poll_end(context));
        Poll::Ready(ended.unwrap_or_else(|aborted| panic!("{aborted}")))
    }
}

impl<T> fmt::Debug for PinnedRun<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedRun").finish_non_exhaustive()
    }
}

/// A job, which is aborted when this is dropped.
pub(in crate::adapters) struct Owned<T>(pub(in crate::adapters) JoinHandle<T>);

/// A job did not come to its end.
#[derive(Debug)]
pub(in crate::adapters) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "fiberback: the `PinnedPool` was closed before this job, or has aborted it in \
             `shutdown_timeout`: shut the pool down after whatever uses it",
        )
    }
}

impl std::error::Error for Aborted {}

impl<T> Owned<T> {
    /// What the job in `slot` has returned, which leaves that empty; `None` if it was empty. Panics with
    /// the job's panic, and leaves it empty then, too.
    #[cfg(any(feature = "io", feature = "stream"))]
    pub(in crate::adapters) fn poll_slot(
        slot: &mut Option<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Aborted>>> {
        let Some(mut job) = slot.take() else { return Poll::Ready(None) };
        let polled = job.poll_end(context);
        if polled.is_pending() {
            *slot = Some(job);
        }
        polled.map(Some)
    }

    /// What the job has returned, once. Panics with its panic.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Aborted>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(returned) => Ok(returned),
            Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Aborted),
        })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
