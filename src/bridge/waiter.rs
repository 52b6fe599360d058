//! The root frame's share in waiting: which waker a future is polled with, and when it may change.
//!
//! # Invariant
//!
//! A future polled on a fiber may itself run synchronous code that suspends the fiber, in the
//! middle of its `poll`. It then still holds the `&Context` it was polled with, while the poll of
//! the `Run` that this came from is over and its `Context` gone. So no future is ever polled with
//! the `Run`'s own `Context`: it gets one around a [`Waker`] in the fiber's root frame, and that waker is
//! neither replaced nor dropped, and stays valid, while any poll that was given it is unfinished.
//!
//! * The *outermost* wait polls with [`Waiter::waker`], which is replaced only between its polls. That is
//!   a bitwise copy of another, and never dropped. Either it is *lent*: copied from the `Run`'s own
//!   context, which is there as long as the poll that resumed the fiber lasts. Or it is *kept*: a
//!   copy of [`Waiter::keeper`], which is a clone that the fiber owns.
//! * A wait inside the poll of another (found by `Header::hot` being null) polls with a clone that
//!   lives in its own frame. Before it suspends, it makes the outermost's waker a kept one
//!   ([`Waiter::keep`]): by a clone with the same two words, so that nothing changes where others may be
//!   reading.
//!
//! A waker whose clones have other words than itself can therefore not be lent. So a fiber's first waker
//! is cloned and looked at, and others are lent if they have the same functions. (Should those return
//! the same words once, and others later, then the inner wait panics rather than suspends.)
//!
//! Lent wakers are what makes a wait cheap: whoever counts references has nothing to count. And a
//! suspended fiber owns no waker. It must not: where wakers own their task (as in `async-task`), the
//! task would own itself through its fiber, and never be dropped when everybody else has forgotten it.
//!
//! A waker that turns out stale (the `Run` has moved to another task meanwhile) costs one more poll
//! with the fresh one before the fiber suspends, so no wake-up is lost. [`Waker::will_wake`] alone
//! cannot tell: it may say no for ever, even of a waker and its clone. A waker that was taken since
//! the fiber was last resumed is fresh, whatever it says; hence [`Waiter::resumptions`]. One that is lent is
//! always fresh, since nothing suspends the fiber while it is.
//!
//! [`Waiter::context`] is valid while the fiber runs: it is the argument of the `Run::poll` call
//! that is resuming it, further down the native stack.
//!
//! [`Header::state`] is null, or points at the waiter of the fiber's root frame, which sets it
//! ([`Waiter::enter`]) and clears it ([`Waiter::leave`]) around everything that runs above that frame.
//! A [`Current`] that finds it set was therefore made above that frame, and is gone before the waiter
//! is.

#![allow(unsafe_code)]

use super::inbox::{Inbox, Server};
use crate::ambient::must_not_suspend;
use crate::error::AwaitError;
use crate::fiber::current::{self, Current};
use crate::fiber::{SuspendError, suspend_current};
use scopeguard::ScopeGuard;
use std::cell::{Cell, OnceCell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, RawWakerVTable, Waker};

/// What a poll of `Run` hands to the fiber: its context, with the lifetime that only the poll knows.
pub(super) type ContextPointer = *mut Context<'static>;

/// Lives in the root frame of a `run` fiber; found through [`Header::state`].
pub(super) struct Waiter {
    context: Cell<ContextPointer>,
    /// What the outermost wait polls with, if `is_valid`. At one address as long as
    /// the fiber's code runs.
    waker: UnsafeCell<ManuallyDrop<Waker>>,
    /// What `waker` is a copy of, if that is kept.
    keeper: UnsafeCell<Option<Waker>>,
    /// Whether `waker` is valid: lent or kept.
    is_valid: Cell<bool>,
    /// The functions of a waker whose clone had the same words.
    lendable: Cell<*const RawWakerVTable>,
    /// How often the fiber was resumed so far.
    resumptions: Cell<usize>,
    /// What `resumptions` was when `waker` was last found to be, or made, the latest.
    waker_taken_at: Cell<usize>,
    /// Boxed, since few have it.
    server: OnceCell<Box<Server>>,
}

impl Waiter {
    pub(super) fn new(context: ContextPointer) -> Self {
        Self {
            context: Cell::new(context),
            waker: UnsafeCell::new(copy_of(Waker::noop())),
            keeper: UnsafeCell::new(None),
            is_valid: Cell::new(false),
            lendable: Cell::new(ptr::null()),
            resumptions: Cell::new(0),
            waker_taken_at: Cell::new(0),
            server: OnceCell::new(),
        }
    }

    /// Makes this the waiter of the fiber that the caller is the root frame of, until
    /// [`leave`](Self::leave), which must come before `self` goes or moves.
    pub(super) fn enter(&self) {
        current::with(|current| current.state.set(ptr::from_ref(self).cast()));
    }

    /// Undoes [`enter`](Self::enter).
    pub(super) fn leave(&self) {
        current::with(|current| {
            current.hot.set(ptr::null());
            current.home.set(ptr::null());
            current.state.set(ptr::null());
        });
    }

    /// What other threads have sent, if they can.
    #[inline(always)]
    pub(super) fn server(&self) -> Option<&Server> {
        self.server.get().map(|server| &**server)
    }

    /// Where other threads may send futures, for whoever polls the fiber to poll.
    pub(super) fn inbox(&self, current: &Current<'_>) -> Arc<Inbox> {
        let server = self.server.get_or_init(|| Box::new(Server::new()));
        if current.is_cancelled() {
            server.close(AwaitError::REMOTE_CANCELLED);
        }
        server.inbox()
    }

    /// The waiter of the fiber that the caller runs on, if it is one of `run`'s.
    #[inline]
    pub(super) fn of<'a>(current: &'a Current<'_>) -> Option<&'a Waiter> {
        // SAFETY: the module's invariant on `state`.
        unsafe { current.state.get().cast::<Waiter>().as_ref() }
    }

    /// The waker of the poll that resumed the fiber last. Not to be kept across a suspension.
    #[inline]
    fn latest(&self) -> &Waker {
        // SAFETY: see the module's invariant on `context`.
        unsafe { (*self.context.get()).waker() }
    }

    /// Whether the outermost's waker wakes the task that polled last.
    ///
    /// Must only be called with no poll unfinished, on a fiber that is not cancelled.
    fn has_latest_waker(&self) -> bool {
        if !self.is_valid.get() {
            return false;
        }
        // SAFETY: no poll is unfinished, so nobody changes the cell.
        let Some(keeper) = (unsafe { (*self.keeper.get()).as_ref() }) else { return true };
        if self.waker_taken_at.get() != self.resumptions.get() {
            if !keeper.will_wake(self.latest()) {
                return false;
            }
            self.waker_taken_at.set(self.resumptions.get());
        }
        true
    }

    /// Makes sure that the outermost's waker is the latest, and returns it; `None` if the fiber was cancelled
    /// meanwhile.
    ///
    /// Must only be called with no poll unfinished, on a fiber that is not cancelled.
    fn outermost_waker(&self, current: Current<'_>) -> Option<*const Waker> {
        while !self.has_latest_waker() {
            let replaced = if ptr::eq(self.latest().vtable(), self.lendable.get()) {
                // SAFETY: no poll is unfinished, so nobody holds a reference into the cells. The
                // functions are those of a waker that can be lent.
                unsafe {
                    self.lend();
                    (*self.keeper.get()).take()
                }
            } else {
                self.clone_latest()
            };
            self.is_valid.set(true);
            // Cloning and dropping a waker may run any code, even code that waits. So it is done
            // with nothing borrowed, dropping comes last, and then the question is the same again.
            drop(replaced);
            if current.is_cancelled() {
                return None;
            }
        }
        Some(self.waker.get().cast_const().cast())
    }

    /// Makes the outermost's waker a copy of the latest.
    ///
    /// # Safety
    ///
    /// No poll may be unfinished, and clones of the latest waker must have its words.
    #[inline(always)]
    unsafe fn lend(&self) {
        // SAFETY: no poll is unfinished, so nobody holds a reference into the cell.
        unsafe { *self.waker.get() = copy_of(self.latest()) };
    }

    /// Makes the outermost's waker a clone of the latest, and returns what kept it before. Finds out whether
    /// such can be lent.
    ///
    /// Must only be called with no poll unfinished.
    fn clone_latest(&self) -> Option<Waker> {
        let taken_at = self.resumptions.get();
        let clone = self.latest().clone();
        // Otherwise that has run code that waited, and the latest is another.
        if self.resumptions.get() == taken_at && have_same_words(&clone, self.latest()) {
            self.lendable.set(clone.vtable());
        }
        self.waker_taken_at.set(taken_at);
        // SAFETY: no poll is unfinished, so nobody holds a reference into the cells. The clone has the same
        // words after it has been moved.
        unsafe {
            *self.waker.get() = copy_of(&clone);
            (*self.keeper.get()).replace(clone)
        }
    }

    /// Whether the outermost's waker, which is valid, is lent.
    #[inline(always)]
    fn is_lent(&self) -> bool {
        // SAFETY: the reference ends here, and no other code runs meanwhile.
        unsafe { (*self.keeper.get()).is_none() }
    }

    /// Makes sure that the outermost's waker, which unfinished polls may hold, outlives the poll that
    /// resumed the fiber.
    ///
    /// # Panics
    ///
    /// If it was lent, and its clones have the same words no longer.
    fn keep(&self) {
        if !self.is_valid.get() || !self.is_lent() {
            return;
        }
        // SAFETY: valid, and only read while polls are unfinished.
        let waker = unsafe { &**self.waker.get() };
        let clone = waker.clone();
        // Otherwise that has run code that waited, and kept it.
        if self.is_lent() {
            assert!(
                have_same_words(&clone, waker),
                "fiberback: cannot wait inside of this poll: the waker of the task is one whose clones \
                 are now equal to it and now not"
            );
            self.waker_taken_at.set(self.resumptions.get());
            // SAFETY: `None`, and no reference to it is ever kept while other code runs.
            unsafe { *self.keeper.get() = Some(clone) };
        }
    }

    /// Lets go of the outermost's waker, as a fiber must before it suspends.
    ///
    /// Must only be called with no poll unfinished.
    fn release_waker(&self, current: Current<'_>) {
        current.hot.set(ptr::null());
        current.home.set(ptr::null());
        self.is_valid.set(false);
        // SAFETY: no poll is unfinished, so nobody holds a reference into the cell.
        let released = unsafe { (*self.keeper.get()).take() };
        // With nothing borrowed: this may run any code.
        drop(released);
    }

    /// Switches back to the poll that resumed the fiber, until the next one does.
    #[inline(always)]
    fn suspend(&self, current: Current<'_>) -> Result<(), AwaitError> {
        if must_not_suspend() {
            return Err(AwaitError::IN_SUBSCRIBER);
        }
        // SAFETY: `current` is the fiber that we are on, and the waiter found there says that it is one of
        // `run`'s, so these are its types.
        match unsafe { suspend_current::<ContextPointer, ()>(&current, ()) } {
            Ok(context) => {
                self.context.set(context);
                self.resumptions.set(self.resumptions.get().wrapping_add(1));
                Ok(())
            }
            Err(refused) => {
                if refused.is_cancelled() {
                    self.resumptions.set(self.resumptions.get().wrapping_add(1));
                    // From here on every wait takes the slow path and is refused there.
                    current.hot.set(ptr::null());
                    current.home.set(ptr::null());
                }
                Err(refused.into())
            }
        }
    }
}

/// The same waker once more, not counted by anybody: valid as long as the original is.
#[inline(always)]
fn copy_of(waker: &Waker) -> ManuallyDrop<Waker> {
    // SAFETY: its functions take the data and the table by value, and know nothing of where these are kept,
    // so that a copy is as good as a reference. It is never dropped.
    ManuallyDrop::new(unsafe { ptr::read(waker) })
}

/// [`Waker::will_wake`], whose meaning the standard library may widen.
fn have_same_words(waker: &Waker, other: &Waker) -> bool {
    ptr::eq(waker.data(), other.data()) && ptr::eq(waker.vtable(), other.vtable())
}

impl From<SuspendError> for AwaitError {
    fn from(error: SuspendError) -> Self {
        if error.is_cancelled() { Self::CANCELLED } else { Self::UNWINDING }
    }
}

/// Polls with `hot` (and `home`) as given, marking the time of the poll by a null `hot`.
#[inline(always)]
fn poll_marked<F: Future + ?Sized>(
    current: Current<'_>,
    waker: &Waker,
    future: Pin<&mut F>,
) -> Poll<F::Output> {
    let polled = poll_marking(current, waker, future);
    current.hot.set(current.home.get());
    polled
}

/// [`poll_marked`], which leaves `hot` null if the future is pending: a wait that goes on sets it anyway.
#[inline(always)]
pub(super) fn poll_marking<F: Future + ?Sized>(
    current: Current<'_>,
    waker: &Waker,
    future: Pin<&mut F>,
) -> Poll<F::Output> {
    current.hot.set(ptr::null());
    // On unwinding, too. `home` is read afterwards: it is null if the fiber was cancelled meanwhile.
    let marked = scopeguard::guard((), move |()| current.hot.set(current.home.get()));
    let polled = future.poll(&mut Context::from_waker(waker));
    if polled.is_pending() {
        ScopeGuard::into_inner(marked);
    }
    polled
}

/// A wait for which `hot` was null: the first on a fiber, one inside a poll, one on a cancelled
/// fiber, or one that is not on a fiber of `run`'s.
#[cold]
pub(super) fn wait_slowly<F: Future + ?Sized>(
    current: Current<'_>,
    mut future: Pin<&mut F>,
) -> Result<F::Output, AwaitError> {
    let Some(waiter) = Waiter::of(&current) else { return Err(AwaitError::OFF_FIBER) };
    if current.is_cancelled() {
        return refuse(current, future);
    }
    if current.home.get().is_null() {
        let Some(waker) = waiter.outermost_waker(current) else {
            return Err(AwaitError::CANCELLED);
        };
        current.home.set(waker.cast());
        // SAFETY: just made, and only replaced between polls of the outermost wait.
        return match poll_marked(current, unsafe { &*waker }, future.as_mut()) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => wait_slowly_on(current, waiter, future),
        };
    }
    wait_nested(current, waiter, future)
}

/// The rest of the outermost wait, after a first [`poll_marking`] that was pending.
///
/// Inlined into whatever calls `await_`: the processor foresees a return by the call that it has seen
/// last, and after a switch that was another one. So each frame between the switch and the code that goes
/// on costs it some twenty cycles.
///
/// # Safety
///
/// `hot` must have been set before that poll.
#[inline(always)]
pub(super) unsafe fn wait_outermost<F: Future + ?Sized>(
    current: Current<'_>,
    mut future: Pin<&mut F>,
) -> Result<F::Output, AwaitError> {
    // SAFETY: `hot` was set, which only a waiter does, and `leave` clears before `state`.
    let waiter = unsafe { Waiter::of(&current).unwrap_unchecked() };
    loop {
        // Polled, with `home`, and pending. If that is lent, the fiber was not suspended meanwhile, so it is
        // the latest, and the fiber is not cancelled. Anything else is for `wait_slowly_on`.
        if !waiter.is_lent() {
            current.hot.set(current.home.get());
            return wait_slowly_on(current, waiter, future);
        }
        if let Err(error) = waiter.suspend(current) {
            // Not cancelled: what was lent still is, and this wait is over.
            current.hot.set(current.home.get());
            return Err(error);
        }
        // SAFETY: no poll is unfinished, so nobody changes the cell.
        let lent = unsafe { (*waiter.waker.get()).vtable() };
        if !ptr::eq(waiter.latest().vtable(), lent) {
            waiter.release_waker(current);
            return wait_slowly_on(current, waiter, future);
        }
        // SAFETY: as above; and the functions are those of a waker that was lent.
        unsafe { waiter.lend() };
        // SAFETY: just put there, and not replaced before the poll is over.
        let waker = unsafe { &**waiter.waker.get() };
        if let Poll::Ready(output) = poll_marking(current, waker, future.as_mut()) {
            return Ok(output);
        }
    }
}

/// [`wait_outermost`] in general: whatever was done by the code of wakers and nested waits.
#[cold]
#[inline(never)]
fn wait_slowly_on<F: Future + ?Sized>(
    current: Current<'_>,
    waiter: &Waiter,
    mut future: Pin<&mut F>,
) -> Result<F::Output, AwaitError> {
    loop {
        if current.is_cancelled() {
            return Err(AwaitError::CANCELLED);
        }
        // If it is stale, the future is polled with the fresh one first.
        if waiter.has_latest_waker() {
            let resumptions = waiter.resumptions.get();
            waiter.release_waker(current);
            // If that ran code that waited, our own wake-up may have been among those it used up.
            if waiter.resumptions.get() == resumptions {
                waiter.suspend(current)?;
            }
        }
        let Some(waker) = waiter.outermost_waker(current) else {
            return Err(AwaitError::CANCELLED);
        };
        current.home.set(waker.cast());
        // SAFETY: just made, and not replaced before this poll is over.
        if let Poll::Ready(output) = poll_marked(current, unsafe { &*waker }, future.as_mut()) {
            return Ok(output);
        }
    }
}

/// A wait inside the poll of another one on the same fiber.
#[cold]
fn wait_nested<F: Future + ?Sized>(
    current: Current<'_>,
    waiter: &Waiter,
    mut future: Pin<&mut F>,
) -> Result<F::Output, AwaitError> {
    let mut taken_at = waiter.resumptions.get();
    let mut waker = waiter.latest().clone();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        if current.is_cancelled() {
            return Err(AwaitError::CANCELLED);
        }
        let resumptions = waiter.resumptions.get();
        if taken_at == resumptions || waker.will_wake(waiter.latest()) {
            waiter.keep();
            // If that ran code that waited, our own wake-up may have been among those it used up.
            if waiter.resumptions.get() == resumptions {
                waiter.suspend(current)?;
            } else if current.is_cancelled() {
                return Err(AwaitError::CANCELLED);
            }
        }
        taken_at = waiter.resumptions.get();
        waker.clone_from(waiter.latest());
    }
}

/// A wait on a cancelled fiber. While it unwinds, a destructor may still get what is ready, since
/// the alternative is to abort; nothing else is even polled.
#[cold]
fn refuse<F: Future + ?Sized>(
    current: Current<'_>,
    future: Pin<&mut F>,
) -> Result<F::Output, AwaitError> {
    // Not `current.is_unwinding()`: whether this is the cancellation's unwinding or that of a panic
    // in which the `Run` was dropped, a destructor must not unwind a second time.
    if !std::thread::panicking() {
        current.count_refusal();
        return Err(AwaitError::CANCELLED);
    }
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => {
            current.count_refusal();
            Err(AwaitError::CANCELLED_UNWINDING)
        }
    }
}
