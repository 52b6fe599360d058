//! Fibers of one task that overlap, and end with the call that began them.

#![allow(unsafe_code)]

use super::await_::{await_, on_fiber, raise, try_await};
use super::builder::Builder;
use super::group::{Group, Notice};
use crate::error::{AwaitError, StackError};
use crate::fiber::{Site, Stack, take_stack_alike};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Runs code that can spawn fibers, which may borrow from its surroundings, and returns when all have ended.
///
/// Below [`run`](crate::run) only. All of it, `f` included, runs in the task that calls it, on its thread:
/// while one waits, the others go on, and nothing is locked or sent. `f` has a fiber of its own, too, with a
/// stack of the same size, so that what it waits for itself overlaps with the rest.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// fn price(item: &str) -> usize {
///     fiberback::await_(tokio::time::sleep(Duration::from_millis(5)));
///     item.len()
/// }
///
/// let total = fiberback::run(|| {
///     let items = ["tea".to_owned(), "honey".to_owned()]; // borrowed by the fibers
///     let asked = Cell::new(0);
///     let total: usize = fiberback::scope(|s| {
///         let prices: Vec<_> = items.iter().map(|item| s.spawn(|| {
///             asked.set(asked.get() + 1); // one thread: no lock
///             price(item)
///         })).collect(); // both wait at the same time
///         prices.into_iter().map(|price| price.join()).sum()
///     });
///     assert_eq!(asked.get(), 2);
///     total
/// })
/// .await;
/// assert_eq!(total, 8);
/// # }
/// ```
///
/// [`join`](crate::join) runs two closures so, and [`map_concurrent`](crate::map_concurrent) one closure on
/// many items.
///
/// # Cancellation
///
/// When the [`Run`](crate::Run) that this is called below is dropped, all fibers of the scope are unwound from
/// where they wait, and then the caller is. In a program built with `panic = "abort"` they are leaked with the
/// caller.
///
/// # Panics
///
/// * If `f` or a fiber panics, the others are cancelled at once, and the first panic comes out of this call.
/// * Off a fiber, and if no stack can be had for `f`; and as [`await_`] in a destructor.
#[track_caller]
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    // Outlives the group, whose members write to it.
    let returned = Cell::new(None);
    let scope = Scope { group: Group::default(), scope: PhantomData, env: PhantomData };
    let body = || returned.set(Some(f(&scope)));
    // SAFETY: it borrows locals that outlive the group, and the group itself; and what `f` does, which
    // outlives this call.
    unsafe { scope.group.add(Site::caller(), stack("scope"), None, body) };
    scope.group.run_to_end();
    returned.take().expect("has ended, and neither panicked nor was cancelled")
}

/// A stack like that of the fiber that calls.
#[track_caller]
pub(super) fn stack(function: &str) -> Stack {
    if !on_fiber() {
        raise(AwaitError::OFF_FIBER);
    }
    match take_stack_alike() {
        Ok(stack) => stack,
        Err(error) => no_stack(function, &error),
    }
}

#[cold]
#[track_caller]
fn no_stack(function: &str, error: &StackError) -> ! {
    panic!(
        "fiberback::{function}: {error}. `fiberback::Scope::spawn_with` returns this as an error"
    )
}

/// Where fibers are spawned that end with the call of [`scope`] which lends this.
pub struct Scope<'scope, 'env: 'scope> {
    group: Group,
    /// Invariant in both, as in `std::thread::Scope`: neither may shrink to something that ends earlier.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Runs `f` on a fiber of this scope, with a stack like that of the fiber that calls. It begins when the
    /// caller, or another of the scope, next waits or ends.
    ///
    /// Dropping the handle detaches the fiber: the scope waits for it all the same.
    ///
    /// # Panics
    ///
    /// If no stack can be had; [`spawn_with`](Self::spawn_with) returns an error instead.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        match take_stack_alike() {
            Ok(stack) => self.spawn_on(Site::caller(), stack, None, f),
            Err(error) => no_stack("Scope::spawn", &error),
        }
    }

    /// [`spawn`](Self::spawn) with a name, a stack size or a pool of one's choice.
    ///
    /// # Errors
    ///
    /// If the stack size is out of range, or no more stacks can be had.
    #[track_caller]
    pub fn spawn_with<F, T>(
        &'scope self,
        builder: &Builder,
        f: F,
    ) -> Result<ScopedJoinHandle<'scope, T>, StackError>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        Ok(self.spawn_on(Site::caller(), builder.take_stack()?, builder.fiber_name(), f))
    }

    fn spawn_on<F, T>(
        &'scope self,
        site: Site,
        stack: Stack,
        name: Option<&str>,
        f: F,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let group = &self.group;
        let packet = Rc::new(Packet::default());
        let end = End { packet: Rc::clone(&packet), group };
        let code = move || {
            let end = end;
            end.packet.value.set(Some(f()));
        };
        // SAFETY: all that it borrows lives for 'scope, in which the group is borrowed, too.
        let key = unsafe { group.add(site, stack, name, code) };
        ScopedJoinHandle { key, packet, group }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// What a fiber and its handle share.
struct Packet<T> {
    value: Cell<Option<T>>,
    has_ended: Cell<bool>,
    ended: Notice,
}

impl<T> Default for Packet<T> {
    fn default() -> Self {
        Self { value: Cell::new(None), has_ended: Cell::new(false), ended: Notice::default() }
    }
}

/// The fiber's share; dropped at its end, whichever that is.
struct End<'scope, T> {
    packet: Rc<Packet<T>>,
    group: &'scope Group,
}

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        self.packet.has_ended.set(true);
        self.packet.ended.notify(self.group);
    }
}

/// A fiber of a [`Scope`], and what its code will return.
///
/// Dropping it detaches the fiber, whose result is then dropped.
pub struct ScopedJoinHandle<'scope, T> {
    /// `None` if it was refused, since the scope is being ended.
    key: Option<usize>,
    packet: Rc<Packet<T>>,
    group: &'scope Group,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the fiber to end, and returns what its code has returned.
    ///
    /// # Cancellation
    ///
    /// As [`await_`]; also when a fiber of the scope panics, this one or another.
    ///
    /// # Panics
    ///
    /// As [`await_`] in a destructor.
    #[track_caller]
    pub fn join(self) -> T {
        match await_(poll_fn(|context| self.poll(context))) {
            Some(value) => value,
            // Only code that goes on while its scope is ended sees this.
            None => raise(AwaitError::CANCELLED),
        }
    }

    /// [`join`](Self::join) that returns an error where that would unwind or panic.
    ///
    /// # Errors
    ///
    /// As [`try_await`]. [`is_cancelled`](AwaitError::is_cancelled) also if the scope was being ended
    /// when the fiber was spawned.
    #[track_caller]
    pub fn try_join(self) -> Result<T, AwaitError> {
        try_await(poll_fn(|context| self.poll(context)))?.ok_or(AwaitError::CANCELLED)
    }

    /// True once the fiber's code has returned (or unwound).
    pub fn is_finished(&self) -> bool {
        self.packet.has_ended.get()
    }

    /// Ends the fiber, if it has not ended: its code unwinds from where it waits, before this call returns. A
    /// fiber that calls this for itself, or for one that it is called below, unwinds when that next waits.
    ///
    /// In a program built with `panic = "abort"`, where nothing can unwind, a fiber that has begun goes on,
    /// and the scope waits for it.
    ///
    /// # Panics
    ///
    /// If a destructor on the fiber does.
    pub fn cancel(self) {
        if let (Some(key), false) = (self.key, self.is_finished()) {
            self.group.cancel(key);
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.key.is_none() || self.packet.has_ended.get() {
            return Poll::Ready(self.packet.value.take());
        }
        self.packet.ended.listen(self.group, context);
        Poll::Pending
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
