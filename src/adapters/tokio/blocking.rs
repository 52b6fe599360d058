//! Whether this thread may block.

use super::constrained::Constrained;
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{self, Id};

/// What the thread is to tokio.
pub(in crate::adapters) enum Place {
    /// In charge of a runtime's tasks: blocking it would bring them to a halt.
    Driving,
    /// Free to block, and a runtime is current that sees to sockets and timers meanwhile: a
    /// `spawn_blocking` thread, `block_in_place`, or a guard of `Handle::enter` of one with threads.
    Within,
    /// Free to block, with no runtime, or with one that perhaps nobody drives: a current-thread runtime
    /// that is only entered.
    Outside,
    /// The same, at the end of the thread, where no runtime can be made current any more.
    Ending,
}

/// What this thread is at this moment.
///
/// tokio knows, and tells only by a panic. What it does tell quietly:
///
/// * A yielding task is put off until the scheduler has been round, if one is in charge of this
///   thread now; otherwise it is woken at once, on a thread inside `block_in_place`, too
///   (`runtime/context.rs`, `defer`; `scheduler/multi_thread/worker.rs`, `Context::defer`).
/// * Whatever else a runtime polls, the future of `Runtime::block_on` on a multi-thread runtime or a
///   `LocalSet` in it, has a budget; code that may block has none (`task/coop/mod.rs`, `budget`, and
///   `stop`, which `spawn_blocking` and `block_in_place` call). It takes a trick to ask for that:
///   `constrained.rs`.
///
/// The latter's answer is kept for the task where it cannot change: on a current-thread runtime, a task that
/// was once without a scheduler and without a budget is one of `spawn_blocking`. (On a multi-thread runtime
/// it may be inside `block_in_place`.)
pub(in crate::adapters) fn place() -> Place {
    match Handle::try_current() {
        Err(none) if none.is_thread_local_destroyed() => Place::Ending,
        Err(_) => Place::Outside,
        Ok(handle) => PROBE.try_with(|probe| probe.place(&handle)).unwrap_or(Place::Ending),
    }
}

/// What a thread keeps for the next time that it asks.
struct Probe {
    woken: Arc<Flag>,
    waker: Waker,
    /// The last task that was found to be free to block for as long as it runs.
    free: Cell<Option<Id>>,
    constrained: Constrained,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    static PROBE: Probe = Probe::new();
}

impl Probe {
    fn new() -> Self {
        let woken = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        Self { waker, woken, free: Cell::new(None), constrained: Constrained::new() }
    }

    fn place(&self, runtime: &Handle) -> Place {
        if self.has_scheduler() {
            return Place::Driving;
        }
        let task = task::try_id();
        if task.is_some() && task == self.free.get() {
            return Place::Within;
        }
        if self.constrained.now() {
            return Place::Driving;
        }
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            if task.is_none() {
                return Place::Outside;
            }
            self.free.set(task);
        }
        Place::Within
    }

    fn has_scheduler(&self) -> bool {
        // Only this thread wakes what it has put off, so an earlier one does not come in between.
        self.woken.0.store(false, Ordering::Relaxed);
        let polled = pin!(task::yield_now()).poll(&mut Context::from_waker(&self.waker));
        polled.is_pending() && !self.woken.0.load(Ordering::Relaxed)
    }
}
