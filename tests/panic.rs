//! Panics, in both directions, and what they must not touch.

mod support;

use fiberback::{await_, run, try_await};
use std::cell::{Cell, RefCell};
use std::future::{poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::panicking;
use support::{Drops, OnDrop, poll_once, yield_once, yields};

struct Payload(u32);

#[test]
fn a_panic_in_the_code_comes_out_of_poll_with_its_payload() {
    for waits in [0, 1, 3] {
        let drops = Drops::new();
        let guard = drops.guard();
        let mut run = run(move || {
            let _guard = guard;
            await_(yields(waits));
            resume_unwind(Box::new(Payload(7)));
        });
        for _ in 0..waits {
            assert!(matches!(poll_once(&mut run), Poll::<()>::Pending));
        }
        let payload = catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).err().unwrap();
        assert_eq!(payload.downcast::<Payload>().ok().unwrap().0, 7);
        assert_eq!(drops.count(), 1);
        assert!(!panicking());
        drop(run);
    }
}

#[test]
fn a_panic_in_the_future_comes_out_of_await_with_its_payload_and_the_fiber_goes_on() {
    let mut run = run(|| {
        let mut sum = 0;
        for waits in 0..3 {
            let payload = catch_unwind(AssertUnwindSafe(|| {
                await_(async move {
                    yields(waits).await;
                    resume_unwind(Box::new(Payload(5)));
                });
            }))
            .unwrap_err();
            sum += payload.downcast::<Payload>().ok().unwrap().0;
            assert!(!panicking());
            // Waiting works as before.
            sum += await_(async {
                yield_once().await;
                1
            });
        }
        sum
    });
    assert_eq!(support::poll_to_end(&mut run, 100), 18);
}

#[test]
fn a_panic_in_a_nested_poll_passes_through_both_waits() {
    let mut run = run(|| {
        let payload = catch_unwind(AssertUnwindSafe(|| {
            await_(async {
                yield_once().await;
                await_(async {
                    yield_once().await;
                    await_(yield_once());
                    resume_unwind(Box::new(Payload(3)));
                });
            });
        }))
        .unwrap_err();
        await_(yield_once());
        payload.downcast::<Payload>().ok().unwrap().0
    });
    assert_eq!(support::poll_to_end(&mut run, 100), 3);
}

#[test]
fn a_panic_of_a_nested_run_comes_out_of_the_await_above() {
    let mut outer = run(|| {
        let inner = run(|| {
            await_(yield_once());
            resume_unwind(Box::new(Payload(9)));
        });
        let payload: Result<(), _> = catch_unwind(AssertUnwindSafe(|| await_(inner)));
        await_(yield_once());
        payload.unwrap_err().downcast::<Payload>().ok().unwrap().0
    });
    assert_eq!(support::poll_to_end(&mut outer, 100), 9);
}

#[test]
fn polling_again_after_a_panic_or_after_the_end_panics_and_says_why() {
    let mut panicked = run(|| -> () { resume_unwind(Box::new(Payload(1))) });
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut panicked))).is_err());
    let payload = catch_unwind(AssertUnwindSafe(|| poll_once(&mut panicked))).unwrap_err();
    assert!(format!("{:?}", text(&payload)).contains("fiberback"));
    let mut ended = run(|| 1);
    assert!(poll_once(&mut ended).is_ready());
    let payload = catch_unwind(AssertUnwindSafe(|| poll_once(&mut ended))).unwrap_err();
    assert!(text(&payload).contains("polled after it was ready"));
}

fn text(payload: &Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => payload.downcast_ref::<&str>().copied().unwrap_or_default().to_string(),
    }
}

#[test]
fn off_a_fiber_await_panics_and_says_what_to_type() {
    let payload = catch_unwind(|| await_(ready(1))).unwrap_err();
    assert!(text(&payload).contains("fiberback::run(|| ...).await"), "{}", text(&payload));
    let polled = Cell::new(false);
    let error = try_await(poll_fn(|_| {
        polled.set(true);
        Poll::Ready(())
    }))
    .unwrap_err();
    assert!(error.is_off_fiber() && !error.is_cancelled() && !error.is_unwinding());
    assert!(!polled.get());
}

#[test]
fn a_destructor_during_a_panic_gets_what_is_ready_and_an_error_for_the_rest() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    let mut run = run(move || -> () {
        await_(yield_once());
        let _guard = OnDrop(|| {
            assert!(panicking());
            assert_eq!(await_(ready(4)), 4);
            let error = try_await(yield_once()).unwrap_err();
            inside.borrow_mut().push((error.is_unwinding(), error.is_cancelled()));
            let error = await_(async { try_await(yield_once()) }).unwrap_err();
            inside.borrow_mut().push((error.is_unwinding(), error.is_cancelled()));
        });
        resume_unwind(Box::new(Payload(1)));
    });
    assert!(poll_once(&mut run).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).is_err());
    assert_eq!(*log.borrow(), [(true, false), (true, false)]);
    assert!(!panicking());
}

/// A panic out of a destructor during unwinding aborts: that is Rust's rule. Ours is the message.
#[test]
fn await_of_a_pending_future_during_a_panic_aborts_with_our_message() {
    if support::is_child("abort") {
        let mut run = run(|| -> () {
            let _guard = OnDrop(|| await_(std::future::pending::<()>()));
            panic!("first");
        });
        let _ = poll_once(&mut run);
        return;
    }
    let output = support::run_child(
        "await_of_a_pending_future_during_a_panic_aborts_with_our_message",
        "abort",
    );
    let text = support::text(&output);
    assert!(text.contains("fiberback::try_await"), "{text}");
    #[cfg(unix)]
    assert_eq!(support::signal(&output), Some(6), "{text}");
}

#[test]
fn after_a_caught_panic_the_fiber_waits_as_before() {
    let mut run = run(|| {
        for _ in 0..5 {
            assert!(catch_unwind(|| resume_unwind(Box::new(Payload(1)))).is_err());
            await_(yield_once());
        }
    });
    support::poll_to_end(&mut run, 6);
}

#[test]
fn a_thread_that_panics_already_may_poll_a_run() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(|| {
            assert!(panicking());
            let log = inside.clone();
            let mut inner = run(move || {
                log.borrow_mut().push("started");
                await_(yields(2));
                log.borrow_mut().push("waited");
                assert!(catch_unwind(|| resume_unwind(Box::new(Payload(1)))).is_err());
                await_(yield_once());
                5
            });
            assert_eq!(support::poll_to_end(&mut inner, 10), 5);
        });
        resume_unwind(Box::new(Payload(2)));
    }));
    assert_eq!(result.unwrap_err().downcast::<Payload>().ok().unwrap().0, 2);
    assert_eq!(*log.borrow(), ["started", "waited"]);
    assert!(!panicking());
}

#[test]
fn a_run_begun_during_a_panic_goes_on_after_it() {
    let kept = Rc::new(RefCell::new(None));
    let inside = kept.clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(|| {
            let mut begun = run(|| {
                await_(yield_once());
                assert!(!panicking());
                await_(yield_once());
                6
            });
            assert!(poll_once(&mut begun).is_pending());
            inside.replace(Some(begun));
        });
        resume_unwind(Box::new(Payload(2)));
    }));
    assert!(result.is_err());
    let mut begun = kept.take().unwrap();
    assert!(!panicking());
    assert_eq!(support::poll_to_end(&mut begun, 10), 6);
}

#[test]
fn one_fibers_panic_is_not_seen_on_others() {
    // Between the polls of the panicking fiber, and from destructors that run in its panic.
    let seen = Rc::new(RefCell::new(Vec::new()));
    let inside = seen.clone();
    let mut other = run(move || {
        for _ in 0..4 {
            inside.borrow_mut().push(panicking());
            await_(yield_once());
        }
    });
    assert!(poll_once(&mut other).is_pending());
    let mut panics = run(|| -> () {
        await_(yield_once());
        let _guard = OnDrop(|| assert!(try_await(yield_once()).is_err()));
        resume_unwind(Box::new(Payload(1)));
    });
    assert!(poll_once(&mut panics).is_pending());
    assert!(poll_once(&mut other).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut panics))).is_err());
    assert!(!panicking());
    while poll_once(&mut other).is_pending() {}
    assert_eq!(*seen.borrow(), [false; 4]);
}

#[test]
fn a_mutex_locked_around_a_wait_is_not_poisoned_by_anothers_panic() {
    let mutex = Arc::new(Mutex::new(0));
    let inside = mutex.clone();
    let mut holder = run(move || {
        let mut guard = inside.lock().unwrap();
        await_(yield_once());
        *guard += 1;
    });
    assert!(poll_once(&mut holder).is_pending());
    let mut panics = run(|| -> () { resume_unwind(Box::new(Payload(1))) });
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut panics))).is_err());
    assert!(poll_once(&mut holder).is_ready());
    assert_eq!(*mutex.lock().unwrap(), 1);
    // One that is locked while unwinding, and its own, is poisoned as usual.
    let inside = mutex.clone();
    let mut own = run(move || -> () {
        let _guard = inside.lock().unwrap();
        await_(yield_once());
        resume_unwind(Box::new(Payload(1)));
    });
    assert!(poll_once(&mut own).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut own))).is_err());
    assert!(mutex.is_poisoned());
}

#[test]
fn ten_thousand_panics_leave_the_panic_count_at_zero() {
    for n in 0..10_000 {
        let mut run = run(move || -> () {
            if n % 2 == 0 {
                await_(yield_once());
            }
            resume_unwind(Box::new(Payload(n)));
        });
        if n % 2 == 0 {
            assert!(poll_once(&mut run).is_pending());
        }
        let payload = catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).unwrap_err();
        assert_eq!(payload.downcast::<Payload>().ok().unwrap().0, n);
    }
    assert!(!panicking());
    std::thread::spawn(|| assert!(!panicking())).join().unwrap();
}

#[tokio::test]
async fn a_panicking_task_fails_alone() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let bad = tokio::task::spawn_local(run(|| -> () {
                await_(tokio::task::yield_now());
                resume_unwind(Box::new(Payload(4)));
            }));
            let good = tokio::task::spawn_local(run(|| {
                for _ in 0..5 {
                    await_(tokio::task::yield_now());
                }
                2
            }));
            let payload = bad.await.unwrap_err().into_panic();
            assert_eq!(payload.downcast::<Payload>().ok().unwrap().0, 4);
            assert_eq!(good.await.unwrap(), 2);
        })
        .await;
}

#[test]
fn a_panic_hook_that_waits_is_refused() {
    if support::is_child("hook") {
        std::panic::set_hook(Box::new(|_| {
            let error = try_await(yield_once()).unwrap_err();
            println!("refused: {}", error.is_unwinding());
        }));
        let mut run = run(|| -> () { panic!("on the fiber") });
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).is_err());
        println!("survived");
        return;
    }
    let output = support::run_child("a_panic_hook_that_waits_is_refused", "hook");
    let text = support::text(&output);
    assert!(text.contains("refused: true") && text.contains("survived"), "{text}");
}
