//! How a fiber and the poll that resumes it hand each other items.
//!
//! No wakers are needed here: the fiber runs only inside a poll of its `Run`, so whatever the poller
//! changes before it, the fiber sees when it looks again; and what the fiber changes, the poller
//! looks at right afterwards.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// A place for one item, shared by the two sides.
pub(super) struct Exchange<T> {
    item: Cell<Option<T>>,
    /// Set by the poller: no more items will come.
    closed: Cell<bool>,
    /// Set by the fiber while it waits for an item: everything before it is dealt with.
    hungry: Cell<bool>,
}

impl<T> Exchange<T> {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { item: Cell::new(None), closed: Cell::new(false), hungry: Cell::new(false) })
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

    pub(super) fn close(&self) {
        self.closed.set(true);
    }

    /// True while the fiber has nothing left to do but to wait for an item.
    pub(super) fn is_hungry(&self) -> bool {
        self.hungry.get() && self.is_empty()
    }

    /// On the fiber: ready when the item was taken.
    pub(super) fn emptied(&self) -> impl Future<Output = ()> {
        poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending })
    }

    /// On the fiber: the next item, or `None` once the exchange is closed and empty.
    pub(super) fn next(&self) -> impl Future<Output = Option<T>> {
        poll_fn(|_| {
            let item = self.item.take();
            let ready = item.is_some() || self.closed.get();
            self.hungry.set(!ready);
            if ready { Poll::Ready(item) } else { Poll::Pending }
        })
    }
}
