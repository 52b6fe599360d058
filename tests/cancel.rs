//! Dropping a `Run` that waits: what runs, what is refused, and what ends the process.

mod support;

use fiberback::{AwaitError, Run, await_, run, try_await};
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use support::{Drops, OnDrop, poll_once, yield_once};

/// Polls once, expects it to wait, and drops it.
fn cancel<T>(mut run: Run<T>) {
    assert!(poll_once(&mut run).is_pending());
    drop(run);
}

#[test]
fn destructors_run_in_order_on_every_level() {
    let log = Rc::new(RefCell::new(Vec::new()));
    fn level(n: u32, log: &Rc<RefCell<Vec<u32>>>) {
        let _guard = OnDrop(|| log.borrow_mut().push(n));
        if n == 3 {
            await_(pending::<()>());
        } else {
            level(n + 1, log);
        }
        unreachable!("waits for ever");
    }
    let inside = log.clone();
    cancel(run(move || level(0, &inside)));
    assert_eq!(*log.borrow(), [3, 2, 1, 0]);
    assert!(!std::thread::panicking());
}

#[test]
fn the_awaited_future_is_dropped() {
    let drops = Drops::new();
    let guard = drops.guard();
    cancel(run(move || {
        await_(async move {
            let _guard = guard;
            pending::<()>().await;
        });
    }));
    assert_eq!(drops.count(), 1);
}

#[test]
fn no_panic_hook_runs_and_nothing_is_printed() {
    if support::is_child("hook") {
        std::panic::set_hook(Box::new(|info| println!("HOOK {info}")));
        cancel(run(|| await_(pending::<()>())));
        // Nor when the owner is being cancelled itself, and the code waits again.
        cancel(run(|| {
            await_(run(|| {
                assert!(try_await(pending::<()>()).is_err());
                await_(pending::<()>());
            }));
        }));
        return;
    }
    let output = support::run_child("no_panic_hook_runs_and_nothing_is_printed", "hook");
    assert!(output.status.success());
    assert!(!support::text(&output).contains("HOOK"), "{}", support::text(&output));
    assert!(output.stderr.is_empty(), "{}", support::text(&output));
}

#[test]
fn a_run_that_was_never_polled_just_drops_its_closure() {
    let drops = Drops::new();
    let guard = drops.guard();
    drop(run(move || {
        let _guard = guard;
        unreachable!("never polled");
    }));
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_capture_that_panics_when_a_run_is_dropped_unpolled_is_dropped_once() {
    struct Bomb(Rc<Cell<u32>>, #[allow(dead_code)] Vec<u8>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            std::panic::resume_unwind(Box::new("bomb"));
        }
    }
    let count = Rc::new(Cell::new(0));
    let bomb = Bomb(count.clone(), vec![1; 100]);
    let run = run(move || drop(bomb));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(run))).is_err());
    assert_eq!(count.get(), 1);
}

#[test]
fn try_await_sees_the_cancellation_and_the_code_goes_on() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let inside = seen.clone();
    cancel(run(move || {
        for _ in 0..3 {
            let error: AwaitError = try_await(pending::<()>()).unwrap_err();
            inside.borrow_mut().push(error);
        }
        // Not even what is ready is polled any more, outside of a destructor.
        let polled = Cell::new(false);
        assert!(
            try_await(poll_fn(|_| {
                polled.set(true);
                Poll::Ready(())
            }))
            .is_err()
        );
        assert!(!polled.get());
        assert!(fiberback::on_fiber());
        inside.borrow_mut().push(try_await(ready(())).unwrap_err());
    }));
    let seen = seen.borrow();
    assert_eq!(seen.len(), 4);
    for error in seen.iter() {
        assert!(error.is_cancelled() && !error.is_unwinding() && !error.is_off_fiber(), "{error}");
    }
}

#[test]
fn await_after_a_caught_cancellation_unwinds_again_without_polling() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    cancel(run(move || {
        for n in 0..3 {
            let polled = Cell::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                await_(poll_fn(|_| {
                    polled.set(polled.get() + 1);
                    Poll::<()>::Pending
                }));
            }));
            inside.borrow_mut().push((n, caught.is_err(), polled.get()));
        }
    }));
    assert_eq!(*log.borrow(), [(0, true, 1), (1, true, 0), (2, true, 0)]);
}

#[test]
fn destructors_that_wait_get_what_is_ready_and_an_error_for_the_rest() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    cancel(run(move || {
        let _guard = OnDrop(|| {
            assert_eq!(await_(ready(5)), 5);
            let error = try_await(yield_once()).unwrap_err();
            inside.borrow_mut().push((error.is_cancelled(), error.is_unwinding()));
            // Nested in a poll, too.
            let error = await_(async { try_await(pending::<()>()) }).unwrap_err();
            inside.borrow_mut().push((error.is_cancelled(), error.is_unwinding()));
            // A waker that does nothing, rather than one that is gone.
            await_(poll_fn(|cx| {
                cx.waker().wake_by_ref();
                drop(cx.waker().clone());
                Poll::Ready(())
            }));
        });
        await_(pending::<()>());
    }));
    assert_eq!(*log.borrow(), [(true, true), (true, true)]);
}

#[test]
fn a_nested_wait_is_cancelled_through_the_outer_poll() {
    let (inner, outer) = (Drops::new(), Drops::new());
    let (guard_inner, guard_outer) = (inner.guard(), outer.guard());
    cancel(run(move || {
        let _guard = guard_outer;
        await_(async move {
            let _guard = guard_inner;
            await_(async { await_(pending::<()>()) });
        });
    }));
    assert_eq!((inner.count(), outer.count()), (1, 1));
}

#[test]
fn an_inner_wait_that_swallows_the_cancellation_does_not_hide_it_from_the_outer() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    cancel(run(move || {
        let outer = try_await(async {
            let inner = try_await(pending::<()>()).unwrap_err();
            inside.borrow_mut().push(inner.is_cancelled());
            pending::<()>().await;
        });
        inside.borrow_mut().push(outer.unwrap_err().is_cancelled());
    }));
    assert_eq!(*log.borrow(), [true, true]);
}

#[test]
fn a_buffered_writer_whose_drop_flushes_over_a_waiting_writer_does_not_abort() {
    struct Slow(Rc<Cell<usize>>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            try_await(yield_once())?;
            self.0.set(self.0.get() + bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            try_await(yield_once())?;
            Ok(())
        }
    }
    let written = Rc::new(Cell::new(0));
    let slow = Slow(written.clone());
    cancel(run(move || {
        let mut writer = BufWriter::new(slow);
        writer.write_all(b"buffered").unwrap();
        await_(pending::<()>());
    }));
    assert_eq!(written.get(), 0);
}

#[test]
fn the_error_becomes_an_io_error_that_readers_do_not_retry() {
    let kind = Rc::new(Cell::new(None));
    let inside = kind.clone();
    cancel(run(move || {
        let error = io::Error::from(try_await(pending::<()>()).unwrap_err());
        assert!(error.get_ref().unwrap().downcast_ref::<AwaitError>().unwrap().is_cancelled());
        inside.set(Some(error.kind()));
    }));
    assert_ne!(kind.get().unwrap(), io::ErrorKind::Interrupted);
}

#[test]
fn a_mutex_guard_held_across_the_wait_is_released_and_poisons() {
    let mutex = std::sync::Arc::new(std::sync::Mutex::new(1));
    let inside = mutex.clone();
    cancel(run(move || {
        let _guard = inside.lock().unwrap();
        await_(pending::<()>());
    }));
    assert!(
        mutex.try_lock().is_err_and(|error| matches!(error, std::sync::TryLockError::Poisoned(_)))
    );
}

#[test]
fn nested_runs_are_cancelled_with_the_outer_one() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let (outer, inner) = (log.clone(), log.clone());
    cancel(run(move || {
        let _guard = OnDrop(|| outer.borrow_mut().push("outer"));
        await_(run(move || {
            let _guard = OnDrop(|| {
                inner.borrow_mut().push("inner");
                assert!(try_await(yield_once()).unwrap_err().is_cancelled());
            });
            await_(pending::<()>());
        }));
    }));
    assert_eq!(*log.borrow(), ["inner", "outer"]);
}

#[test]
fn a_nested_run_that_handles_its_cancellation_while_the_outer_unwinds() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let inside = seen.clone();
    cancel(run(move || {
        await_(run(move || {
            for _ in 0..3 {
                inside.borrow_mut().push(try_await(pending::<()>()).unwrap_err().is_cancelled());
            }
        }));
    }));
    assert_eq!(*seen.borrow(), [true; 3]);
}

#[test]
fn dropping_a_run_while_panicking_runs_its_destructors() {
    let drops = Drops::new();
    let guard = drops.guard();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut run = run(move || {
            let _guard = guard;
            let _late = OnDrop(|| {
                assert_eq!(await_(ready(1)), 1);
                assert!(try_await(yield_once()).unwrap_err().is_cancelled());
            });
            await_(pending::<()>());
        });
        assert!(poll_once(&mut run).is_pending());
        std::panic::resume_unwind(Box::new("the panic"));
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "the panic");
    assert_eq!(drops.count(), 1);
    assert!(!std::thread::panicking());
}

#[test]
fn code_that_catches_its_cancellation_while_the_thread_panics_still_ends() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut run = run(move || {
            let first = try_await(pending::<()>()).unwrap_err();
            let second = try_await(pending::<()>()).unwrap_err();
            inside.borrow_mut().push((first.is_cancelled(), second.is_cancelled()));
        });
        assert!(poll_once(&mut run).is_pending());
        std::panic::resume_unwind(Box::new("the panic"));
    }));
    assert!(result.is_err());
    assert_eq!(*log.borrow(), [(true, true)]);
}

#[test]
fn a_panic_during_cancellation_comes_out_of_drop() {
    let mut run = run(|| {
        try_await(pending::<()>()).unwrap_err();
        std::panic::resume_unwind(Box::new("while cleaning up"));
    });
    assert!(poll_once(&mut run).is_pending());
    let payload = catch_unwind(AssertUnwindSafe(|| drop(run))).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "while cleaning up");
}

#[test]
fn a_panic_during_a_cancellation_during_a_panic_is_swallowed() {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut run = run(|| {
            try_await(pending::<()>()).unwrap_err();
            std::panic::resume_unwind(Box::new("second"));
        });
        assert!(poll_once(&mut run).is_pending());
        std::panic::resume_unwind(Box::new("first"));
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "first");
}

#[test]
fn the_result_of_a_cancelled_run_is_dropped() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut run = run(move || {
        let _ = try_await(pending::<()>());
        guard
    });
    assert!(poll_once(&mut run).is_pending());
    assert_eq!(drops.count(), 0);
    drop(run);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_forgotten_run_never_runs_again_and_harms_nobody() {
    let drops = Drops::new();
    for _ in 0..100 {
        let guard = drops.guard();
        let mut forgotten = run(move || {
            let _guard = guard;
            await_(pending::<()>());
        });
        assert!(poll_once(&mut forgotten).is_pending());
        std::mem::forget(forgotten);
        assert_eq!(support::poll_to_end(&mut run(|| await_(ready(1))), 1), 1);
    }
    assert_eq!(drops.count(), 0);
}

#[test]
fn dropping_a_run_in_the_destructor_of_a_thread_local() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static LATE: RefCell<Vec<Run<()>>> = const { RefCell::new(Vec::new()) } }
    for early in [false, true] {
        std::thread::spawn(move || {
            // Dropped after or before the crate's own thread-locals: after them it is leaked, with a
            // message (tests/limits.rs).
            if early {
                LATE.with_borrow_mut(Vec::clear);
            }
            let mut late = run(|| {
                let _guard = OnDrop(|| {
                    DROPPED.fetch_add(1, Ordering::SeqCst);
                    assert!(try_await(yield_once()).unwrap_err().is_cancelled());
                });
                await_(pending::<()>());
            });
            assert!(poll_once(&mut late).is_pending());
            LATE.with_borrow_mut(|runs| runs.push(late));
        })
        .join()
        .unwrap();
    }
    // `*-windows-gnu` destroys them in an order of its own.
    let ended = if cfg!(all(windows, target_env = "gnu")) { 2 } else { 1 };
    assert_eq!(DROPPED.load(Ordering::SeqCst), ended);
}

#[test]
fn a_run_may_start_and_end_in_the_destructor_of_a_thread_local() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static SUM: AtomicUsize = AtomicUsize::new(0);
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            let n = support::poll_to_end(
                &mut run(|| {
                    await_(async {
                        yield_once().await;
                        7
                    })
                }),
                2,
            );
            SUM.fetch_add(n, Ordering::SeqCst);
        }
    }
    thread_local! { static LATE: RefCell<Option<Late>> = const { RefCell::new(None) } }
    std::thread::spawn(|| {
        LATE.set(Some(Late));
        drop(run(|| ()));
    })
    .join()
    .unwrap();
    std::thread::spawn(|| {
        drop(run(|| ()));
        LATE.set(Some(Late));
    })
    .join()
    .unwrap();
    assert_eq!(SUM.load(Ordering::SeqCst), 14);
}

#[test]
fn a_task_that_drops_another_run_while_it_is_on_a_fiber_itself() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut victim = run(move || {
        let _guard = guard;
        await_(pending::<()>());
    });
    assert!(poll_once(&mut victim).is_pending());
    let mut killer = run(move || {
        await_(yield_once());
        drop(victim);
        await_(yield_once());
        fiberback::on_fiber()
    });
    assert!(support::poll_to_end(&mut killer, 3));
    assert_eq!(drops.count(), 1);
}

/// Runs one of the traps below in a child; it must end by itself, by an abort with the message.
fn assert_aborts(case: &str) {
    let output = support::run_child("traps_end_in_an_abort_with_a_message", case);
    let text = support::text(&output);
    assert!(text.contains("fiberback: the fiber 'trap' was cancelled"), "{case}: {text}");
    assert!(text.contains("is_cancelled()"), "{case}: {text}");
    #[cfg(unix)]
    assert_eq!(support::signal(&output), Some(6), "{case}: {text}");
}

fn trap(f: impl FnOnce() + 'static) -> ! {
    let mut run = fiberback::Builder::new().name("trap").run(f).unwrap();
    assert!(poll_once(&mut run).is_pending());
    drop(run);
    unreachable!("the trap let go");
}

#[test]
fn traps_end_in_an_abort_with_a_message() {
    if support::is_child("catch_unwind") {
        trap(|| {
            loop {
                let _ = catch_unwind(|| await_(pending::<()>()));
            }
        });
    }
    if support::is_child("try_await") {
        trap(|| while try_await(pending::<()>()).is_err() {});
    }
    if support::is_child("ready") {
        trap(|| {
            let _ = try_await(pending::<()>());
            loop {
                let _ = try_await(ready(()));
            }
        });
    }
    if support::is_child("destructor") {
        trap(|| {
            let _guard = OnDrop(|| while try_await(pending::<()>()).is_err() {});
            await_(pending::<()>());
        });
    }
    if support::is_child("nested") {
        trap(|| {
            await_(async {
                loop {
                    let _ = catch_unwind(|| await_(pending::<()>()));
                }
            });
        });
    }
    if support::is_child("panicking") {
        let _guard = OnDrop(|| {
            trap(|| {
                loop {
                    let _ = try_await(pending::<()>());
                }
            })
        });
        std::panic::resume_unwind(Box::new(()));
    }
    for case in ["catch_unwind", "try_await", "ready", "destructor", "nested", "panicking"] {
        assert_aborts(case);
    }
}

#[test]
fn an_honest_retry_loop_is_not_taken_for_a_trap() {
    let count = Rc::new(Cell::new(0));
    let inside = count.clone();
    cancel(run(move || {
        while try_await(pending::<()>()).is_err() && inside.get() < 1000 {
            inside.set(inside.get() + 1);
        }
    }));
    assert_eq!(count.get(), 1000);
}

#[tokio::test]
async fn timeout_and_abort_cancel_like_any_future() {
    let drops = Drops::new();
    let guard = drops.guard();
    let slow = run(move || {
        let _guard = guard;
        await_(tokio::time::sleep(std::time::Duration::from_secs(3600)));
    });
    tokio::time::timeout(std::time::Duration::from_millis(1), slow).await.unwrap_err();
    assert_eq!(drops.count(), 1);

    let local = tokio::task::LocalSet::new();
    let guard = drops.guard();
    local
        .run_until(async move {
            let task = tokio::task::spawn_local(run(move || {
                let _guard = guard;
                await_(pending::<()>());
            }));
            yield_once().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        })
        .await;
    assert_eq!(drops.count(), 2);
}

#[test]
fn cancelling_frees_the_stack() {
    let pool = fiberback::StackPool::builder().stack_size(64 << 10).build().unwrap();
    let builder = fiberback::Builder::new().pool(&pool);
    for _ in 0..100 {
        let mut run = builder.run(|| await_(pending::<()>())).unwrap();
        assert!(
            Pin::new(&mut run)
                .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
        assert_eq!(pool.stats().in_use, 1);
        drop(run);
        assert_eq!(pool.stats().in_use, 0);
    }
}

/// A panic whose own value panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("a payload that panics when it is dropped");
    }
}

#[test]
fn a_payload_that_is_swallowed_is_not_dropped() {
    const TEST: &str = "a_payload_that_is_swallowed_is_not_dropped";
    if support::is_child("grenade") {
        let payload = catch_unwind(AssertUnwindSafe(|| {
            let mut run = fiberback::run(|| {
                try_await(pending::<()>()).unwrap_err();
                std::panic::resume_unwind(Box::new(Grenade));
            });
            assert!(poll_once(&mut run).is_pending());
            let _dropped_while_unwinding = run;
            std::panic::resume_unwind(Box::new("the first"));
        }))
        .unwrap_err();
        println!("caught {}", payload.downcast_ref::<&str>().unwrap());
        return;
    }
    let output = support::run_child(TEST, "grenade");
    assert!(output.status.success(), "{}", support::text(&output));
    assert!(support::text(&output).contains("caught the first"), "{}", support::text(&output));
}
