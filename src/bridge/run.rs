//! Synchronous code as a future.

#![allow(unsafe_code)]

use super::inbox::Server;
use super::waiter::{ContextPointer, Waiter};
use crate::ambient::RunAmbient;
use crate::error::{AwaitError, StackError};
#[cfg(panic = "unwind")]
use crate::fiber::thread_is_ending;
use crate::fiber::{Fiber, Site, Stack, StackPool, Step, Suspender};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

/// Runs synchronous code so that everything below it can [`await_`](crate::await_).
///
/// Returns a future of the closure's result. Nothing runs before it is polled. The closure then
/// runs on a stack of its own (a *fiber*), on the polling thread; whenever it waits, the future is
/// pending.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sum = fiberback::run(|| {
///     // Any synchronous code, however deep. Here: a callback that must not be async.
///     (1..=3).map(|n| fiberback::await_(async move { n * n })).sum::<i32>()
/// })
/// .await;
/// assert_eq!(sum, 14);
/// # }
/// ```
///
/// # Cancellation
///
/// Dropping the future unwinds the closure's stack from where it waits, so destructors run; see
/// [`await_`](crate::await_). At the end of the thread, in the destructor of a thread-local value, it is
/// leaked instead, with a message: what it uses may be gone. In a program built with `panic = "abort"`
/// nothing can unwind, and the stack is leaked with all that is on it.
///
/// # Panics
///
/// Panics if no stack can be had; use [`Builder::run`](crate::Builder::run) for an error instead. A
/// panic in the closure comes out of the future's `poll`.
#[track_caller]
pub fn run<F, T>(f: F) -> Run<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    match StackPool::global().take() {
        Ok(stack) => Run::new(Site::caller(), stack, None, f),
        Err(error) => no_stack(&error),
    }
}

#[cold]
#[track_caller]
fn no_stack(error: &StackError) -> ! {
    panic!("fiberback::run: {error}. `fiberback::Builder::run` returns this as an error")
}

/// [`run`] for a closure that borrows from its surroundings.
///
/// # Safety
///
/// The returned future must be polled to completion or dropped before anything that `f` (or `T`)
/// borrows goes away. In particular it must not be leaked ([`std::mem::forget`], a reference
/// cycle): the frames of a leaked fiber stay, and whatever they still share with another thread, a
/// scoped one for instance, goes on using what they borrowed.
///
/// # Panics
///
/// As [`run`].
#[track_caller]
pub unsafe fn run_unchecked<'a, F, T>(f: F) -> Run<T>
where
    F: FnOnce() -> T + 'a,
    T: 'static,
{
    match StackPool::global().take() {
        // SAFETY: the caller's promise.
        Ok(stack) => unsafe { Run::new_unchecked(Site::caller(), stack, None, f) },
        Err(error) => no_stack(&error),
    }
}

/// The future of synchronous code running on a fiber. Made by [`run`] and
/// [`Builder::run`](crate::Builder::run).
///
/// It is `!Send`: what the code keeps on its stack may be tied to the thread. On a multi-threaded
/// runtime use `fiberback::tokio::PinnedPool`.
#[must_use = "the code does not run unless the future is polled"]
pub struct Run<T: 'static> {
    _stays: PhantomData<dyn StaysOnItsThreadSoUsePinnedPool>,
    /// `None` once the result has been handed out.
    fiber: Option<Fiber<ContextPointer, (), T>>,
    ambient: RunAmbient,
}

/// Why a [`Run`] is not `Send`. Never implemented: an object of a trait without `Send` is what the
/// compiler says by its own name, so whoever gives a `Run` to `tokio::spawn` reads what to use instead
/// before any internals.
trait StaysOnItsThreadSoUsePinnedPool: UnwindSafe + RefUnwindSafe {}

impl<T: 'static> Run<T> {
    #[inline]
    pub(super) fn new<F>(site: Site, stack: Stack, name: Option<&str>, f: F) -> Self
    where
        F: FnOnce() -> T + 'static,
    {
        // SAFETY: `f` is 'static.
        unsafe { Self::new_unchecked(site, stack, name, f) }
    }

    /// # Safety
    ///
    /// As for [`run_unchecked`].
    #[inline]
    pub(super) unsafe fn new_unchecked<F>(
        site: Site,
        stack: Stack,
        name: Option<&str>,
        f: F,
    ) -> Self
    where
        F: FnOnce() -> T,
    {
        let root = move |_: &Suspender<ContextPointer, ()>, context: ContextPointer| {
            let waiter = Waiter::new(context);
            waiter.enter();
            // Also when `f` unwinds: a destructor may still wait, up to here and no further.
            let _leave = scopeguard::guard((), |()| waiter.leave());
            f()
        };
        // SAFETY: the caller's promise covers what `f` borrows.
        let mut fiber = unsafe { Fiber::new_at(site, stack, root) };
        if let Some(name) = name {
            fiber.set_name(name);
        }
        crate::events::fiber_created(name);
        Self { _stays: PhantomData, fiber: Some(fiber), ambient: RunAmbient::default() }
    }

    /// Which fiber this is, as [`current::address`](crate::fiber::current::address) says on it.
    pub(super) fn address(&self) -> usize {
        self.fiber.as_ref().map_or(0, Fiber::address)
    }

    /// Whether [`cancel`](Self::cancel) can end the code: with `panic = "abort"`, only before it has begun.
    pub(super) fn can_be_cancelled(&self) -> bool {
        cfg!(panic = "unwind") || !self.fiber.as_ref().is_some_and(Fiber::is_started)
    }

    /// Ends the code here and now, and never leaks it, as dropping may.
    ///
    /// # Panics
    ///
    /// If a destructor does.
    pub(super) fn cancel(&mut self) {
        self.close();
        if let Some(fiber) = &mut self.fiber {
            fiber.cancel_with(&mut self.ambient);
        }
    }

    /// What other threads have sent to the fiber, if they can.
    #[inline(always)]
    fn server(&self) -> Option<&Server> {
        let waiter = self.fiber.as_ref()?.state().cast::<Waiter>();
        // SAFETY: null, or the waiter in the fiber's root frame, which clears it before that frame goes
        // (`waiter.rs`); while the fiber is suspended, and borrowed, the frame stays.
        unsafe { waiter.as_ref() }?.server()
    }

    /// [`close`](Self::close) for a fiber that is given up.
    fn abandon(&self) {
        if let Some(server) = self.server() {
            server.abandon(AwaitError::REMOTE_CANCELLED);
        }
    }

    /// Tells the threads that wait for this fiber's task that it will not go on, before its code unwinds: that
    /// may join them.
    #[inline]
    fn close(&self) {
        if let Some(server) = self.server() {
            server.close(AwaitError::REMOTE_CANCELLED);
        }
    }
}

impl<T: 'static> Unpin for Run<T> {}

impl<T: 'static> Future for Run<T> {
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let Some(fiber) = &mut this.fiber else {
            panic!("fiberback: `Run` polled after it was ready")
        };
        let waker = context.waker();
        // The fiber reads through this pointer only before this call returns: `Waiter::context`.
        let context = ptr::from_mut(context).cast::<Context<'static>>();
        match fiber.resume_with(&mut this.ambient, context) {
            Step::Yield(()) => {
                if let Some(server) = this.server() {
                    server.poll(&mut Context::from_waker(waker));
                }
                Poll::Pending
            }
            Step::Return(output) => {
                // Stack and ambient state go now, however long the caller keeps the future.
                this.fiber = None;
                this.ambient = RunAmbient::default();
                Poll::Ready(output)
            }
        }
    }
}

impl<T: 'static> Drop for Run<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(fiber) = &self.fiber {
            #[cfg(panic = "unwind")]
            if fiber.is_started() && !fiber.is_done() && thread_is_ending() {
                crate::events::fiber_leaked_at_thread_end();
                self.abandon();
                if let Some(fiber) = self.fiber.take() {
                    fiber.leak();
                }
            } else {
                self.cancel();
            }
            #[cfg(not(panic = "unwind"))]
            if fiber.is_started() && !fiber.is_done() {
                crate::events::fiber_leaked();
                self.abandon();
                self.fiber.take().map(Fiber::leak);
            }
        }
    }
}

impl<T: 'static> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("fiber", &self.fiber).finish_non_exhaustive()
    }
}
