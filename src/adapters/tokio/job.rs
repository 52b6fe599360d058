//! A fiber as a `Send` task that is pinned to its worker.
//!
//! A [`Run`] must not leave its thread, yet tokio lets only `Send` futures be spawned from another
//! one. So the future that is spawned ([`Job`]) holds the closure before its first poll, which is
//! `Send`, and from then on a [`Ticket`] for the `Run`, which stays in a table of the worker's
//! thread. Only that thread polls and drops the tasks of its runtime.

use super::clock::Hold;
use super::worker::Place;
use crate::bridge::{Builder, Run};
use crate::fiber::Site;
use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};

/// The runs of one thread. A slot is empty when free, and while its run is being polled.
#[derive(Default)]
struct Table {
    slots: Vec<Option<Box<dyn Any>>>,
    free: Vec<usize>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// A claim on a `Run<T>` in its thread's table; gives it up, by dropping the run, when dropped.
struct Ticket<T> {
    thread: ThreadId,
    slot: usize,
    /// Sends no `T` by itself.
    marker: PhantomData<fn() -> T>,
}

impl<T: 'static> Ticket<T> {
    /// Files a run in this thread's table.
    fn new(run: Run<T>) -> Self {
        let slot = TABLE.with_borrow_mut(|table| {
            let slot = table.free.pop().unwrap_or_else(|| {
                table.slots.push(None);
                table.slots.len() - 1
            });
            table.slots[slot] = Some(Box::new(run));
            slot
        });
        Self { thread: thread::current().id(), slot, marker: PhantomData }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<T> {
        assert_eq!(self.thread, thread::current().id(), "tasks of a worker stay on its thread");
        // Out of the table meanwhile: the run may spawn, poll and drop others.
        let mut run = TABLE
            .with_borrow_mut(|table| table.slots[self.slot].take())
            .expect("only its own task takes a run out");
        let polled = {
            let run = run.downcast_mut::<Run<T>>().expect("filed as this type");
            Pin::new(run).poll(context)
        };
        if polled.is_pending() {
            TABLE.with_borrow_mut(|table| table.slots[self.slot] = Some(run));
        }
        polled
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if self.thread != thread::current().id() {
            // Not ours to touch. The table drops the run with its thread.
            debug_assert!(false, "tasks of a worker are dropped on its thread");
            return;
        }
        // In thread teardown the table is gone, and the run with it.
        let run = TABLE.try_with(|table| {
            let mut table = table.borrow_mut();
            table.free.push(self.slot);
            table.slots[self.slot].take()
        });
        // With the table free again: this may unwind a fiber, which runs code of any kind.
        drop(run);
    }
}

/// What a worker runs for [`PinnedPool::spawn`](super::PinnedPool::spawn).
pub(super) struct Job<F, T> {
    state: State<F, T>,
    /// Given up last, when nothing of the job is left: dropped after `state`.
    _place: Place,
    _clock: Option<Hold>,
}

enum State<F, T> {
    Queued(F, Builder, Site),
    Running(Ticket<T>),
    Done,
}

impl<F, T> Job<F, T> {
    pub(super) fn new(f: F, settings: Builder, site: Site, place: Place) -> Self {
        Self { state: State::Queued(f, settings, site), _place: place, _clock: Hold::new() }
    }
}

/// Nothing in it is ever pinned: a [`Run`] is `Unpin`, and the closure is moved out to run.
impl<F, T> Unpin for Job<F, T> {}

impl<F, T> Future for Job<F, T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let state = &mut self.get_mut().state;
        if matches!(state, State::Queued(..)) {
            let State::Queued(f, settings, site) = std::mem::replace(state, State::Done) else {
                unreachable!("just matched")
            };
            match settings.run_at(site, f) {
                Ok(run) => *state = State::Running(Ticket::new(run)),
                Err(error) => panic!("fiberback: a job of a `PinnedPool` could not start: {error}"),
            }
        }
        let State::Running(ticket) = &*state else {
            panic!("fiberback: a job was polled after it was ready")
        };
        let output = std::task::ready!(ticket.poll(context));
        *state = State::Done;
        Poll::Ready(output)
    }
}
