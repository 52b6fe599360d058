//! Futures that other threads have handed to the task which a fiber runs in.
//!
//! The fiber's root frame owns a [`Server`]; whoever holds the [`Inbox`] may send. Each poll of the fiber's
//! [`Run`](super::Run) that leaves it waiting polls the server next, beside the fiber. A future that was sent
//! is polled and dropped on the fiber's thread; its sender has a [`Response`]. So what was sent stays in a queue
//! of the server's when all senders are gone.
//!
//! The server does not keep its task's waker (see `ready.rs`), the inbox does: whoever holds that can wake
//! the task.

use super::ready::{MemberWaker, Ready, Task};
use crate::error::AwaitError;
use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

/// The senders' share.
pub(crate) struct Inbox {
    /// The fiber's.
    thread: ThreadId,
    queue: Arc<Mutex<Queue>>,
    /// The task to wake; `None` before the fiber has first waited, when it need not be woken.
    task: Mutex<Option<Arc<Task>>>,
    /// How often the fiber's task has looked.
    rounds: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    sent: Vec<Job>,
    /// Why no more is taken.
    closed: Option<AwaitError>,
}

/// A future that was sent, and where its output goes.
struct Job {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    slot: Arc<dyn Close>,
    waker: Weak<MemberWaker>,
}

/// The fiber's share.
pub(super) struct Server(RefCell<Serving>);

#[derive(Default)]
struct Serving {
    inbox: Weak<Inbox>,
    queue: Arc<Mutex<Queue>>,
    /// A place is empty when free, and while its future is being polled.
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    ready: Ready,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn new() -> Self {
        Self(RefCell::default())
    }

    /// The inbox; another one if nobody holds the last any more.
    pub(super) fn inbox(&self) -> Arc<Inbox> {
        let mut serving = self.0.borrow_mut();
        serving.inbox.upgrade().unwrap_or_else(|| {
            let inbox = Arc::new(Inbox {
                thread: thread::current().id(),
                queue: Arc::clone(&serving.queue),
                task: Mutex::default(),
                rounds: AtomicUsize::new(0),
            });
            serving.inbox = Arc::downgrade(&inbox);
            inbox
        })
    }

    /// Polls what was sent and what was woken.
    #[cold]
    pub(super) fn poll(&self, context: &mut Context<'_>) {
        let mut serving = self.0.borrow_mut();
        let task = serving.ready.wake_with(context.waker());
        let mut keys = Vec::new();
        serving.ready.drain(&mut keys);
        let mut stale = None;
        if let Some(inbox) = serving.inbox.upgrade() {
            inbox.rounds.fetch_add(1, Ordering::Relaxed);
            stale = lock(&inbox.task).replace(Arc::clone(&task));
        }
        // After the task is known: whoever sends now wakes it.
        let sent = mem::take(&mut lock(&serving.queue).sent);
        keys.extend(sent.into_iter().map(|job| serving.insert(job)));
        drop(serving);
        drop(stale);
        for key in keys {
            self.poll_job(key, &task);
        }
    }

    /// Polls with nothing borrowed: a future may do anything.
    fn poll_job(&self, key: usize, task: &Arc<Task>) {
        let (mut job, waker) = {
            let mut serving = self.0.borrow_mut();
            let Some(mut job) = serving.jobs[key].take() else { return };
            let waker = job.waker.upgrade().unwrap_or_else(|| serving.ready.waker(key, task));
            job.waker = Arc::downgrade(&waker);
            waker.begin_poll();
            (job, Waker::from(waker))
        };
        let polled = job.future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut serving = self.0.borrow_mut();
        if polled.is_pending() {
            serving.jobs[key] = Some(job);
        } else {
            serving.free.push(key);
        }
    }

    /// Takes no more, and drops what there is; those who wait for it get `error`.
    pub(super) fn close(&self, error: AwaitError) {
        for job in self.tell(error) {
            // Nobody is there to hear of a panic, and the others must be dropped, too.
            quietly(|| drop(job));
        }
    }

    /// [`close`](Self::close) where no code of others may run any more: what there is is leaked.
    pub(super) fn abandon(&self, error: AwaitError) {
        mem::forget(self.tell(error));
    }

    fn tell(&self, error: AwaitError) -> Vec<Job> {
        let mut serving = self.0.borrow_mut();
        let mut jobs: Vec<_> = mem::take(&mut serving.jobs).into_iter().flatten().collect();
        let mut queue = lock(&serving.queue);
        queue.closed.get_or_insert(error);
        jobs.append(&mut queue.sent);
        drop(queue);
        drop(serving);
        for job in &jobs {
            job.slot.close(error);
        }
        jobs
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close(AwaitError::REMOTE_ENDED);
    }
}

impl Serving {
    fn insert(&mut self, job: Job) -> usize {
        let key = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        self.jobs[key] = Some(job);
        key
    }
}

impl Inbox {
    /// True on the fiber's own thread.
    pub(crate) fn is_here(&self) -> bool {
        self.thread == thread::current().id()
    }

    /// True once nothing is taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closed.is_some()
    }

    /// Changes whenever the fiber's task has looked what was sent.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Wakes the task.
    pub(crate) fn ask_for_a_round(&self) {
        let task = lock(&self.task).clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Hands `future` to the fiber's task. Dropping the response has it dropped there.
    pub(crate) fn send<F>(self: &Arc<Self>, future: F) -> Response<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let slot = Arc::new(Slot::default());
        let response = Response { slot: Arc::clone(&slot), _inbox: Arc::clone(self) };
        let future = Box::pin(answering(future, Arc::clone(&slot)));
        let mut queue = lock(&self.queue);
        if let Some(error) = queue.closed {
            drop(queue);
            slot.close(error);
            return response;
        }
        queue.sent.push(Job { future, slot, waker: Weak::new() });
        drop(queue);
        self.ask_for_a_round();
        response
    }
}

/// `future`, whose output goes to `slot`, unless nobody waits there any more.
fn answering<F: Future>(future: F, slot: Arc<Slot<F::Output>>) -> impl Future<Output = ()> {
    let mut future = Some(Box::pin(future));
    poll_fn(move |context| {
        let mut state = slot.lock();
        if state.is_abandoned {
            drop(state);
            quietly(|| future = None);
            return Poll::Ready(());
        }
        let stale = state.job.replace(context.waker().clone());
        drop(state);
        drop(stale);
        let polled = panic::catch_unwind(AssertUnwindSafe(|| {
            let running = future.as_mut().expect("not polled after it was ready");
            let polled = running.as_mut().poll(context);
            if polled.is_ready() {
                // Before whoever waits hears of it.
                future = None;
            }
            polled
        }));
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Outcome::Returned(output),
            Err(payload) => {
                quietly(|| future = None);
                Outcome::Panicked(payload)
            }
        };
        slot.put(outcome);
        Poll::Ready(())
    })
}

/// Runs `f`, which drops what belongs to somebody who is not there any more to hear of its panics.
fn quietly(f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        // Its destructor might panic, too.
        mem::forget(payload);
    }
}

/// Where an output is left for whoever waits for it.
struct Slot<T>(Mutex<SlotState<T>>);

struct SlotState<T> {
    outcome: Option<Outcome<T>>,
    /// Whoever waits.
    waiter: Option<Waker>,
    /// The future's own waker.
    job: Option<Waker>,
    is_abandoned: bool,
}

/// What became of a future.
pub(crate) enum Outcome<T> {
    Returned(T),
    Panicked(Box<dyn std::any::Any + Send>),
    Dropped(AwaitError),
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(SlotState { outcome: None, waiter: None, job: None, is_abandoned: false }))
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, SlotState<T>> {
        lock(&self.0)
    }

    fn put(&self, outcome: Outcome<T>) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let (waiter, job) = (state.waiter.take(), state.job.take());
        drop(state);
        drop(job);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A [`Slot`], whatever its type.
trait Close: Send + Sync {
    fn close(&self, error: AwaitError);
}

impl<T: Send> Close for Slot<T> {
    fn close(&self, error: AwaitError) {
        self.put(Outcome::Dropped(error));
    }
}

/// The output of a future that was sent, some day.
pub(crate) struct Response<T> {
    slot: Arc<Slot<T>>,
    /// So that the task can be woken for as long as somebody waits for it.
    _inbox: Arc<Inbox>,
}

impl<T> Future for Response<T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let mut state = self.slot.lock();
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        let stale = state.waiter.replace(context.waker().clone());
        drop(state);
        drop(stale);
        Poll::Pending
    }
}

impl<T> Drop for Response<T> {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        state.is_abandoned = true;
        let (job, waiter) = (state.job.take(), state.waiter.take());
        drop(state);
        drop(waiter);
        if let Some(job) = job {
            job.wake();
        }
    }
}
