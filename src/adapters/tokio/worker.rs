//! One thread of a pool: its runtime, how many jobs it has, and when it ends.

use crate::fiber::StackPool;
use ::tokio::runtime::{self, Handle};
use ::tokio::sync::{Notify, watch};
use ::tokio::task::LocalSet;
use ::tokio::time::{Instant, sleep, sleep_until};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// Marks [`Worker::load`] of a worker that takes no more jobs.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// What a pool and its workers have in common: how many of them are still there, and how many jobs
/// they had to abort.
pub(super) struct Crew {
    alive: watch::Sender<usize>,
    aborted: AtomicUsize,
}

impl Crew {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { alive: watch::Sender::new(workers), aborted: AtomicUsize::new(0) })
    }

    /// Waits until every worker has ended; returns the number of jobs aborted.
    pub(super) async fn ended(&self) -> usize {
        // The sender is `self`, so the channel is open.
        let _ = self.alive.subscribe().wait_for(|&workers| workers == 0).await;
        self.aborted.load(Ordering::Acquire)
    }

    /// One worker less.
    pub(super) fn leave(&self) {
        self.alive.send_modify(|workers| *workers -= 1);
    }
}

/// Settings of a worker.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) thread_stack_size: Option<usize>,
    pub(super) stack_pool: StackPool,
    pub(super) idle_trim: Duration,
}

/// The share of a worker that other threads see.
pub(super) struct Worker {
    /// Jobs queued or running, and the [`CLOSED`] flag.
    load: AtomicUsize,
    /// Jobs ever placed, so that the worker can tell whether it has been idle.
    placed: AtomicUsize,
    /// Set while the worker has trimmed its stacks and does not look for idleness.
    dormant: AtomicBool,
    /// When to abort what is left. Only looked at when closed.
    deadline: Mutex<Option<Instant>>,
    /// Something of the above has changed in a way that the worker waits for.
    changed: Notify,
    handle: OnceLock<Handle>,
}

thread_local! {
    /// Which crew this thread belongs to: its address, only ever compared.
    static CREW: Cell<*const Crew> = const { Cell::new(std::ptr::null()) };
}

/// True on the threads of this crew.
pub(super) fn is_member(crew: &Arc<Crew>) -> bool {
    CREW.get() == Arc::as_ptr(crew)
}

/// A worker whose thread was started; `ready` tells whether its runtime was.
pub(super) struct Starting {
    worker: Arc<Worker>,
    ready: mpsc::Receiver<io::Result<Handle>>,
}

impl Starting {
    /// Waits until the worker can take jobs.
    pub(super) fn finish(self) -> io::Result<Arc<Worker>> {
        let handle = self.ready.recv().unwrap_or_else(|_| {
            Err(io::Error::other("fiberback: a worker thread ended before it was ready"))
        })?;
        let _ = self.worker.handle.set(handle);
        Ok(self.worker)
    }
}

impl Worker {
    /// Starts a worker's thread. It ends, and leaves the crew, after [`close`](Self::close).
    pub(super) fn start(
        thread_name: String,
        settings: &Settings,
        crew: &Arc<Crew>,
    ) -> io::Result<Starting> {
        let worker = Arc::new(Self {
            load: AtomicUsize::new(0),
            placed: AtomicUsize::new(0),
            dormant: AtomicBool::new(false),
            deadline: Mutex::new(None),
            changed: Notify::new(),
            handle: OnceLock::new(),
        });
        let (tell_ready, ready) = mpsc::channel();
        let mut thread = thread::Builder::new().name(thread_name);
        if let Some(bytes) = settings.thread_stack_size {
            thread = thread.stack_size(bytes);
        }
        let (me, crew, settings) = (Arc::clone(&worker), Arc::clone(crew), settings.clone());
        // The runtime is made and dropped on the thread itself: to drop one elsewhere could block.
        thread.spawn(move || {
            let crew = scopeguard::guard(crew, |crew| crew.leave());
            CREW.set(Arc::as_ptr(&crew));
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = tell_ready.send(Ok(runtime.handle().clone()));
                    let aborted = me.work(runtime, &settings);
                    crew.aborted.fetch_add(aborted, Ordering::AcqRel);
                }
                Err(error) => drop(tell_ready.send(Err(error))),
            }
        })?;
        Ok(Starting { worker, ready })
    }

    /// Where jobs are spawned.
    pub(super) fn handle(&self) -> &Handle {
        self.handle.get().expect("set before the pool is handed out")
    }

    /// Jobs queued or running.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed) & !CLOSED
    }

    /// Counts one more job, until the place is dropped. `None` once the worker is closed: it may
    /// have ended.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        self.load
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |load| {
                (load & CLOSED == 0).then_some(load + 1)
            })
            .ok()?;
        self.placed.fetch_add(1, Ordering::SeqCst);
        if self.dormant.load(Ordering::SeqCst) && self.dormant.swap(false, Ordering::SeqCst) {
            self.changed.notify_one();
        }
        Some(Place(Arc::clone(self)))
    }

    /// Takes no more jobs; the thread ends when those it has are done.
    pub(super) fn close(&self) {
        self.load.fetch_or(CLOSED, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// After [`close`](Self::close): aborts what is left at that time, if not asked to do so earlier.
    pub(super) fn abort_at(&self, deadline: Instant) {
        let mut current = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(current.map_or(deadline, |current| current.min(deadline)));
        drop(current);
        self.changed.notify_one();
    }

    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs jobs until closed. Returns how many had to be aborted.
    fn work(&self, runtime: runtime::Runtime, settings: &Settings) -> usize {
        let local = LocalSet::new();
        let aborted = {
            // Jobs are tasks of the runtime, not of the set, but may use it.
            let _local = local.enter();
            runtime.block_on(local.run_until(self.serve(settings)))
        };
        {
            let _runtime = runtime.enter();
            drop(local);
        }
        // Drops what is left of the tasks; does not wait for threads of `spawn_blocking`.
        runtime.shutdown_background();
        settings.stack_pool.trim();
        aborted
    }

    /// The root future of the worker's runtime: decides when to trim and when to end.
    async fn serve(&self, settings: &Settings) -> usize {
        let mut seen = 0;
        loop {
            let load = self.load.load(Ordering::Acquire);
            if load == CLOSED {
                return 0;
            }
            if load & CLOSED != 0 {
                match self.deadline() {
                    None => self.changed.notified().await,
                    Some(deadline) if deadline.into_std() <= std::time::Instant::now() => {
                        return load & !CLOSED;
                    }
                    Some(deadline) => {
                        self.changed_before(sleep_until(deadline)).await;
                    }
                }
                continue;
            }
            if self.changed_before(sleep(settings.idle_trim)).await {
                continue;
            }
            // Nothing happened in the whole period?
            let placed = self.placed.load(Ordering::SeqCst);
            let was_idle = placed == seen && self.load() == 0;
            seen = placed;
            if was_idle {
                settings.stack_pool.trim();
                self.dormant.store(true, Ordering::SeqCst);
                // A job that came before the flag was up did not see it.
                if self.placed.load(Ordering::SeqCst) == seen {
                    self.changed.notified().await;
                }
                self.dormant.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Waits for a change, but not beyond `limit`. True if there was a change.
    async fn changed_before(&self, limit: impl Future<Output = ()>) -> bool {
        let mut changed = pin!(self.changed.notified());
        let mut limit = pin!(limit);
        poll_fn(|context| {
            if changed.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            limit.as_mut().poll(context).map(|()| false)
        })
        .await
    }
}

/// One job's place on a worker; dropped when nothing of the job is left.
pub(super) struct Place(Arc<Worker>);

impl Drop for Place {
    fn drop(&mut self) {
        let load = self.0.load.fetch_sub(1, Ordering::AcqRel) - 1;
        if load == CLOSED {
            self.0.changed.notify_one();
        }
    }
}
