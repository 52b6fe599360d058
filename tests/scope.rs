//! Fibers of one task: that they overlap, what they may borrow, and how all of them end.

mod support;

use fiberback::{
    Builder, ScopedJoinHandle, StackPool, await_, join, map_concurrent, run, scope,
    stack_remaining, try_await,
};
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use support::{Drops, OnDrop, Wakes, poll_once, poll_to_end, yield_once, yields};

/// The words of a panic.
fn words(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(words) => *words,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "?".into(), |w| w.to_string()),
    }
}

#[test]
fn fibers_overlap_with_each_other_and_with_the_body() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let theirs = Rc::clone(&log);
    let mut run = run(move || {
        let log = &*theirs;
        scope(|s| {
            for name in ["a", "b"] {
                s.spawn(move || {
                    for n in 0..2 {
                        log.borrow_mut().push(format!("{name}{n}"));
                        await_(yield_once());
                    }
                });
            }
            log.borrow_mut().push("body0".into());
            await_(yield_once());
            log.borrow_mut().push("body1".into());
        });
        log.borrow_mut().push("after".into());
    });
    poll_to_end(&mut run, 10);
    assert_eq!(*log.borrow(), ["body0", "a0", "b0", "body1", "a1", "b1", "after"]);
}

#[test]
fn they_borrow_and_return() {
    let mut run = run(|| {
        let mut parts = vec![1, 2, 3];
        let text = "borrowed".to_owned();
        let lengths: usize = scope(|s| {
            let handles: Vec<_> = parts
                .iter_mut()
                .map(|part| {
                    s.spawn(|| {
                        await_(yield_once());
                        *part += 10;
                        text.len()
                    })
                })
                .collect();
            handles.into_iter().map(|handle| handle.join()).sum()
        });
        (parts, lengths)
    });
    assert_eq!(poll_to_end(&mut run, 10), (vec![11, 12, 13], 24));
}

#[test]
fn a_fiber_spawns_others_and_hands_their_handles_on() {
    let mut run = run(|| {
        let sum = Cell::new(0);
        scope(|s| {
            s.spawn(|| {
                let inner = s.spawn(|| {
                    await_(yield_once());
                    7
                });
                s.spawn(|| {
                    let seven = inner.join();
                    sum.set(sum.get() + seven);
                });
                await_(yield_once());
                sum.set(sum.get() + 1);
            });
        });
        sum.get()
    });
    assert_eq!(poll_to_end(&mut run, 10), 8);
}

#[test]
fn a_detached_fiber_is_waited_for_and_its_result_dropped() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut run = run(move || {
        scope(|s| {
            let handle = s.spawn(|| {
                await_(yield_once());
                guard
            });
            assert!(!handle.is_finished());
        });
    });
    assert!(poll_once(&mut run).is_pending());
    assert_eq!(drops.count(), 0);
    poll_to_end(&mut run, 3);
    assert_eq!(drops.count(), 1);
}

#[test]
fn scopes_nest() {
    let mut run = run(|| {
        let total = Cell::new(0);
        scope(|outer| {
            for n in 0..3 {
                let total = &total;
                outer.spawn(move || {
                    let both = join(
                        || {
                            await_(yields(n));
                            n
                        },
                        || scope(|s| s.spawn(|| await_(async { 10 })).join()),
                    );
                    total.set(total.get() + both.0 + both.1);
                });
            }
        });
        total.get()
    });
    assert_eq!(poll_to_end(&mut run, 10), 33);
}

#[test]
fn the_first_panic_comes_out_and_the_rest_are_cancelled() {
    let drops = Drops::new();
    let (a, b, c) = (drops.guard(), drops.guard(), drops.guard());
    let after = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&after);
    let mut run = run(move || {
        catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(move || {
                    let _a = a;
                    await_(pending::<()>());
                });
                let failing = s.spawn(|| {
                    await_(yield_once());
                    panic!("the first");
                });
                s.spawn(move || {
                    let _b = b;
                    // Told of the cancellation, it fails in its turn.
                    let _told = try_await(pending::<()>());
                    panic!("a later one");
                });
                let _c = c;
                failing.join();
                theirs.set(true);
            });
        }))
    });
    let panicked = poll_to_end(&mut run, 5).unwrap_err();
    assert_eq!(words(panicked), "the first");
    assert_eq!(drops.count(), 3);
    assert!(!after.get(), "the body went on after `join`");
}

#[test]
fn a_panic_of_the_body_cancels_all() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut run = run(move || {
        scope(|s| {
            s.spawn(move || {
                let _guard = guard;
                await_(pending::<()>());
            });
            await_(yield_once());
            panic!("body");
        })
    });
    assert!(poll_once(&mut run).is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).unwrap_err();
    assert_eq!(words(panicked), "body");
    assert_eq!(drops.count(), 1);
}

#[test]
fn dropping_the_run_unwinds_every_fiber_and_the_body_and_polls_nothing() {
    let drops = Drops::new();
    let guards: Vec<_> = (0..5).map(|_| drops.guard()).collect();
    let polls = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&polls);
    let mut run = run(move || {
        let polls = &theirs;
        let count = || {
            poll_fn(|_| {
                polls.set(polls.get() + 1);
                Poll::<()>::Pending
            })
        };
        let mut guards = guards.into_iter();
        let _outside = guards.next();
        scope(|s| {
            let _body = guards.next();
            for guard in guards {
                s.spawn(move || {
                    let _guard = guard;
                    await_(count());
                });
            }
            await_(count());
        });
    });
    assert!(poll_once(&mut run).is_pending());
    assert_eq!((polls.get(), drops.count()), (4, 0));
    drop(run);
    assert_eq!((polls.get(), drops.count()), (4, 5));
}

#[test]
fn a_run_that_was_never_polled_begins_nothing() {
    let drops = Drops::new();
    let guard = drops.guard();
    drop(run(move || scope(|_| drop(guard))));
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_fiber_that_is_cancelled_may_answer_with_an_error() {
    let told = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&told);
    let mut run = run(move || {
        scope(|s| {
            s.spawn(|| theirs.set(try_await(pending::<()>()).unwrap_err().is_cancelled()));
        });
    });
    assert!(poll_once(&mut run).is_pending());
    drop(run);
    assert!(told.get());
}

#[test]
fn a_panic_while_the_run_is_dropped_comes_out() {
    let mut run = run(|| {
        scope(|s| {
            s.spawn(|| {
                let _told = try_await(pending::<()>());
                panic!("while it was cleaning up");
            });
        });
    });
    assert!(poll_once(&mut run).is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(run))).unwrap_err();
    assert_eq!(words(panicked), "while it was cleaning up");
}

#[test]
fn a_run_dropped_during_a_panic_unwinds_its_scope() {
    let drops = Drops::new();
    let guard = drops.guard();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut run = run(move || {
            scope(|s| {
                s.spawn(move || {
                    let _guard = guard;
                    await_(pending::<()>());
                });
            });
        });
        assert!(poll_once(&mut run).is_pending());
        panic!("the owner's");
    }));
    assert_eq!(words(panicked.unwrap_err()), "the owner's");
    assert_eq!(drops.count(), 1);
    assert!(!thread::panicking());
}

#[test]
fn one_fiber_is_cancelled_by_its_handle() {
    let drops = Drops::new();
    let (waiting, unborn, own) = (drops.guard(), drops.guard(), drops.guard());
    let seen = drops.clone();
    let before = drops.clone();
    let mut run = run(move || {
        scope(|s| {
            let first = s.spawn(|| {
                let _guard = waiting;
                await_(pending::<()>());
            });
            await_(yield_once());
            first.cancel();
            assert_eq!(seen.count(), 1, "unwound before `cancel` returns");

            s.spawn(move || drop(unborn)).cancel();
            assert_eq!(seen.count(), 2, "dropped without having run");

            let handle = Rc::new(Cell::new(None::<ScopedJoinHandle<'_, ()>>));
            let its_own = Rc::clone(&handle);
            handle.set(Some(s.spawn(move || {
                let _guard = own;
                its_own.take().expect("its own handle").cancel();
                assert_eq!(before.count(), 2, "goes on until it waits");
                await_(yield_once());
                unreachable!("cancelled itself");
            })));
            await_(yields(2));
            assert_eq!(seen.count(), 3);

            let done = s.spawn(|| ());
            await_(yield_once());
            assert!(done.is_finished());
            let other = s.spawn(|| await_(yield_once()));
            done.cancel(); // does nothing to whoever has its place now
            other.join();
        });
        "ended"
    });
    assert_eq!(poll_to_end(&mut run, 20), "ended");
}

#[test]
fn a_scope_that_is_ended_takes_no_more() {
    let drops = Drops::new();
    let guard = drops.guard();
    let refused = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&refused);
    let mut run = run(move || {
        let refused = &*theirs;
        let guard = Cell::new(Some(guard));
        scope(|s| {
            let guard = &guard;
            s.spawn(move || {
                let _spawns = OnDrop(|| {
                    let guard = guard.take();
                    let handle = s.spawn(move || drop(guard));
                    refused.set(handle.try_join().unwrap_err().is_cancelled());
                });
                await_(pending::<()>());
            });
        });
    });
    assert!(poll_once(&mut run).is_pending());
    drop(run);
    assert!(refused.get());
    assert_eq!(drops.count(), 1);
}

/// What a fiber borrows stays valid for ever if the future is forgotten while a scoped thread uses it: on the
/// stack, and on the heap where a frame of the fiber owns it. The sanitizer sees if not.
#[test]
fn a_forgotten_run_leaves_what_its_fibers_lend_to_threads() {
    static GO: AtomicBool = AtomicBool::new(false);
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let owner = thread::spawn(|| {
        let mut run = run(|| {
            let on_the_heap = Box::new(AtomicUsize::new(1));
            let on_the_stack = AtomicUsize::new(2);
            scope(|s| {
                s.spawn(|| {
                    thread::scope(|threads| {
                        threads.spawn(|| {
                            while !GO.load(Ordering::Acquire) {
                                thread::yield_now();
                            }
                            let sum = on_the_heap.fetch_add(10, Ordering::SeqCst)
                                + on_the_stack.fetch_add(10, Ordering::SeqCst);
                            SEEN.store(sum, Ordering::Release);
                        });
                        await_(pending::<()>());
                    });
                });
            });
        });
        assert!(poll_once(&mut run).is_pending());
        std::mem::forget(run);
        // Others take the memory that has become free, if any has.
        let mut others = fiberback::run(|| {
            scope(|s| {
                for _ in 0..64 {
                    s.spawn(|| std::hint::black_box(vec![0xff_u8; 4096]));
                }
            });
        });
        poll_to_end(&mut others, 3);
    });
    // The thread of the fiber ends first.
    owner.join().unwrap();
    GO.store(true, Ordering::Release);
    while SEEN.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
    assert_eq!(SEEN.load(Ordering::Acquire), 3);
}

#[test]
fn off_a_fiber_the_panic_says_what_to_type() {
    for call in [
        || scope(|_| ()),
        || assert_eq!(join(|| (), || ()), ((), ())),
        || drop(map_concurrent([1], 1, |_| ())),
    ] {
        let message = words(catch_unwind(call).unwrap_err());
        assert!(message.contains("fiberback::run"), "{message}");
    }
}

/// A future that says when it was polled, and with which waker.
#[derive(Clone, Default)]
struct Gate(Rc<GateState>);

#[derive(Default)]
struct GateState {
    polls: Cell<usize>,
    is_open: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    fn wait(&self) -> impl Future<Output = ()> {
        let gate = self.clone();
        poll_fn(move |context| {
            gate.0.polls.set(gate.0.polls.get() + 1);
            *gate.0.waker.borrow_mut() = Some(context.waker().clone());
            if gate.0.is_open.get() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn open(&self) {
        self.0.is_open.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[test]
fn a_wake_up_polls_the_fiber_that_it_is_for() {
    let gates: Vec<_> = (0..3).map(|_| Gate::default()).collect();
    let theirs = gates.clone();
    let mut run = run(move || {
        scope(|s| {
            for gate in &theirs {
                s.spawn(|| await_(gate.wait()));
            }
        });
    });
    let (wakes, waker) = Wakes::new();
    let mut context = Context::from_waker(&waker);
    let polls = || gates.iter().map(|gate| gate.0.polls.get()).collect::<Vec<_>>();
    assert!(Pin::new(&mut run).poll(&mut context).is_pending());
    assert_eq!((polls(), wakes.count()), (vec![1, 1, 1], 0));

    gates[1].wake();
    assert_eq!(wakes.count(), 1);
    gates[2].wake();
    assert!(Pin::new(&mut run).poll(&mut context).is_pending());
    assert_eq!(polls(), [1, 2, 2]);

    // A poll that nobody asked for.
    assert!(Pin::new(&mut run).poll(&mut context).is_pending());
    assert_eq!(polls(), [1, 2, 2]);

    // From another task: its waker counts from now on.
    let (others, waker) = Wakes::new();
    let mut context = Context::from_waker(&waker);
    let before = wakes.count();
    assert!(Pin::new(&mut run).poll(&mut context).is_pending());
    gates.iter().for_each(Gate::open);
    assert_eq!((wakes.count(), others.count() > 0), (before, true));
    assert!(Pin::new(&mut run).poll(&mut context).is_ready());
}

#[test]
fn a_waker_that_comes_too_late_does_no_harm() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let mut run = run(move || {
        scope(|s| {
            let early = s.spawn(|| await_(theirs.wait()));
            await_(yield_once());
            early.cancel();
            s.spawn(|| await_(yields(2)));
        });
    });
    assert!(poll_once(&mut run).is_pending());
    assert!(poll_once(&mut run).is_pending());
    gate.wake();
    poll_to_end(&mut run, 5);
    gate.wake();
}

#[test]
fn a_fiber_that_wakes_itself_leaves_turns_to_other_tasks() {
    let mut run = run(|| scope(|s| drop(s.spawn(|| await_(yields(10))))));
    let mut polls = 0;
    while poll_once(&mut run).is_pending() {
        polls += 1;
    }
    assert_eq!(polls, 10);
}

#[test]
fn wake_ups_come_from_other_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sum = runtime.block_on(run(|| {
        map_concurrent(0..200_u64, 50, |n| {
            let (tell, told) = tokio::sync::oneshot::channel();
            thread::spawn(move || tell.send(n).unwrap());
            await_(told).unwrap()
        })
        .into_iter()
        .sum::<u64>()
    }));
    assert_eq!(sum, 199 * 100);
}

/// Where wakers own their task, a task that waits must not own its waker: see `src/bridge/ready.rs`.
#[test]
fn a_group_keeps_no_waker_of_its_task() {
    struct Owner;
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    let owner = Arc::new(Owner);
    let gate = Gate::default();
    let theirs = gate.clone();
    let mut run = run(move || {
        scope(|s| {
            let waiting = s.spawn(|| await_(theirs.wait()));
            s.spawn(|| waiting.join());
        });
    });
    {
        let waker = Waker::from(Arc::clone(&owner));
        assert!(Pin::new(&mut run).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(Arc::strong_count(&owner) > 1, "whoever is waited for can wake the task");
    // That one forgets.
    drop(gate.0.waker.take());
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn thousands_of_fibers() {
    let mut run = run(|| {
        let done = Cell::new(0);
        scope(|s| {
            for n in 0..5_000 {
                let done = &done;
                s.spawn(move || {
                    await_(yields(n % 3));
                    done.set(done.get() + 1);
                });
            }
        });
        done.get()
    });
    assert_eq!(poll_to_end(&mut run, 5), 5_000);
}

#[test]
fn stacks_are_like_the_callers() {
    let pool = StackPool::builder().stack_size(256 << 10).max_stacks(3).build().unwrap();
    let builder = Builder::new().pool(&pool);
    let mut run = builder
        .run(move || {
            let near = |left: usize| left > 200 << 10 && left <= 256 << 10;
            scope(|s| {
                assert!(near(stack_remaining().unwrap()));
                s.spawn(|| assert!(near(stack_remaining().unwrap()))).join();
                let big = Builder::new().name("big").stack_size(4 << 20);
                let left = s.spawn_with(&big, || stack_remaining().unwrap()).unwrap();
                assert!(left.join() > 3 << 20);
                s.spawn(|| ());
                let full = s.spawn_with(&Builder::new().pool(&pool), || ()).unwrap_err();
                assert!(full.is_exhausted());
                s.spawn(|| ());
            });
        })
        .unwrap();
    let message = words(catch_unwind(AssertUnwindSafe(|| poll_to_end(&mut run, 9))).unwrap_err());
    assert!(message.contains("max_stacks") && message.contains("spawn_with"), "{message}");
}

#[test]
fn join_runs_both() {
    let mut run = run(|| {
        let log = RefCell::new(Vec::new());
        let step = |name: &'static str| {
            log.borrow_mut().push(name);
            await_(yield_once());
            log.borrow_mut().push(name);
            name.len()
        };
        let both = join(|| step("one"), || step("three"));
        (both, log.into_inner())
    });
    let (both, log) = poll_to_end(&mut run, 5);
    assert_eq!(both, (3, 5));
    assert_eq!(log, ["one", "three", "one", "three"]);
}

#[test]
fn join_cancels_the_other_when_one_panics() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut run = run(move || {
        join(
            || {
                let _guard = guard;
                await_(pending::<()>());
            },
            || panic!("the other"),
        )
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).unwrap_err();
    assert_eq!(words(panicked), "the other");
    assert_eq!(drops.count(), 1);
}

#[test]
fn map_concurrent_keeps_the_order_and_the_limit() {
    let mut run = run(|| {
        let (running, most, asked) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let items: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let asking = items.iter().inspect(|_| {
            asked.set(asked.get() + 1);
            assert!(running.get() < 4, "asked for an item that cannot begin");
            await_(yield_once()); // an iterator that waits
        });
        let results = map_concurrent(asking, 4, |item| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            let n: usize = item.parse().unwrap();
            await_(yields((20 - n) % 7));
            running.set(running.get() - 1);
            n
        });
        assert_eq!(asked.get(), 20);
        (results, most.get())
    });
    let (results, most) = poll_to_end(&mut run, 200);
    assert_eq!(results, (0..20).collect::<Vec<_>>());
    assert!((2..=4).contains(&most), "{most}");
}

#[test]
fn map_concurrent_of_nothing_and_with_limits_at_the_edge() {
    let mut none = run(|| map_concurrent(Vec::<u8>::new(), usize::MAX, |n| n));
    assert!(poll_to_end(&mut none, 1).is_empty());
    let mut one_by_one = run(|| {
        let running = Cell::new(0);
        map_concurrent(0..5, 1, |n| {
            assert_eq!(running.replace(1), 0);
            await_(yield_once());
            running.set(0);
            n
        })
    });
    assert_eq!(poll_to_end(&mut one_by_one, 20), [0, 1, 2, 3, 4]);
    let mut zero = run(|| map_concurrent([1], 0, |n| n));
    let message = words(catch_unwind(AssertUnwindSafe(|| poll_once(&mut zero))).unwrap_err());
    assert!(message.contains("limit of 0"), "{message}");
}

#[test]
fn map_concurrent_cancels_all_when_one_panics_or_the_run_is_dropped() {
    let drops = Drops::new();
    let guards = |n| (0..n).map(|_| drops.guard()).collect::<Vec<_>>();
    let three = guards(3);
    let mut failing = run(move || {
        map_concurrent(three.into_iter().enumerate(), 9, |(n, guard)| {
            let _guard = guard;
            assert_ne!(n, 2, "the third");
            await_(pending::<()>());
        })
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| poll_once(&mut failing))).unwrap_err();
    assert!(words(panicked).contains("the third"));
    assert_eq!(drops.count(), 3);
    let five = guards(5);
    let mut dropped = run(move || {
        map_concurrent(five, 2, |guard| {
            let _guard = guard;
            await_(pending::<()>());
        })
    });
    assert!(poll_once(&mut dropped).is_pending());
    drop(dropped);
    assert_eq!(drops.count(), 8);
}

/// Inside the poll of a future that a fiber of the scope awaits, where its own waker is not the one that counts.
#[test]
fn handles_are_joined_inside_other_futures() {
    let mut run = run(|| {
        scope(|s| {
            let slow = s.spawn(|| {
                await_(yields(3));
                4
            });
            let mut slow = Some(slow);
            await_(poll_fn(|_| Poll::Ready(slow.take().unwrap().join())))
        })
    });
    assert_eq!(poll_to_end(&mut run, 10), 4);
}
