//! What code on a fiber can know of its limits, and where giving up is safer than going on.

mod support;

use fiberback::fiber::current_stack;
use fiberback::{Builder, Exclusive, StackPool, await_, run, stack_remaining};
use std::cell::RefCell;
use std::rc::Rc;
#[cfg(target_os = "linux")]
use support::{is_child, run_child, signal, text};
use support::{poll_once, poll_to_end, yield_once};

#[test]
fn what_is_left_of_the_stack_is_the_fibers() {
    const SIZE: usize = 256 << 10;
    fn frames(n: u32, seen: &mut Vec<usize>) {
        let bulk = std::hint::black_box([0_u8; 4096]);
        seen.push(stack_remaining().unwrap());
        if n > 0 {
            frames(n - 1, seen);
        }
        std::hint::black_box(bulk);
    }
    assert_eq!((stack_remaining(), current_stack()), (None, None));
    let mut on_fiber = Builder::new()
        .stack_size(SIZE)
        .run(|| {
            let stack = current_stack().unwrap();
            assert!((SIZE - 1024..=SIZE).contains(&stack.len()));
            let mut seen = Vec::new();
            frames(10, &mut seen);
            await_(yield_once());
            assert_eq!(current_stack(), Some(stack));
            // A fiber below a fiber has its own.
            let inner = poll_to_end(&mut run(|| current_stack().unwrap()), 1);
            assert_ne!(current_stack(), Some(inner));
            seen
        })
        .unwrap();
    let seen = poll_to_end(&mut on_fiber, 2);
    assert!(seen[0] < SIZE && seen[0] > SIZE / 2, "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0] - pair[1] >= 4096), "{seen:?}");
    assert_eq!(stack_remaining(), None);
}

#[test]
fn a_second_entry_is_refused_with_words() {
    let shared = Rc::new(Exclusive::new(0));
    let inside = Rc::clone(&shared);
    let mut first = run(move || {
        inside.enter(|value| {
            *value += 1;
            let again = inside.try_enter(|_| ()).unwrap_err();
            assert!(again.is_reentrant());
            assert!(again.to_string().contains("inside the `Exclusive` already"), "{again}");
            await_(yield_once());
            *value += 1;
        });
    });
    assert!(poll_once(&mut first).is_pending());
    let outside = Rc::clone(&shared);
    let refused = poll_to_end(&mut run(move || outside.try_enter(|_| ()).unwrap_err()), 1);
    assert!(!refused.is_reentrant());
    assert!(refused.to_string().contains("another fiber waits"), "{refused}");
    // Off a fiber, too.
    assert!(!shared.try_enter(|_| ()).unwrap_err().is_reentrant());
    poll_to_end(&mut first, 1);
    assert_eq!(shared.enter(|value| *value), 2);

    // A cancellation leaves it.
    let inside = Rc::clone(&shared);
    let mut cancelled = run(move || inside.enter(|_| await_(std::future::pending::<()>())));
    assert!(poll_once(&mut cancelled).is_pending());
    assert!(shared.try_enter(|_| ()).is_err());
    drop(cancelled);
    assert_eq!(shared.enter(|value| *value), 2);
}

thread_local! {
    static HOLDER: RefCell<Option<fiberback::Run<()>>> = const { RefCell::new(None) };
}

#[test]
#[cfg_attr(
    all(windows, target_env = "gnu"),
    ignore = "destroy thread-local values in an order of their own"
)]
fn a_run_that_is_dropped_at_the_end_of_its_thread_is_leaked_with_a_message() {
    const TEST: &str = "a_run_that_is_dropped_at_the_end_of_its_thread_is_leaked_with_a_message";
    struct Noisy;
    impl Drop for Noisy {
        fn drop(&mut self) {
            println!("its destructor ran");
        }
    }
    if support::is_child("teardown") {
        for leaked in 0..2 {
            assert_eq!(StackPool::global().stats().leaked, leaked);
            std::thread::spawn(|| {
                // Made before the thread's first fiber, and so destroyed after all that fibers use.
                HOLDER.with_borrow_mut(|holder| {
                    let mut waits = run(|| {
                        let _noisy = Noisy;
                        await_(std::future::pending::<()>());
                    });
                    assert!(poll_once(&mut waits).is_pending());
                    *holder = Some(waits);
                });
            })
            .join()
            .unwrap();
        }
        assert_eq!(StackPool::global().stats().leaked, 2);
        println!("ended");
        return;
    }
    let output = support::run_child(TEST, "teardown");
    let text = support::text(&output);
    assert!(output.status.success() && text.contains("ended"), "{text}");
    assert!(!text.contains("its destructor ran"), "{text}");
    assert_eq!(
        text.matches("was dropped by the destructor of a thread-local").count(),
        1,
        "{text}"
    );
}

/// Leaves a fiber waiting below a frame that cannot be unwound.
#[cfg(target_os = "linux")]
fn waits_below_a_c_frame() -> fiberback::Run<()> {
    extern "C" fn callback() {
        await_(yield_once());
    }
    let mut run = Builder::new().name("importer").run(|| std::hint::black_box(callback)()).unwrap();
    assert!(poll_once(&mut run).is_pending());
    run
}

#[test]
#[cfg(target_os = "linux")]
fn a_cancellation_that_meets_a_c_frame_says_which_fiber_and_what_to_type() {
    if is_child("c-frame") {
        return drop(waits_below_a_c_frame());
    }
    let test = "a_cancellation_that_meets_a_c_frame_says_which_fiber_and_what_to_type";
    let output = run_child(test, "c-frame");
    let text = text(&output);
    assert_eq!(signal(&output), Some(libc::SIGABRT), "{text}");
    assert!(text.contains("cannot unwind"), "{text}");
    assert_eq!(text.matches("'importer'").count(), 1, "{text}");
    assert!(text.contains("fiberback::try_await"), "{text}");
}

/// Whoever handles aborts already goes on to.
#[test]
#[cfg(target_os = "linux")]
fn a_handler_of_aborts_that_was_there_before_is_called() {
    extern "C" fn theirs(_: libc::c_int) {
        // SAFETY: async-signal-safe; the bytes are valid.
        unsafe {
            libc::write(2, b"theirs\n".as_ptr().cast(), 7);
            libc::_exit(7);
        }
    }
    if is_child("handler") {
        // SAFETY: a handler that calls async-signal-safe functions only.
        unsafe { libc::signal(libc::SIGABRT, theirs as *const () as libc::sighandler_t) };
        return drop(waits_below_a_c_frame());
    }
    let output = run_child("a_handler_of_aborts_that_was_there_before_is_called", "handler");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("'importer'") && text.contains("theirs"), "{text}");
}

/// After a cancellation that went well.
#[test]
#[cfg(target_os = "linux")]
fn other_aborts_are_left_alone() {
    let cases = ["off-fiber", "on-another-fiber"];
    if cases.into_iter().any(is_child) {
        let mut waits = run(|| await_(yield_once()));
        assert!(poll_once(&mut waits).is_pending());
        drop(waits);
        if is_child("off-fiber") {
            std::process::abort();
        }
        let _ = poll_once(&mut run(|| std::process::abort()));
    }
    for case in cases {
        let output = run_child("other_aborts_are_left_alone", case);
        let text = text(&output);
        assert_eq!(signal(&output), Some(libc::SIGABRT), "{text}");
        assert!(!text.contains("fiberback:"), "{text}");
    }
}
