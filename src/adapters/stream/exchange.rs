//! How a fiber and the poll that resumes it hand each other items.
//!
//! No wakers are needed between the two: the fiber runs only inside a poll of its `Run`, so whatever the
//! poller changes before it, the fiber sees when it looks again; and what the fiber changes, the poller
//! looks at right afterwards.
//!
//! But the receiving end can be taken elsewhere: to another task of the thread, or into a future on the
//! fiber that is polled only when its own waker says so (`FuturesUnordered`). Then each side leaves a waker
//! for the other. (Not otherwise: a fiber's own waker, kept here, would keep its task alive.)

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A place for one item, shared by the two sides.
pub(super) struct Exchange<T> {
    item: Cell<Option<T>>,
    /// Set by the poller: no more items will come.
    closed: Cell<bool>,
    /// Set by the fiber while it waits for an item: everything before it is dealt with.
    hungry: Cell<bool>,
    /// The poller's waker, while it polls.
    polling: Cell<Option<Waker>>,
    /// The poller's waker, while it waits for somebody other than its fiber.
    poller: Cell<Option<Waker>>,
    /// The waker of somebody other than the poller's fiber who waits for an item.
    receiver: Cell<Option<Waker>>,
}

impl<T> Exchange<T> {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            item: Cell::new(None),
            closed: Cell::new(false),
            hungry: Cell::new(false),
            polling: Cell::new(None),
            poller: Cell::new(None),
            receiver: Cell::new(None),
        })
    }

    /// Takes the item, if there is one.
    pub(super) fn take(&self) -> Option<T> {
        self.item.take()
    }

    /// Puts an item into the place. It is empty then, unless the fiber is cancelled.
    pub(super) fn put(&self, item: T) {
        drop(self.item.replace(Some(item)));
    }

    fn is_empty(&self) -> bool {
        let item = self.item.take();
        let empty = item.is_none();
        self.item.set(item);
        empty
    }

    /// No more items will come; whoever waits for one hears of it.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.wake_receiver();
    }

    fn wake_receiver(&self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.wake();
        }
    }

    /// The poller is about to poll its fiber, and has perhaps changed something.
    pub(super) fn begin_poll(&self, poller: &Waker) {
        self.poller.set(None);
        self.polling.set(Some(poller.clone()));
        self.wake_receiver();
    }

    /// The poller has polled its fiber. If that `is_pending`, and does not wait here itself, the receiver
    /// may be elsewhere, and wakes the poller when it has taken the item.
    pub(super) fn end_poll(&self, is_pending: bool) {
        let poller = self.polling.take();
        if is_pending && !self.is_hungry() {
            self.poller.set(poller);
        }
    }

    /// True while the fiber has nothing left to do but to wait for an item.
    pub(super) fn is_hungry(&self) -> bool {
        // Once closed, whoever was waiting is about to hear of that.
        self.hungry.get() && !self.closed.get() && self.is_empty()
    }

    /// On the fiber: ready when the item was taken.
    pub(super) fn emptied(&self) -> impl Future<Output = ()> {
        poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending })
    }

    /// The next item, or `None` once the exchange is closed and empty.
    pub(super) fn next(&self) -> impl Future<Output = Option<T>> {
        poll_fn(|context| {
            let item = self.item.take();
            let ready = item.is_some() || self.closed.get();
            self.hungry.set(!ready);
            let polling = self.polling.take();
            let on_the_fiber =
                polling.as_ref().is_some_and(|poller| poller.will_wake(context.waker()));
            if polling.is_none() {
                // The poller does not look at it right afterwards.
                if let Some(poller) = self.poller.take() {
                    poller.wake();
                }
            }
            self.polling.set(polling);
            if ready {
                return Poll::Ready(item);
            }
            if !on_the_fiber {
                self.receiver.set(Some(context.waker().clone()));
            }
            Poll::Pending
        })
    }
}
