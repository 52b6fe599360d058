//! Waking a task at a time of the clock, whatever executor it is on.
//!
//! By a thread named `fiberback-alarm`, which starts with the first alarm and ends when none has been set for a
//! while.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};
use std::{io, mem, process, thread};

/// How long the thread stays with nothing to do.
const IDLE: Duration = Duration::from_secs(10);

/// When, and which of those that are due then.
type Key = (Instant, u64);

/// Wakes when it is due, unless it is dropped before.
pub(super) struct Alarm {
    clock: &'static Clock,
    key: Key,
}

impl Alarm {
    /// # Errors
    ///
    /// If the system refuses the thread.
    pub(super) fn set(due: Instant, waker: Waker) -> io::Result<Self> {
        let clock = Clock::of_this_process();
        Ok(Self { clock, key: clock.insert(due, waker)? })
    }

    pub(super) fn due(&self) -> Instant {
        self.key.0
    }

    /// Wakes `waker` instead; nobody if it has woken somebody.
    pub(super) fn wake_instead(&self, waker: &Waker) {
        // Wakers are cloned and dropped with nothing locked: that may run any code.
        let mut waker = waker.clone();
        if self.clock.is_of_this_process() {
            if let Some(wakes) = self.clock.lock().wakers.get_mut(&self.key) {
                mem::swap(wakes, &mut waker);
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.clock.is_of_this_process() {
            let waker = self.clock.lock().wakers.remove(&self.key);
            drop(waker);
        }
    }
}

struct Clock {
    /// The process that its thread is in: a forked child has no thread, and perhaps a lock that is held for ever.
    process: u32,
    state: Mutex<State>,
    changed: Condvar,
    /// The clock of a child.
    next: OnceLock<Box<Clock>>,
}

#[derive(Default)]
struct State {
    wakers: BTreeMap<Key, Waker>,
    /// How many there have been.
    count: u64,
    has_thread: bool,
}

impl Clock {
    fn new() -> Self {
        Self {
            process: process::id(),
            state: Mutex::default(),
            changed: Condvar::new(),
            next: OnceLock::new(),
        }
    }

    fn of_this_process() -> &'static Self {
        static FIRST: OnceLock<Clock> = OnceLock::new();
        let mut clock = FIRST.get_or_init(Self::new);
        while !clock.is_of_this_process() {
            clock = clock.next.get_or_init(|| Box::new(Self::new()));
        }
        clock
    }

    fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&'static self, due: Instant, waker: Waker) -> io::Result<Key> {
        let mut state = self.lock();
        if !state.has_thread {
            thread::Builder::new().name("fiberback-alarm".to_owned()).spawn(|| self.serve())?;
            state.has_thread = true;
        }
        state.count += 1;
        let key = (due, state.count);
        state.wakers.insert(key, waker);
        let is_first = state.wakers.first_key_value().is_some_and(|(&first, _)| first == key);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
        Ok(key)
    }

    /// The thread.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            let wait = match state.wakers.first_entry() {
                None => IDLE,
                Some(first) => match first.key().0.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => {
                        let waker = first.remove();
                        drop(state);
                        // Somebody else's code, whose panic was reported; the others must be woken, too.
                        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()))
                        {
                            mem::forget(payload);
                        }
                        state = self.lock();
                        continue;
                    }
                    wait => wait,
                },
            };
            let waited = self.changed.wait_timeout(state, wait);
            let (locked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = locked;
            if wait == IDLE && timeout.timed_out() && state.wakers.is_empty() {
                state.has_thread = false;
                return;
            }
        }
    }
}
