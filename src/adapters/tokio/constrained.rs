//! Whether tokio's cooperative budget limits the running code.
//!
//! tokio tells whether there is any left (`coop::has_budget_remaining`), and not whether there is a limit: without
//! one there is always some left. But a [`RestoreOnPending`] puts back the budget that it was made under, and
//! does nothing if that had no limit. So it is dropped where nothing is left: if there is something left
//! afterwards, then it was made under a limit. That takes some ten nanoseconds; spending all of the budget,
//! which is the other way to find out, takes most of a microsecond.
//!
//! A place where nothing is left is made inside of `coop::unconstrained`, after which the budget is as it was,
//! by a `RestoreOnPending` made under a budget of one, which each thread keeps. Whether all this works as said
//! is tried when that is made; with a version of tokio in which it does not, the budget is spent.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::task::LocalSet;
use tokio::task::coop::{RestoreOnPending, has_budget_remaining, poll_proceed, unconstrained};

/// What a thread keeps for the next time that it asks.
pub(super) struct Constrained {
    /// `None` where the quick way does not work, and before the first time.
    one: Cell<Option<BudgetOfOne>>,
    was_asked: Cell<bool>,
}

impl Constrained {
    pub(super) const fn new() -> Self {
        Self { one: Cell::new(None), was_asked: Cell::new(false) }
    }

    /// Whether the code that runs now has a budget, which is the same afterwards.
    pub(super) fn now(&self) -> bool {
        if !self.was_asked.replace(true) {
            self.one.set(BudgetOfOne::new());
        }
        match self.one.take() {
            Some(one) => {
                let (is_limited, one) = quickly(one);
                self.one.set(one);
                is_limited
            }
            None => slowly(),
        }
    }
}

/// Made under a budget of one, and not to be dropped as it is under another.
struct BudgetOfOne(Option<RestoreOnPending>);

impl BudgetOfOne {
    /// Made in a task of our own, and tried in another.
    fn new() -> Option<Self> {
        let (units, one) = in_a_task(spend)?;
        in_a_task(move || {
            let (limited, one) = quickly(one?);
            let (unlimited, one) = without_limit(|| one.map(quickly))?;
            let works = limited && !unlimited && spend().0 == units;
            one.filter(|_| works)
        })?
    }

    /// Makes one the budget of the running code.
    fn restore(mut self) {
        drop(self.0.take());
    }
}

impl Drop for BudgetOfOne {
    fn drop(&mut self) {
        if let Some(unused) = &self.0 {
            unused.made_progress();
        }
    }
}

/// Whether there is a limit; and `one` for the next time.
fn quickly(one: BudgetOfOne) -> (bool, Option<BudgetOfOne>) {
    // Dropped last: it puts back what both have taken.
    let Some(_first) = take() else { return (true, Some(one)) };
    let Some(second) = take() else { return (true, Some(one)) };
    without_limit(|| {
        one.restore();
        let one = take().map(|taken| BudgetOfOne(Some(taken)));
        // Nothing is left.
        drop(second);
        (has_budget_remaining(), one)
    })
}

/// The same by spending the budget.
fn slowly() -> bool {
    // Puts back what the others take.
    let Some(_first) = take() else { return true };
    spend().0 < u8::MAX
}

/// Spends the budget, which is a `u8` if there is one. How many units that were, 255 if there is no end to them;
/// and the last.
fn spend() -> (u8, Option<BudgetOfOne>) {
    let mut last = None;
    for units in 0..u8::MAX {
        let Some(taken) = take() else { return (units, last) };
        last = Some(BudgetOfOne(Some(taken)));
    }
    (u8::MAX, None)
}

/// Takes one unit of the budget, until what is returned is dropped; `None` if there is none left.
fn take() -> Option<RestoreOnPending> {
    match poll_proceed(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(taken) => Some(taken),
        Poll::Pending => None,
    }
}

/// Calls `f` where there is no limit, after which the budget is as it was.
fn without_limit<R>(f: impl FnOnce() -> R) -> R {
    let mut f = Some(f);
    let call = poll_fn(|_| Poll::Ready((f.take().expect("polled once"))()));
    match pin!(unconstrained(call)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("it is always ready"),
    }
}

/// Calls `f` under the budget of a task. `None` if tokio does not run it.
fn in_a_task<R: 'static>(f: impl FnOnce() -> R + 'static) -> Option<R> {
    let output = Rc::new(Cell::new(None));
    let tasks = LocalSet::new();
    tasks.spawn_local({
        let output = Rc::clone(&output);
        async move { output.set(Some(f())) }
    });
    let _ = pin!(tasks).poll(&mut Context::from_waker(Waker::noop()));
    output.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units that are left, which are then put back.
    fn left() -> u16 {
        let first = take();
        u16::from(spend().0) + u16::from(first.is_some())
    }

    #[test]
    fn the_quick_way_works_with_this_tokio_and_says_what_the_slow_one_does() {
        let constrained = Constrained::new();
        for _ in 0..3 {
            assert!(!constrained.now());
            let one = constrained.one.take();
            assert!(one.is_some(), "the quick way does not work");
            assert!(!slowly());
            constrained.one.set(one);
        }
        in_a_task(move || {
            for spent in 0.. {
                let before = left();
                assert!(constrained.now() && slowly());
                assert!(constrained.one.take().map(|one| constrained.one.set(Some(one))).is_some());
                assert_eq!(left(), before);
                assert!(!without_limit(|| constrained.now()));
                assert_eq!(left(), before);
                match take() {
                    Some(taken) => taken.made_progress(),
                    None => return assert!(spent > 2),
                }
            }
        })
        .expect("the task has run");
        // Dropped with what it had kept, which changes nothing here either.
        assert_eq!(left(), 256);
    }
}
