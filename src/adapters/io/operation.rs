//! One operation at a time of a synchronous object, each on a fiber of its own.

use crate::bridge::{Builder, Run};
use crate::fiber::Site;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

/// A synchronous object, and the operation on it that is under way, if any.
///
/// While an operation is under way the object belongs to its fiber; otherwise it is at hand, and
/// takes up no stack.
pub(super) struct Operation<S: 'static> {
    /// The operation under way. Before `object`, so that dropping cancels it first.
    run: Option<Run<io::Result<()>>>,
    /// Shared with `run`'s closure alone, which borrows it until it is done. A panic is never
    /// forgotten: `panicked`.
    object: Rc<RefCell<S>>,
    panicked: bool,
    builder: Builder,
    /// Where somebody has begun to use the object.
    site: Site,
}

impl<S: 'static> Operation<S> {
    #[track_caller]
    pub(super) fn new(object: S) -> Self {
        let object = Rc::new(RefCell::new(object));
        Self { run: None, object, panicked: false, builder: Builder::new(), site: Site::caller() }
    }

    pub(super) fn set_builder(&mut self, builder: Builder) {
        self.builder = builder;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.run.is_some()
    }

    /// The object, unless an operation is under way or has panicked.
    pub(super) fn object(&mut self) -> io::Result<&mut S> {
        if self.panicked {
            return Err(io::Error::other(
                "fiberback: an earlier operation of this object panicked",
            ));
        }
        Rc::get_mut(&mut self.object)
            .map(RefCell::get_mut)
            .ok_or_else(|| io::Error::other("fiberback: an operation is under way"))
    }

    /// Cancels the operation under way, and returns the object, unless one has panicked.
    pub(super) fn into_object(mut self) -> Option<S> {
        drop(self.run.take());
        if self.panicked {
            return None;
        }
        Rc::into_inner(self.object).map(RefCell::into_inner)
    }

    /// Prepares an operation; [`poll`](Self::poll) does it. None may be under way.
    pub(super) fn start(
        &mut self,
        operation: impl FnOnce(&mut S) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
        debug_assert!(!self.is_under_way());
        self.object()?;
        let object = Rc::clone(&self.object);
        self.run =
            Some(self.builder.run_at(self.site, move || operation(&mut object.borrow_mut()))?);
        Ok(())
    }

    /// Goes on with the operation under way, and returns its result; at once if there is none.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut run) = self.run.take() else { return Poll::Ready(Ok(())) };
        // If this poll panics, that stands.
        self.panicked = true;
        let polled = Pin::new(&mut run).poll(context);
        self.panicked = false;
        if polled.is_pending() {
            self.run = Some(run);
        }
        Poll::Ready(ready!(polled))
    }
}

impl<S: 'static> fmt::Debug for Operation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("under_way", &self.run.is_some())
            .field("panicked", &self.panicked)
            .finish_non_exhaustive()
    }
}
