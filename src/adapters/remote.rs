//! Waiting for a fiber's event loop from other threads.

use super::alarm::Alarm;
use super::loop_thread::LoopThread;
use super::park::{may_park, park_within};
#[cfg(feature = "tokio")]
use super::tokio::blocking::{self, Place};
use crate::bridge::{self, Inbox, Outcome, Response, on_fiber, raise, try_await};
use crate::error::AwaitError;
use std::fmt;
use std::panic;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a thread or fiber waits before it asks whether the loop still comes round. Doubled each time.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const LAST_PATIENCE: Duration = Duration::from_secs(64);
const LEAST_PATIENCE: Duration = Duration::from_millis(10);

/// Longer than what honest code blocks a loop for, a host name that cannot be resolved for instance.
const DEFAULT_BLOCKED_LIMIT: Duration = Duration::from_secs(60);

/// A handle by which other threads wait for futures on the event loop of the fiber that calls this.
///
/// For synchronous code that does part of its work on threads of its own, plain ones or rayon's, with code in
/// it that wants to wait: it takes the handle along.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// // Synchronous code that uses threads.
/// fn sizes(pages: Vec<String>, size: impl Fn(String) -> usize + Send + Clone + 'static) -> usize {
///     let threads: Vec<_> = pages
///         .into_iter()
///         .map(|page| {
///             let size = size.clone();
///             std::thread::spawn(move || size(page))
///         })
///         .collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).sum()
/// }
///
/// let total = fiberback::run(|| {
///     let remote = fiberback::remote();
///     let size = move |page: String| {
///         // On one of those threads; polled on the loop's.
///         remote.await_(async move {
///             tokio::time::sleep(Duration::from_millis(5)).await;
///             page.len()
///         })
///     };
///     // It joins its threads, so it must not do that on the loop's own thread.
///     let work = move || sizes(vec!["one".into(), "three".into()], size);
///     fiberback::await_(tokio::task::spawn_blocking(work)).unwrap()
/// })
/// .await;
/// assert_eq!(total, 8);
/// # }
/// ```
///
/// # Panics
///
/// Off a fiber, with a message that says what to type; [`try_remote`] returns an error.
#[track_caller]
pub fn remote() -> Remote {
    try_remote().unwrap_or_else(|error| raise(error))
}

/// [`remote`] that returns an error off a fiber.
///
/// # Errors
///
/// [`is_off_fiber`](AwaitError::is_off_fiber).
pub fn try_remote() -> Result<Remote, AwaitError> {
    Ok(Remote {
        inbox: bridge::inbox().ok_or(AwaitError::OFF_FIBER)?,
        thread: LoopThread::here(),
        blocked_limit: DEFAULT_BLOCKED_LIMIT,
    })
}

/// Leads from any thread to the event loop of one fiber. Made by [`remote`]; cheap to clone.
///
/// # How long it works
///
/// For as long as the code that [`remote`] was called in runs: the closure of its [`run`](crate::run), or the
/// fiber of a [`scope`](crate::scope()). Let that code wait for its threads, *without blocking the loop*:
/// `fiberback::await_(tokio::task::spawn_blocking(|| ...))`, or a channel.
///
/// If it does block the loop's thread, by joining a thread that waits here (`JoinHandle::join`,
/// `std::thread::scope`, rayon's `install`), neither could ever go on. When somebody has waited for some
/// seconds while the loop did not come round, that is said on standard error; and when the loop's thread has
/// slept in one place for a minute ([`blocked_limit`](Self::blocked_limit)), the wait fails, with an error that
/// says so. (On Linux, which tells whether a thread sleeps. A thread that computes, or is stopped by a debugger,
/// is waited for.) That holds for fibers of other threads, too, on whatever executor: what wakes them to look
/// is a thread named `fiberback-alarm`, which ends when no fiber has waited so for a while.
#[derive(Clone)]
pub struct Remote {
    inbox: Arc<Inbox>,
    thread: LoopThread,
    blocked_limit: Duration,
}

impl Remote {
    /// Waits for `future`, which is polled, and dropped, on the fiber's own thread, in the task that the fiber
    /// is part of: with the timers, sockets, `LocalSet` and task-locals of that.
    ///
    /// On a plain thread this blocks; on another fiber it suspends that. The future is moved, so it owns what
    /// it uses. Begin with `async { ... }` rather than with a ready-made future where that looks for its
    /// runtime when it is made, as tokio's `sleep` does.
    ///
    /// # Cancellation
    ///
    /// When the fiber's [`Run`](crate::Run) is dropped, its futures are dropped first, and the threads that wait
    /// unwind from here, without a panic message; then the fiber does. When the *caller* is a fiber and is
    /// cancelled, the future is dropped soon after, on its thread.
    ///
    /// # Panics
    ///
    /// * If the future panics, with its panic.
    /// * If the code that the handle was made in has ended.
    /// * Where the thread must not block, off a fiber: inside an async runtime, or on the fiber's own thread.
    /// * If the loop's thread is blocked for the [`blocked_limit`](Self::blocked_limit).
    /// * On a fiber, as [`await_`](crate::await_) in a destructor.
    #[track_caller]
    pub fn await_<F>(&self, future: F) -> F::Output
    where
        F: IntoFuture<IntoFuture: Send + 'static, Output: Send + 'static>,
    {
        self.try_await(future).unwrap_or_else(|error| raise(error))
    }

    /// [`await_`](Self::await_) that returns an error where that would unwind by itself, or panic.
    ///
    /// # Errors
    ///
    /// * [`is_cancelled`](AwaitError::is_cancelled): the fiber that the handle belongs to was, or the fiber
    ///   that calls this.
    /// * [`is_remote_ended`](AwaitError::is_remote_ended): the code that the handle was made in has ended.
    /// * [`is_in_runtime`](AwaitError::is_in_runtime): this thread must not block.
    /// * [`is_loop_blocked`](AwaitError::is_loop_blocked): the loop's thread is, for the
    ///   [`blocked_limit`](Self::blocked_limit).
    /// * On a fiber, as [`try_await`](crate::try_await).
    ///
    /// The future was dropped then.
    ///
    /// # Panics
    ///
    /// If the future panics, with its panic.
    #[track_caller]
    pub fn try_await<F>(&self, future: F) -> Result<F::Output, AwaitError>
    where
        F: IntoFuture<IntoFuture: Send + 'static, Output: Send + 'static>,
    {
        let future = future.into_future();
        let outcome = if on_fiber() {
            let response = self.inbox.send(future);
            if self.inbox.is_here() {
                // Whoever blocks that loop blocks this fiber, too.
                try_await(response)?
            } else {
                try_await(Watched { response, watch: Watch::new(self), next_look: None })?
            }
        } else {
            self.may_block()?;
            self.block_on(self.inbox.send(future))
        };
        match outcome {
            Outcome::Returned(output) => Ok(output),
            Outcome::Panicked(payload) => panic::resume_unwind(payload),
            Outcome::Dropped(error) => Err(error),
        }
    }

    /// Sets for how long the loop's thread may sleep in one place, and not come round, until a wait by this
    /// handle and its clones fails: one minute unless set; [`Duration::MAX`] is for ever.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let blocked = fiberback::run(|| {
    ///     let remote = fiberback::remote().blocked_limit(std::time::Duration::from_millis(100));
    ///     // The mistake: this blocks the loop that the thread waits for.
    ///     std::thread::spawn(move || remote.try_await(async { 1 })).join().unwrap()
    /// })
    /// .await;
    /// # if cfg!(target_os = "linux") {
    /// assert!(blocked.unwrap_err().is_loop_blocked());
    /// # }
    /// # }
    /// ```
    #[must_use = "this returns the handle that has the limit"]
    pub fn blocked_limit(mut self, limit: Duration) -> Self {
        self.blocked_limit = limit;
        self
    }

    /// True once nothing can be waited for any more: the code that the handle was made in has ended, or was
    /// cancelled.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    fn may_block(&self) -> Result<(), AwaitError> {
        if self.inbox.is_here() {
            return Err(AwaitError::ON_LOOPS_THREAD);
        }
        #[cfg(feature = "tokio")]
        if let Place::Driving = blocking::place() {
            return Err(AwaitError::IN_RUNTIME);
        }
        may_park()
    }

    fn block_on<T>(&self, mut response: Response<T>) -> Outcome<T> {
        let mut watch = Watch::new(self);
        loop {
            if let Some(outcome) = park_within(Pin::new(&mut response), Some(watch.interval)) {
                return outcome;
            }
            if watch.finds_it_blocked() {
                // Unless it has just woken up.
                let outcome = park_within(Pin::new(&mut response), Some(Duration::ZERO));
                return outcome.unwrap_or(Outcome::Dropped(AwaitError::LOOP_BLOCKED));
            }
        }
    }
}

/// Looks now and then whether the loop comes round that somebody waits for.
struct Watch<'a> {
    remote: &'a Remote,
    /// After which time of waiting in vain the next look is due.
    interval: Duration,
    patience: Duration,
    /// The loop's rounds at the last look.
    seen: Option<usize>,
    /// How often the loop's thread was put to sleep when it was first found in this sleep, and when.
    asleep: Option<(u64, Instant)>,
}

impl<'a> Watch<'a> {
    fn new(remote: &'a Remote) -> Self {
        let patience = FIRST_PATIENCE;
        let interval = patience.min(remote.blocked_limit.max(LEAST_PATIENCE));
        Self { remote, interval, patience, seen: None, asleep: None }
    }

    /// True if there is no point in waiting longer.
    fn finds_it_blocked(&mut self) -> bool {
        let Remote { inbox, thread, blocked_limit } = self.remote;
        let rounds = inbox.rounds();
        let is_held_up = self.seen.replace(rounds) == Some(rounds);
        if self.interval == self.patience {
            if is_held_up {
                crate::events::loop_is_held_up();
            }
            self.patience = LAST_PATIENCE.min(self.patience * 2);
        }
        let times = thread.sleeps();
        let mut slept = Duration::ZERO;
        match self.asleep {
            Some((before, since)) if is_held_up && times == Some(before) => {
                slept = since.elapsed();
                if slept >= *blocked_limit {
                    return true;
                }
            }
            _ => self.asleep = times.map(|times| (times, Instant::now())),
        }
        self.interval = self.patience.min(blocked_limit.saturating_sub(slept).max(LEAST_PATIENCE));
        inbox.ask_for_a_round();
        false
    }
}

/// A response that a fiber waits for, and a [`Watch`] over who is to give it.
struct Watched<'a, T> {
    response: Response<T>,
    watch: Watch<'a>,
    next_look: Option<Alarm>,
}

impl<T> Future for Watched<'_, T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let this = self.get_mut();
        if let Poll::Ready(outcome) = Pin::new(&mut this.response).poll(context) {
            return Poll::Ready(outcome);
        }
        match &this.next_look {
            Some(alarm) if Instant::now() < alarm.due() => {
                alarm.wake_instead(context.waker());
                return Poll::Pending;
            }
            Some(_) if this.watch.finds_it_blocked() => {
                // Unless it has just woken up.
                return Poll::Ready(match Pin::new(&mut this.response).poll(context) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => Outcome::Dropped(AwaitError::LOOP_BLOCKED),
                });
            }
            _ => {}
        }
        let alarm = Alarm::set(Instant::now() + this.watch.interval, context.waker().clone());
        this.next_look = match alarm {
            Ok(alarm) => Some(alarm),
            Err(error) => {
                crate::events::nobody_watches(&error);
                None
            }
        };
        Poll::Pending
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}
