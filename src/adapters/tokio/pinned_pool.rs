//! Threads that run fibers for multi-threaded runtimes.

use super::job::Job;
use super::worker::{self, Crew, Settings, Worker};
use crate::bridge::Builder;
use crate::fiber::{Site, StackPool};
use ::tokio::task::JoinHandle;
use ::tokio::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{error, fmt, future, io, thread};

/// Long enough to be sure that a burst is over.
const DEFAULT_IDLE_TRIM: Duration = Duration::from_secs(5);

/// "Some day": `Instant` cannot count to `Duration::MAX`.
const FAR_FUTURE: Duration = Duration::from_secs(86400 * 365 * 30);

/// Settings for a [`PinnedPool`]. Made by [`PinnedPool::builder`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let pool = fiberback::tokio::PinnedPool::builder()
///     .worker_threads(2)
///     .thread_name("reports")
///     .stack_size(256 * 1024)
///     .build()?;
/// assert_eq!(pool.worker_threads(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct PinnedPoolBuilder {
    worker_threads: Option<usize>,
    thread_name: String,
    thread_stack_size: Option<usize>,
    stacks: Stacks,
    idle_trim: Duration,
}

#[derive(Clone, Debug)]
enum Stacks {
    Global,
    Size(usize),
    Pool(StackPool),
}

impl PinnedPoolBuilder {
    /// How many threads the pool has (as many as the machine has processors, unless set).
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn worker_threads(mut self, threads: usize) -> Self {
        assert!(threads > 0, "fiberback: a `PinnedPool` needs at least 1 worker thread");
        self.worker_threads = Some(threads);
        self
    }

    /// What the threads are called (`fiberback` unless set); a dash and a number are appended.
    pub fn thread_name(mut self, prefix: impl Into<String>) -> Self {
        self.thread_name = prefix.into();
        self
    }

    /// Bytes of the *threads'* own stacks, on which futures are polled that jobs spawn.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = Some(bytes);
        self
    }

    /// Usable bytes of the stack that each *job* runs on (2 MiB unless set), from a [`StackPool`]
    /// that belongs to this pool alone. Replaces [`stack_pool`](Self::stack_pool).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stacks = Stacks::Size(bytes);
        self
    }

    /// Where the jobs' stacks come from ([`StackPool::global`] unless set). Replaces
    /// [`stack_size`](Self::stack_size).
    pub fn stack_pool(mut self, pool: &StackPool) -> Self {
        self.stacks = Stacks::Pool(pool.clone());
        self
    }

    /// For how long a thread must have been without a job (5 s unless set) before it gives the
    /// memory of idle stacks back to the system, by [`StackPool::trim`]. It may take up to twice as
    /// long; less than a millisecond counts as one.
    pub fn idle_trim(mut self, period: Duration) -> Self {
        self.idle_trim = period;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread or what a runtime needs, or the stack size is out of range
    /// (the source is then a [`StackError`](crate::StackError)). Threads already started end again.
    pub fn build(self) -> io::Result<PinnedPool> {
        let threads = match self.worker_threads {
            Some(threads) => threads,
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        let stack_pool = match self.stacks {
            Stacks::Global => StackPool::global().clone(),
            Stacks::Size(bytes) => StackPool::builder().stack_size(bytes).build()?,
            Stacks::Pool(pool) => pool,
        };
        let settings = Settings {
            thread_stack_size: self.thread_stack_size,
            stack_pool,
            idle_trim: self.idle_trim.clamp(Duration::from_millis(1), FAR_FUTURE),
        };
        let crew = Crew::new(threads);
        // All at once, then wait for each.
        let starting: Vec<_> = (0..threads)
            .map(|n| Worker::start(format!("{}-{n}", self.thread_name), &settings, &crew))
            .collect();
        let mut workers = Vec::with_capacity(threads);
        let mut failure = None;
        for started in starting {
            match started.and_then(worker::Starting::finish) {
                Ok(worker) => workers.push(worker),
                Err(error) => failure = Some(error),
            }
        }
        let shared = Arc::new(Shared {
            job: Builder::new().pool(&settings.stack_pool),
            next: AtomicUsize::new(0),
            workers,
            crew,
        });
        // On failure this closes the workers that did start.
        let pool = PinnedPool { shared };
        failure.map_or(Ok(pool), Err)
    }
}

/// Threads that run synchronous code below which [`await_`](crate::await_) waits, for programs on a
/// multi-threaded runtime (or on none).
///
/// Code on a fiber cannot move between threads, so each job stays on the worker thread that it was
/// given to, the one with the fewest jobs. While it waits, the thread runs its other jobs: a few
/// threads serve many thousand jobs. Each thread is a current-thread tokio runtime with a
/// `LocalSet`, so timers, sockets, `tokio::spawn` and `tokio::task::spawn_local` work in a job, on
/// the job's own thread.
///
/// Cheap to clone; clones are the same pool. A job that wants to spawn others takes one along.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// fn plain_function(n: u64) -> u64 {
///     fiberback::await_(tokio::time::sleep(Duration::from_millis(n)));
///     n * n
/// }
///
/// let pool = fiberback::tokio::PinnedPool::builder().worker_threads(2).build()?;
/// let jobs: Vec<_> = (1..=3).map(|n| pool.spawn(move || plain_function(n))).collect();
/// let mut sum = 0;
/// for job in jobs {
///     sum += job.await?;
/// }
/// assert_eq!(sum, 14);
/// pool.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Dropping
///
/// When the last clone is dropped, wherever that is, the pool is [closed](Self::close): jobs go on
/// in the background, their handles stay good, and each thread ends when its last job has. Nothing
/// waits. To end jobs as well, use [`shutdown_timeout`](Self::shutdown_timeout).
///
/// # Paused clocks
///
/// In a test that has paused tokio's clock (`start_paused`) this does not jump ahead while a job that was
/// spawned there runs, as it does not for `spawn_blocking`. The workers' own clocks are not paused.
///
/// # What ends with a worker
///
/// Tasks that jobs have spawned on their thread by tokio's own `spawn` and `spawn_local` do not
/// count as jobs: they are dropped when the thread ends, as by any tokio runtime.
#[derive(Clone)]
pub struct PinnedPool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Settings for the fiber of each job.
    job: Builder,
    /// Where the next search for the least loaded worker starts.
    next: AtomicUsize,
    workers: Vec<Arc<Worker>>,
    crew: Arc<Crew>,
}

impl Shared {
    fn close(&self) {
        for worker in &self.workers {
            worker.close();
        }
    }

    /// The worker with the fewest jobs; among equals, each in turn.
    fn least_loaded(&self) -> &Arc<Worker> {
        let count = self.workers.len();
        let start = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let mut best = &self.workers[start];
        let mut least = best.load();
        for n in 1..count {
            if least == 0 {
                break;
            }
            let worker = &self.workers[(start + n) % count];
            let load = worker.load();
            if load < least {
                (best, least) = (worker, load);
            }
        }
        best
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl PinnedPool {
    /// A pool with the default settings.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let pool = fiberback::tokio::PinnedPool::new()?;
    /// assert!(pool.worker_threads() >= 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`PinnedPoolBuilder::build`].
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// Settings for a pool.
    pub fn builder() -> PinnedPoolBuilder {
        PinnedPoolBuilder {
            worker_threads: None,
            thread_name: "fiberback".to_owned(),
            thread_stack_size: None,
            stacks: Stacks::Global,
            idle_trim: DEFAULT_IDLE_TRIM,
        }
    }

    /// Runs `f` on the worker thread with the fewest jobs, on a fiber.
    ///
    /// The job runs whether or not the handle is awaited; dropping the handle detaches it. The
    /// handle is tokio's, and can be awaited on any executor.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let job = pool.spawn(|| {
    ///     fiberback::await_(tokio::task::yield_now());
    ///     "done"
    /// });
    /// assert_eq!(job.await?, "done");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    ///
    /// [`JoinHandle::abort`] drops `f` if it has not started, and otherwise unwinds it from where
    /// it waits, so destructors run. The handle is ready, with an error for which `is_cancelled` is
    /// true, after that. Code that is not waiting cannot be interrupted.
    ///
    /// # Errors
    ///
    /// The handle's: `is_panic` if `f` panicked, or no stack could be had for it; `is_cancelled` if
    /// the job was aborted, or the pool was closed before this call ([`try_spawn`](Self::try_spawn)
    /// tells that at once).
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_at(Site::caller(), f)
    }

    /// [`spawn`](Self::spawn), with a name for the job's fiber, which reports of an overflown stack
    /// or a refused cancellation mention.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// assert_eq!(pool.spawn_named("parser", || 6 * 7).await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation, errors
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_named<F, T>(&self, name: impl Into<String>, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_or_cancel(Site::caller(), self.shared.job.clone().name(name), f)
    }

    /// [`spawn`](Self::spawn) that gives an error at once when the pool is closed. `f` is then
    /// dropped.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// pool.close();
    /// let error = pool.try_spawn(|| 1).unwrap_err();
    /// assert!(error.to_string().contains("closed"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the pool is [closed](Self::close).
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, PoolClosed>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_if_open(Site::caller(), self.shared.job.clone(), f)
    }

    // tokio keeps the caller as well.
    #[track_caller]
    fn spawn_if_open<F, T>(
        &self,
        site: Site,
        settings: Builder,
        f: F,
    ) -> Result<JoinHandle<T>, PoolClosed>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let worker = self.shared.least_loaded();
        let place = worker.place().ok_or(PoolClosed(()))?;
        Ok(worker.handle().spawn(Job::new(f, settings, site, place)))
    }

    /// [`spawn`](Self::spawn), which somebody has asked for there.
    #[track_caller]
    pub(super) fn spawn_at<F, T>(&self, site: Site, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_or_cancel(site, self.shared.job.clone(), f)
    }

    #[track_caller]
    fn spawn_or_cancel<F, T>(&self, site: Site, settings: Builder, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_if_open(site, settings, f).unwrap_or_else(|PoolClosed(())| {
            // Only tokio makes its errors: a task that was cancelled, by us or by the runtime's end.
            let cancelled = self.shared.workers[0].handle().spawn(future::pending());
            cancelled.abort();
            cancelled
        })
    }

    /// How many threads the pool was built with.
    pub fn worker_threads(&self) -> usize {
        self.shared.workers.len()
    }

    /// How many jobs are queued or running. A job counts until its result is known and nothing of
    /// it is left on its stack.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let job = pool.spawn(|| fiberback::await_(std::future::pending::<()>()));
    /// assert_eq!(pool.jobs(), 1);
    /// job.abort();
    /// assert!(job.await.unwrap_err().is_cancelled());
    /// assert_eq!(pool.jobs(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn jobs(&self) -> usize {
        self.shared.workers.iter().map(|worker| worker.load()).sum()
    }

    /// Takes no more jobs. Those that are queued or running go on, and their handles stay good;
    /// each thread ends when its last job has. Returns at once; see [`shutdown`](Self::shutdown) to
    /// wait, and [`try_spawn`](Self::try_spawn) for an example.
    pub fn close(&self) {
        self.shared.close();
    }

    /// [Closes](Self::close) the pool, and waits until every job, queued or running, has ended, and
    /// each worker with its runtime.
    ///
    /// A job that never ends keeps this waiting: see [`shutdown_timeout`](Self::shutdown_timeout).
    /// From synchronous code, use `fiberback::block_on(pool.shutdown())`.
    ///
    /// Called on one of the pool's own workers, this closes the pool and does not wait: the caller
    /// is part of what it would wait for.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let job = pool.spawn(|| fiberback::await_(tokio::task::yield_now()));
    /// pool.shutdown().await;
    /// assert!(job.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future once it was polled leaves the pool closed; jobs go on.
    pub async fn shutdown(&self) {
        self.close();
        self.ended().await;
    }

    /// [Closes](Self::close) the pool, waits for its jobs to end, but not beyond `timeout`, and
    /// aborts those that are left: their code unwinds from where it waits, and their handles get an
    /// error for which `is_cancelled` is true. Returns how many jobs had to be aborted, once each
    /// worker has ended.
    ///
    /// As always, code that is not waiting cannot be interrupted. A job that blocks its thread holds
    /// this up until it next waits or ends.
    ///
    /// A call on one of the pool's own workers does not wait, as in [`shutdown`](Self::shutdown),
    /// and returns 0.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let job = pool.spawn(|| fiberback::await_(std::future::pending::<()>()));
    /// assert_eq!(pool.shutdown_timeout(Duration::from_millis(1)).await, 1);
    /// assert!(job.await.unwrap_err().is_cancelled());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future once it was polled leaves the pool closed, and the timeout in force.
    pub async fn shutdown_timeout(&self, timeout: Duration) -> usize {
        self.close();
        // Not by the caller's tokio clock, which a test may have paused.
        let deadline = Instant::from_std(std::time::Instant::now() + timeout.min(FAR_FUTURE));
        for worker in &self.shared.workers {
            worker.abort_at(deadline);
        }
        self.ended().await
    }

    async fn ended(&self) -> usize {
        if worker::is_member(&self.shared.crew) {
            return 0;
        }
        self.shared.crew.ended().await
    }
}

impl fmt::Debug for PinnedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedPool")
            .field("worker_threads", &self.worker_threads())
            .field("jobs", &self.jobs())
            .finish_non_exhaustive()
    }
}

/// A job was refused because the [`PinnedPool`] is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PoolClosed(());

impl fmt::Debug for PoolClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolClosed")
    }
}

impl fmt::Display for PoolClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "fiberback: the `PinnedPool` is closed (`close` or `shutdown` was called) and takes no \
             more jobs: spawn before that, or build another pool",
        )
    }
}

impl error::Error for PoolClosed {}

impl From<PoolClosed> for io::Error {
    fn from(error: PoolClosed) -> Self {
        Self::other(error)
    }
}
