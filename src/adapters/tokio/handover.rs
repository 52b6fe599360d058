//! A bounded queue between two tasks on different threads, either of which may be a fiber.
//!
//! One side gives, the other takes; each is polled, and leaves one waker. `tokio::sync::mpsc` has no sender that
//! is polled, and does not say when the other side has dealt with everything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct State<T> {
    items: VecDeque<T>,
    giver: Side,
    taker: Side,
    is_abandoned: bool,
}

#[derive(Default)]
struct Side {
    is_gone: bool,
    /// Set while it waits.
    waker: Option<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that gives. Dropping it lets the other come to the end; [abandoning](Giver::abandon) it does not.
pub(in crate::adapters) struct Giver<T>(Arc<Shared<T>>);

/// The side that takes. Dropping it drops what is queued.
pub(in crate::adapters) struct Taker<T>(Arc<Shared<T>>);

/// Nobody takes any more.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapters) struct Gone;

/// A queue of up to `capacity` items.
pub(in crate::adapters) fn handover<T>(capacity: usize) -> (Giver<T>, Taker<T>) {
    let (giver, taker) = (Side::default(), Side::default());
    let state = Mutex::new(State { items: VecDeque::new(), giver, taker, is_abandoned: false });
    let shared = Arc::new(Shared { state, capacity: capacity.max(1) });
    (Giver(Arc::clone(&shared)), Taker(shared))
}

impl<T> Giver<T> {
    /// Ready when there is room for an item.
    pub(in crate::adapters) fn poll_ready(&self, context: &Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_until(context, |state| state.items.len() < self.0.capacity)
    }

    /// Ready when everything that was given is taken, and the other side waits for more.
    pub(in crate::adapters) fn poll_idle(&self, context: &Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_until(context, |state| state.items.is_empty() && state.taker.waker.is_some())
    }

    fn poll_until(
        &self,
        context: &Context<'_>,
        is_ready: impl FnOnce(&State<T>) -> bool,
    ) -> Poll<Result<(), Gone>> {
        let mut state = self.0.lock();
        if state.taker.is_gone {
            return Poll::Ready(Err(Gone));
        }
        if is_ready(&state) {
            return Poll::Ready(Ok(()));
        }
        let stale = state.giver.waker.replace(context.waker().clone());
        drop(state);
        drop(stale);
        Poll::Pending
    }

    /// Queues an item, whether or not there is room. Dropped if nobody takes it any more.
    pub(in crate::adapters) fn give(&self, item: T) {
        let mut state = self.0.lock();
        if state.taker.is_gone {
            drop(state);
            return drop(item);
        }
        state.items.push_back(item);
        let taker = state.taker.waker.take();
        drop(state);
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    /// Drops it, and has the other side wait for more: for its job to be aborted, since what it has got is
    /// not all. An end could be taken for that of the whole.
    pub(in crate::adapters) fn abandon(self) {
        self.0.lock().is_abandoned = true;
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.giver.is_gone = !state.is_abandoned;
        let (own, taker) = (state.giver.waker.take(), state.taker.waker.take());
        drop(state);
        drop(own);
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}

impl<T> Taker<T> {
    /// The next item; `None` at the end.
    pub(in crate::adapters) fn poll_take(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(item) = state.items.pop_front() {
            let giver = state.giver.waker.take();
            drop(state);
            if let Some(giver) = giver {
                giver.wake();
            }
            return Poll::Ready(Some(item));
        }
        if state.giver.is_gone {
            return Poll::Ready(None);
        }
        let stale = state.taker.waker.replace(context.waker().clone());
        // Whoever waits until this side is idle.
        let giver = state.giver.waker.take();
        drop(state);
        drop(stale);
        if let Some(giver) = giver {
            giver.wake();
        }
        Poll::Pending
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.taker.is_gone = true;
        let items = std::mem::take(&mut state.items);
        let (own, giver) = (state.taker.waker.take(), state.giver.waker.take());
        drop(state);
        if let Some(giver) = giver {
            giver.wake();
        }
        drop((own, items));
    }
}
