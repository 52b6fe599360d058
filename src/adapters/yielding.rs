//! Letting other tasks run in the middle of synchronous work that keeps the CPU busy.

use crate::bridge::{await_, try_await};
use crate::error::AwaitError;

/// Lets other tasks of this thread run, then goes on.
///
/// Synchronous code on a fiber shares its thread with the executor. Code that computes for long
/// between two waits holds everything else up; this is where it lets the others have a turn. The
/// fiber is suspended once, and is due again as soon as the executor has been round: under tokio,
/// when ready sockets and timers have been seen to (`tokio::task::yield_now`
/// is what is awaited).
///
/// **Off a fiber this does nothing**, so that a library may call it wherever it runs: on a thread of
/// its own there is nobody to make way for. Also during a panic or the unwinding of a cancellation,
/// where a fiber cannot be suspended.
///
/// One turn costs a trip through the executor, some hundred nanoseconds: call it every hundred
/// microseconds or so, or let a [`Budget`] count.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// fn checksum(blocks: &[Vec<u8>]) -> u64 {
///     let mut sum = 0;
///     for block in blocks {
///         sum += block.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         fiberback::yield_now();
///     }
///     sum
/// }
/// let blocks = vec![vec![1; 1000]; 10];
/// assert_eq!(checksum(&blocks), 10_000); // off a fiber: never yields
/// assert_eq!(fiberback::run(move || checksum(&blocks)).await, 10_000);
/// # }
/// ```
///
/// # Cancellation
///
/// When the [`Run`](crate::Run) is dropped, now or earlier, the stack is unwound from here, as from
/// [`await_`]. [`try_yield_now`] returns an error instead.
///
/// # Panics
///
/// Never.
#[track_caller]
#[inline]
pub fn yield_now() {
    if try_yield_now().is_err() {
        unwind_cancelled();
    }
}

/// [`yield_now`] that returns an error where that would unwind.
///
/// # Errors
///
/// [`is_cancelled`](AwaitError::is_cancelled), when the [`Run`](crate::Run) was dropped; no other.
#[track_caller]
#[inline]
pub fn try_yield_now() -> Result<(), AwaitError> {
    only_if_cancelled(try_await(turn()))
}

/// Off a fiber, or while it unwinds, a turn that cannot be had is not missed.
#[inline]
fn only_if_cancelled(result: Result<(), AwaitError>) -> Result<(), AwaitError> {
    match result {
        Err(error) if error.is_cancelled() && !error.is_unwinding() => Err(error),
        _ => Ok(()),
    }
}

/// Leaves a cancelled fiber as `await_` does, which never polls this future.
#[cold]
#[allow(unreachable_code)] // Rust 1.85 says so of the `match`, whose value has no values
fn unwind_cancelled() -> ! {
    match await_(std::future::pending::<std::convert::Infallible>()) {}
}

/// Pending once, while others run.
#[cfg(feature = "tokio")]
fn turn() -> impl Future<Output = ()> {
    // Wakes only after the driver was polled, and wakes at once where no tokio runtime is.
    tokio::task::yield_now()
}

/// Pending once, while others run.
#[cfg(not(feature = "tokio"))]
fn turn() -> impl Future<Output = ()> {
    use std::task::Poll;

    let mut had = false;
    std::future::poll_fn(move |context| {
        if had {
            return Poll::Ready(());
        }
        had = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Counts work, and [yields](yield_now) each time enough of it is done.
///
/// What a unit is is yours to say: a row, a byte, a pixel. `fiberback::io::Yielding`
/// counts bytes that pass through a reader or writer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let primes = fiberback::run(|| {
///     let mut budget = fiberback::Budget::every(100);
///     (2..1000_u32)
///         .filter(|n| {
///             budget.spend(1); // yields at the 100th, the 200th, ...
///             (2..*n).all(|divisor| n % divisor != 0)
///         })
///         .count()
/// });
/// assert_eq!(primes.await, 168);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Account);

#[derive(Clone, Debug)]
enum Account {
    Units {
        every: u64,
        left: u64,
    },
    #[cfg(feature = "tokio")]
    Coop {
        due: bool,
    },
}

impl Budget {
    /// Yields each time so many units are spent. `0` is taken for `1`.
    pub const fn every(units: u64) -> Self {
        let every = if units == 0 { 1 } else { units };
        Self(Account::Units { every, left: every })
    }

    /// Yields when the tokio task has used up its cooperative budget, which its sockets, timers and
    /// channels draw from too: each [`spend`](Self::spend) of one unit or more, however many, is one
    /// operation on that account. Outside a tokio task it never yields.
    ///
    /// See [`tokio::task::coop`](::tokio::task::coop) for what the budget is (128 operations each
    /// time the task is polled, at the time of writing).
    #[cfg(feature = "tokio")]
    pub const fn coop() -> Self {
        Self(Account::Coop { due: false })
    }

    /// Takes `units` off, and yields once if that uses the budget up, which is then whole again.
    ///
    /// Off a fiber nothing but the count changes.
    ///
    /// # Cancellation
    ///
    /// As [`yield_now`], when a turn is due.
    #[track_caller]
    #[inline]
    pub fn spend(&mut self, units: u64) {
        if self.try_spend(units).is_err() {
            unwind_cancelled();
        }
    }

    /// [`spend`](Self::spend) that returns an error where that would unwind.
    ///
    /// # Errors
    ///
    /// As [`try_yield_now`], when a turn is due.
    #[track_caller]
    #[inline]
    pub fn try_spend(&mut self, units: u64) -> Result<(), AwaitError> {
        self.charge(units);
        self.settle()
    }

    /// Takes `units` off.
    #[inline]
    pub(crate) fn charge(&mut self, units: u64) {
        match &mut self.0 {
            Account::Units { left, .. } => *left = left.saturating_sub(units),
            #[cfg(feature = "tokio")]
            Account::Coop { due } => *due |= units > 0,
        }
    }

    /// Yields if the budget is used up.
    #[inline]
    pub(crate) fn settle(&mut self) -> Result<(), AwaitError> {
        match &mut self.0 {
            Account::Units { left, .. } if *left > 0 => Ok(()),
            Account::Units { left, every } => {
                *left = *every;
                try_yield_now()
            }
            #[cfg(feature = "tokio")]
            Account::Coop { due } if *due => {
                *due = false;
                only_if_cancelled(try_await(tokio::task::coop::consume_budget()))
            }
            #[cfg(feature = "tokio")]
            Account::Coop { .. } => Ok(()),
        }
    }
}
