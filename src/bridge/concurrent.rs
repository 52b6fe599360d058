//! The two commonest scopes as functions.

#![allow(unsafe_code)]

use super::await_::await_;
use super::group::{Group, Notice};
use super::scope::{scope, stack};
use crate::fiber::Site;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll;

/// Runs two closures at the same time, each on a fiber of its own, and returns what both return.
///
/// Below [`run`](crate::run) only; both run in the task that calls it. They may borrow, as in
/// [`scope`](crate::scope()).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// fn fetch(id: u32) -> u32 {
///     fiberback::await_(tokio::time::sleep(std::time::Duration::from_millis(5)));
///     id * 10
/// }
/// // 5 ms, not 10.
/// let both = fiberback::run(|| fiberback::join(|| fetch(1), || fetch(2))).await;
/// assert_eq!(both, (10, 20));
/// # }
/// ```
///
/// # Cancellation and panics
///
/// As [`scope`](crate::scope()): if one panics, the other is cancelled.
#[track_caller]
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB,
{
    let (first, second) = (Cell::new(None), Cell::new(None));
    let group = Group::default();
    let site = Site::caller();
    // SAFETY: they borrow locals that outlive the group, and what the caller has given them.
    unsafe {
        group.add(site, stack("join"), None, || first.set(Some(a())));
        group.add(site, stack("join"), None, || second.set(Some(b())));
    }
    group.run_to_end();
    first.take().zip(second.take()).expect("both have ended, and neither has panicked")
}

/// Calls `f` with each item, for up to `limit` items at the same time, each on a fiber of its own, and returns
/// the results in the order of the items.
///
/// Below [`run`](crate::run) only; all of it runs in the task that calls it. `f` and the items may borrow, as
/// in [`scope`](crate::scope()). The iterator is asked for an item when one may begin, and may wait itself; the
/// others go on meanwhile.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// fn size(page: &str) -> usize {
///     fiberback::await_(tokio::time::sleep(std::time::Duration::from_millis(5)));
///     page.len()
/// }
/// let sizes = fiberback::run(|| {
///     let pages: Vec<String> = ["a", "bb", "ccc"].map(str::to_owned).into();
///     fiberback::map_concurrent(&pages, 2, |page| size(page))
/// })
/// .await;
/// assert_eq!(sizes, [1, 2, 3]);
/// # }
/// ```
///
/// # Cancellation and panics
///
/// As [`scope`](crate::scope()): if `f` or the iterator panics, all are cancelled. Panics, too, if `limit` is 0,
/// and if no stack can be had.
#[track_caller]
pub fn map_concurrent<I, F, T>(items: I, limit: usize, f: F) -> Vec<T>
where
    I: IntoIterator,
    F: Fn(I::Item) -> T,
{
    assert!(
        limit > 0,
        "fiberback::map_concurrent: with a limit of 0 nothing could run; give 1 or more"
    );
    let results = RefCell::new(Vec::new());
    let running = Cell::new(0);
    let one_has_ended = Notice::default();
    scope(|s| {
        for (index, item) in items.into_iter().enumerate() {
            results.borrow_mut().push(None);
            running.set(running.get() + 1);
            let (f, results, running, one_has_ended) = (&f, &results, &running, &one_has_ended);
            s.spawn(move || {
                let result = f(item);
                results.borrow_mut()[index] = Some(result);
                running.set(running.get() - 1);
                one_has_ended.notify(s.group());
            });
            await_(poll_fn(|context| {
                if running.get() < limit {
                    return Poll::Ready(());
                }
                one_has_ended.listen(s.group(), context);
                Poll::Pending
            }));
        }
    });
    let results = results.into_inner().into_iter();
    results.map(|result| result.expect("each has ended, and none has panicked")).collect()
}
