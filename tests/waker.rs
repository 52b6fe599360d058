//! Whose waker is woken, when, and how often.

mod support;

use fiberback::{await_, run};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, join, select};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use support::{OnDrop, Wakes, yield_once, yields};

/// A hand-operated event: pending until it is set, then wakes who polled last.
#[derive(Clone, Default)]
struct Event(Rc<RefCell<(bool, Option<Waker>)>>);

impl Event {
    fn set(&self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let state = self.0.clone();
        poll_fn(move |cx| {
            let mut state = state.borrow_mut();
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn one_poll_of_the_run_is_one_poll_of_the_future() {
    let polls = Rc::new(Cell::new(0));
    let counted = polls.clone();
    let mut run = pin!(run(move || await_(poll_fn(move |_| {
        counted.set(counted.get() + 1);
        if counted.get() == 4 { Poll::Ready(()) } else { Poll::Pending }
    }))));
    let (_, waker) = Wakes::new();
    for expected in 1..4 {
        assert!(poll_with(run.as_mut(), &waker).is_pending());
        assert_eq!(polls.get(), expected);
    }
    assert!(poll_with(run.as_mut(), &waker).is_ready());
    assert_eq!(polls.get(), 4);
}

#[test]
fn a_wake_reaches_the_task_once() {
    let event = Event::default();
    let inside = event.clone();
    let mut run = pin!(run(move || await_(inside.wait())));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    assert_eq!(wakes.count(), 0);
    event.set();
    assert_eq!(wakes.count(), 1);
    assert!(poll_with(run.as_mut(), &waker).is_ready());
    assert_eq!(wakes.count(), 1);
}

#[test]
fn the_latest_of_changing_wakers_is_woken() {
    let event = Event::default();
    let inside = event.clone();
    let mut run = pin!(run(move || await_(inside.wait())));
    let tasks: Vec<_> = (0..5).map(|_| Wakes::new()).collect();
    for (_, waker) in &tasks {
        assert!(poll_with(run.as_mut(), waker).is_pending());
    }
    event.set();
    let counts: Vec<_> = tasks.iter().map(|(wakes, _)| wakes.count()).collect();
    assert_eq!(counts, [0, 0, 0, 0, 1]);
    assert!(poll_with(run.as_mut(), &tasks[4].1).is_ready());
}

#[test]
fn the_run_may_move_to_another_task_between_waits() {
    let (a, b) = (Event::default(), Event::default());
    let (first, second) = (a.clone(), b.clone());
    let mut run = pin!(run(move || {
        await_(first.wait());
        await_(second.wait());
    }));
    let ((wakes1, task1), (wakes2, task2)) = (Wakes::new(), Wakes::new());
    assert!(poll_with(run.as_mut(), &task1).is_pending());
    a.set();
    assert_eq!(wakes1.count(), 1);
    assert!(poll_with(run.as_mut(), &task2).is_pending());
    b.set();
    assert_eq!((wakes1.count(), wakes2.count()), (1, 1));
    assert!(poll_with(run.as_mut(), &task2).is_ready());
}

#[test]
fn a_nested_wait_that_changes_tasks_loses_no_wake_up() {
    // The outer future registers with task 1, then waits, inside its own poll, for `inner`; when
    // that is over the `Run` belongs to task 2, and the outer future returns pending.
    for depth in 1..4 {
        let (outer, inner) = (Event::default(), Event::default());
        let (wait_outer, wait_inner) = (outer.clone(), inner.clone());
        fn below(depth: u32, outer: Event, inner: Event) {
            let mut waited = false;
            let mut wait = Box::pin(outer.wait());
            await_(poll_fn(move |cx| {
                let poll = wait.as_mut().poll(cx);
                if poll.is_pending() && !waited {
                    waited = true;
                    if depth > 1 {
                        below(depth - 1, inner.clone(), inner.clone());
                    }
                    await_(inner.wait());
                }
                poll
            }));
        }
        let mut run = pin!(run(move || below(depth, wait_outer, wait_inner)));
        let ((wakes1, task1), (wakes2, task2)) = (Wakes::new(), Wakes::new());
        assert!(poll_with(run.as_mut(), &task1).is_pending());
        assert!(poll_with(run.as_mut(), &task2).is_pending());
        inner.set();
        assert!(wakes2.count() >= 1);
        assert!(poll_with(run.as_mut(), &task2).is_pending());
        let (before1, before2) = (wakes1.count(), wakes2.count());
        outer.set();
        assert_eq!(wakes2.count(), before2 + 1, "depth {depth}: the wake-up went astray");
        assert_eq!(wakes1.count(), before1);
        assert!(poll_with(run.as_mut(), &task2).is_ready());
    }
}

#[test]
fn a_context_outlives_a_suspension_inside_the_poll_it_was_given_to() {
    let event = Event::default();
    let inside = event.clone();
    let mut run = pin!(run(move || {
        let mut step = 0;
        await_(poll_fn(move |cx| {
            step += 1;
            if step > 1 {
                return Poll::Ready(());
            }
            await_(inside.wait());
            // The poll of the `Run` that this context came from is over, its waker dropped.
            cx.waker().wake_by_ref();
            drop(cx.waker().clone());
            Poll::Pending
        }));
    }));
    {
        let (wakes, waker) = Wakes::new();
        assert!(poll_with(run.as_mut(), &waker).is_pending());
        drop((wakes, waker));
    }
    event.set();
    let (_, waker) = Wakes::new();
    assert!(poll_with(run.as_mut(), &waker).is_ready());
}

/// How often a waker was cloned, and how often dropped.
type Counted = Rc<Cell<(u32, u32)>>;

/// A waker whose clones and drops are counted.
fn counted() -> (Arc<Wakes>, Waker, Counted) {
    struct Counts(Arc<Wakes>, Counted);
    fn clone(data: *const ()) -> RawWaker {
        let counts = data.cast::<Counts>();
        // SAFETY: every waker that is there holds a reference, and all stay on this thread.
        unsafe {
            let (clones, drops) = (*counts).1.get();
            (*counts).1.set((clones + 1, drops));
            Rc::increment_strong_count(counts);
        }
        RawWaker::new(data, &TABLE)
    }
    fn wake(data: *const ()) {
        wake_by_ref(data);
        dropped(data);
    }
    fn wake_by_ref(data: *const ()) {
        // SAFETY: as in `clone`.
        Wake::wake_by_ref(unsafe { &(*data.cast::<Counts>()).0 });
    }
    fn dropped(data: *const ()) {
        // SAFETY: as in `clone`; this was one of the references.
        let counts = unsafe { Rc::from_raw(data.cast::<Counts>()) };
        let (clones, drops) = counts.1.get();
        counts.1.set((clones, drops + 1));
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, dropped);
    let (wakes, _) = Wakes::new();
    let counts = Rc::new(Cell::new((0, 0)));
    let data = Rc::into_raw(Rc::new(Counts(wakes.clone(), counts.clone()))).cast();
    // SAFETY: the functions count references, and no waker of these leaves the thread.
    (wakes, unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }, counts)
}

#[test]
fn only_the_first_waker_of_a_fiber_is_cloned() {
    let (_, waker, counts) = counted();
    let mut run = pin!(run(|| {
        for _ in 0..100 {
            await_(yields(1));
            await_(std::future::ready(()));
        }
    }));
    let mut polls = 0;
    while poll_with(run.as_mut(), &waker).is_pending() {
        polls += 1;
        let (clones, drops) = counts.get();
        assert_eq!(clones, drops, "a suspended fiber keeps a waker");
    }
    assert_eq!((polls, counts.get()), (100, (1, 1)));
}

#[test]
fn a_lent_context_outlives_a_suspension_inside_the_poll_it_was_given_to() {
    for depth in 1..4 {
        let event = Event::default();
        let inside = event.clone();
        let mut run = Box::pin(run(move || {
            // Two suspensions: from the second waker on they are lent.
            await_(yields(2));
            fn below(depth: u32, inside: &Event) {
                let mut step = 0;
                await_(poll_fn(|cx| {
                    step += 1;
                    if step > 1 {
                        return Poll::Ready(());
                    }
                    match depth {
                        1 => await_(inside.wait()),
                        _ => below(depth - 1, inside),
                    }
                    // The poll of the `Run` that this context came from is over, its waker dropped.
                    cx.waker().wake_by_ref();
                    drop(cx.waker().clone());
                    Poll::Pending
                }));
            }
            below(depth, &inside);
            await_(yields(1));
        }));
        let (wakes, waker, counts) = counted();
        for _ in 0..3 {
            assert!(poll_with(run.as_mut(), &waker).is_pending());
        }
        let before = wakes.count();
        drop(waker);
        let (clones, drops) = counts.get();
        assert!(clones >= drops, "the unfinished poll's waker is gone");
        event.set();
        let (other_wakes, other) = Wakes::new();
        let mut polls = 0;
        while poll_with(run.as_mut(), &other).is_pending() {
            polls += 1;
            assert!(polls < 10, "never ready");
        }
        assert!(wakes.count() > before, "depth {depth}");
        assert!(other_wakes.count() >= 1);
        drop((run, other));
        let (clones, drops) = counts.get();
        assert_eq!(clones + 1, drops, "depth {depth}: a waker was leaked, or dropped twice");
        assert_eq!(Arc::strong_count(&other_wakes), 1);
    }
}

#[test]
fn a_lent_waker_survives_a_refused_wait() {
    let (wakes, waker) = Wakes::new();
    let mut run = pin!(run(|| {
        await_(yields(2));
        let caught = std::panic::catch_unwind(|| {
            let _guard = OnDrop(|| {
                assert!(fiberback::try_await(yields(1)).unwrap_err().is_unwinding());
                assert!(fiberback::try_await(std::future::ready(())).is_ok());
            });
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(caught.is_err());
        await_(yields(3));
    }));
    let mut polls = 0;
    while poll_with(run.as_mut(), &waker).is_pending() {
        polls += 1;
    }
    assert_eq!(polls, 5);
    assert!(wakes.count() >= 5);
}

/// Clones that are equal to the waker at first, and later not.
#[test]
fn a_waker_that_cannot_be_kept_is_refused_inside_of_a_poll() {
    thread_local! { static CHANGES: Cell<bool> = const { Cell::new(false) } }
    fn clone(data: *const ()) -> RawWaker {
        RawWaker::new(data.wrapping_byte_add(CHANGES.get().into()), &TABLE)
    }
    fn nothing(_: *const ()) {}
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, nothing);
    // SAFETY: the functions do nothing with the data.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) };
    let mut run = pin!(run(|| {
        let pending = |n: u32| {
            let mut left = n;
            poll_fn(move |_| match left {
                0 => Poll::Ready(()),
                _ => {
                    left -= 1;
                    Poll::Pending
                }
            })
        };
        await_(pending(2));
        CHANGES.set(true);
        await_(pending(2));
        let nested = std::panic::catch_unwind(|| {
            await_(poll_fn(|_| {
                await_(pending(1));
                Poll::Ready(())
            }));
        });
        let message = *nested.unwrap_err().downcast::<&str>().unwrap();
        assert!(message.contains("cannot wait inside of this poll"), "{message}");
        await_(pending(2));
        "goes on"
    }));
    let mut polls = 0;
    let output = loop {
        if let Poll::Ready(output) = poll_with(run.as_mut(), &waker) {
            break output;
        }
        polls += 1;
        assert!(polls < 100, "never ready");
    };
    assert_eq!((output, polls), ("goes on", 6));
}

/// `will_wake` may say no for ever, here because each clone has another data pointer.
mod unrecognisable {
    use super::*;

    fn clone(data: *const ()) -> RawWaker {
        RawWaker::new(data.wrapping_byte_add(1), &TABLE)
    }
    fn nothing(_: *const ()) {}
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, nothing);

    fn waker() -> Waker {
        // SAFETY: the functions do nothing with the data.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) }
    }

    #[test]
    fn clones_do_not_make_a_wait_spin() {
        let waker = waker();
        assert!(!waker.will_wake(&waker.clone()));
        let polls = Rc::new(Cell::new(0));
        let counted = polls.clone();
        let mut run = pin!(run(move || await_(poll_fn(move |_| {
            counted.set(counted.get() + 1);
            assert!(counted.get() < 100, "spins");
            if counted.get() == 4 { Poll::Ready(()) } else { Poll::Pending }
        }))));
        for polled in 1..4 {
            assert!(poll_with(run.as_mut(), &waker).is_pending());
            assert_eq!(polls.get(), polled);
        }
        assert!(poll_with(run.as_mut(), &waker).is_ready());
    }

    #[test]
    fn clones_do_not_make_a_nested_wait_spin() {
        let waker = waker();
        let polls = Rc::new(Cell::new(0));
        let counted = polls.clone();
        let mut run = pin!(run(move || await_(async move {
            for _ in 0..3 {
                let mut pending = 2;
                await_(poll_fn(|_| {
                    counted.set(counted.get() + 1);
                    assert!(counted.get() < 100, "spins");
                    if pending == 0 {
                        return Poll::Ready(());
                    }
                    pending -= 1;
                    Poll::Pending
                }));
                yield_once().await;
            }
        })));
        let mut polled = 0;
        while poll_with(run.as_mut(), &waker).is_pending() {
            polled += 1;
            assert!(polled < 100, "never ready");
        }
    }
}

#[test]
fn wakers_may_be_used_and_dropped_on_other_threads_after_the_fiber_ended() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (outer, inner) = (kept.clone(), kept.clone());
    let mut run = Box::pin(run(move || {
        let mut first = true;
        await_(poll_fn(move |cx| {
            outer.lock().unwrap().push(cx.waker().clone());
            if first {
                first = false;
                let kept = inner.clone();
                let mut pending = true;
                await_(poll_fn(move |cx| {
                    kept.lock().unwrap().push(cx.waker().clone());
                    if std::mem::replace(&mut pending, false) {
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                }));
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
    }));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    assert!(poll_with(run.as_mut(), &waker).is_ready());
    drop((run, waker));
    let kept: Vec<Waker> = std::mem::take(&mut *kept.lock().unwrap());
    assert_eq!(kept.len(), 4);
    thread::spawn(move || {
        for waker in kept {
            waker.wake_by_ref();
            let another = waker.clone();
            another.wake();
            drop(waker);
        }
    })
    .join()
    .unwrap();
    assert_eq!(wakes.count(), 8);
    assert_eq!(Arc::strong_count(&wakes), 1, "a waker was leaked");
}

/// Where wakers own their task, a fiber that kept one would keep its own task alive.
#[test]
fn a_suspended_run_keeps_no_waker() {
    let (wakes, waker) = Wakes::new();
    let mut run = pin!(run(|| await_(std::future::pending::<()>())));
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn a_cancelled_or_finished_run_keeps_no_waker() {
    for finish in [false, true] {
        let event = Event::default();
        let inside = event.clone();
        let mut run = Box::pin(run(move || await_(inside.wait())));
        let (wakes, waker) = Wakes::new();
        assert!(poll_with(run.as_mut(), &waker).is_pending());
        if finish {
            event.set();
            assert!(poll_with(run.as_mut(), &waker).is_ready());
        }
        drop((run, waker, event));
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}

#[test]
fn waking_from_another_thread_reaches_a_tokio_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let value = runtime.block_on(run(|| {
        let (send, receive) = tokio::sync::oneshot::channel();
        thread::spawn(move || send.send(42).unwrap());
        await_(receive).unwrap()
    }));
    assert_eq!(value, 42);
}

#[tokio::test]
async fn join_interleaves() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let worker = |name: &'static str| {
        let log = log.clone();
        run(move || {
            for step in 0..3 {
                log.borrow_mut().push((name, step));
                await_(yield_once());
            }
            name
        })
    };
    assert_eq!(join!(worker("a"), worker("b")), ("a", "b"));
    assert_eq!(*log.borrow(), [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]);
}

#[tokio::test]
async fn join_and_select_work_on_a_fiber() {
    let sum = run(|| {
        let (a, b) = await_(async { join!(yields(3).map(|()| 1), yields(5).map(|()| 2)) });
        let mut slow = yields(9).fuse();
        let mut fast = yields(1).fuse();
        let first = await_(async {
            select! { () = slow => 100, () = fast => 10 }
        });
        await_(slow);
        a + b + first
    })
    .await;
    assert_eq!(sum, 13);
}

#[tokio::test]
async fn select_drops_the_loser() {
    let dropped = Rc::new(Cell::new(false));
    let flag = dropped.clone();
    let loser = run(move || {
        let _guard = OnDrop(|| flag.set(true));
        await_(std::future::pending::<()>());
    });
    tokio::select! {
        () = loser => panic!("pending for ever"),
        () = yields(3) => {}
    }
    assert!(dropped.get());
}

#[tokio::test]
async fn futures_unordered_drives_runs_each_by_its_own_waker() {
    let mut runs: FuturesUnordered<_> = (0..200)
        .map(|n: usize| {
            run(move || {
                await_(yields(n % 7));
                // FuturesUnordered on the fiber, with `Run`s in it.
                let inner: FuturesUnordered<_> =
                    (0..n % 5).map(|m| run(move || await_(yields(m).map(|()| m)))).collect();
                n + await_(inner.fold(0, |sum, m| async move { sum + m }))
            })
        })
        .collect();
    let mut seen = 0;
    let mut sum = 0;
    while let Some(n) = runs.next().await {
        seen += 1;
        sum += n;
    }
    let expected: usize = (0..200).map(|n| n + (0..n % 5).sum::<usize>()).sum();
    assert_eq!((seen, sum), (200, expected));
}

#[test]
fn a_waker_whose_drop_waits_on_the_fiber_it_is_replaced_on() {
    thread_local! { static WAITED: Cell<u32> = const { Cell::new(0) } }
    // Two kinds of wakers in turns, so that none of them is lent, and all are cloned and dropped.
    fn clone<const N: usize>(data: *const ()) -> RawWaker {
        RawWaker::new(data, &TABLES[N])
    }
    fn nothing(_: *const ()) {}
    fn dropped(_: *const ()) {
        // Not within itself: that wait drops a clone of the waker, too.
        thread_local! { static WAITING: Cell<bool> = const { Cell::new(false) } }
        if fiberback::on_fiber() && !WAITING.replace(true) {
            if fiberback::try_await(yields(2)).is_ok() {
                WAITED.set(WAITED.get() + 1);
            }
            WAITING.set(false);
        }
    }
    static TABLES: [RawWakerVTable; 2] = [
        RawWakerVTable::new(clone::<0>, nothing, nothing, dropped),
        RawWakerVTable::new(clone::<1>, nothing, nothing, dropped),
    ];
    // SAFETY: the functions do nothing with the data.
    let waker = |n: usize| unsafe {
        Waker::from_raw(RawWaker::new(std::ptr::without_provenance(n), &TABLES[n % 2]))
    };
    let mut run = pin!(run(|| {
        for _ in 0..10 {
            await_(yields(3));
        }
    }));
    let mut polls = 0;
    while poll_with(run.as_mut(), &waker((polls / 2).min(10))).is_pending() {
        polls += 1;
        assert!(polls < 1000, "never ready");
    }
    assert!(WAITED.get() > 3);
}

#[test]
fn a_wake_up_during_a_wait_in_the_drop_of_a_waker_is_not_lost() {
    thread_local! { static OTHER: RefCell<Option<Event>> = const { RefCell::new(None) } }
    fn clone(data: *const ()) -> RawWaker {
        RawWaker::new(data, &TABLE)
    }
    fn nothing(_: *const ()) {}
    fn dropped(_: *const ()) {
        if fiberback::on_fiber() {
            OTHER.take().into_iter().for_each(|other| await_(other.wait()));
        }
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, dropped);
    // SAFETY: the functions do nothing with the data.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) };
    let (event, other) = (Event::default(), Event::default());
    OTHER.set(Some(other.clone()));
    let inside = event.clone();
    let mut run = pin!(run(move || await_(inside.wait())));
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    event.set();
    other.set();
    // Both wake-ups are answered by this one poll.
    assert!(poll_with(run.as_mut(), &waker).is_ready());
}
