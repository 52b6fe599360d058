//! Running off a fiber's stack ends in a message and an abort; every other fault goes where it
//! would have gone. Each case in a process of its own. (The main thread: `main_thread.rs`.)
#![cfg(any(target_os = "linux", windows))]

mod support;

use fiberback::{Builder, await_};
use std::hint::black_box;
use std::process::Output;
#[cfg(unix)]
use support::signal;
use support::{is_child, poll_once, poll_to_end, text, yield_once};

#[cfg(unix)]
const SIGABRT: i32 = 6;
#[cfg(unix)]
const SIGSEGV: i32 = 11;

#[allow(unconditional_recursion)]
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 32]);
    recurse(n + 1) + black_box(frame)[7]
}

/// Overflows a fiber of 192 KiB named "parser".
fn overflow() {
    let mut run = Builder::new().name("parser").stack_size(192 << 10).run(|| recurse(0)).unwrap();
    let _ = poll_once(&mut run);
}

/// By SIGABRT; on Windows by the exception that the system has raised.
fn assert_died_of_it(output: &Output) {
    #[cfg(unix)]
    assert_eq!(signal(output), Some(SIGABRT), "{}", text(output));
    #[cfg(windows)]
    assert_eq!(output.status.code(), Some(0xC000_00FD_u32 as i32), "{}", text(output));
}

fn assert_reported(output: &Output) {
    let text = text(output);
    assert_died_of_it(output);
    assert!(text.contains("fiberback: stack overflow"), "{text}");
    assert!(text.contains("'parser'"), "{text}");
    assert!(text.contains(" 192 KiB"), "{text}");
    assert!(text.contains("stack_size"), "{text}");
}

#[test]
fn on_a_plain_thread() {
    if is_child("thread") {
        return std::thread::spawn(overflow).join().unwrap();
    }
    assert_reported(&support::run_child("on_a_plain_thread", "thread"));
}

#[test]
fn on_a_tokio_worker() {
    if is_child("worker") {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async { tokio::spawn(async { overflow() }).await.unwrap() });
        return;
    }
    assert_reported(&support::run_child("on_a_tokio_worker", "worker"));
}

/// Such a thread has no signal stack of its own, unlike those of the Rust runtime.
#[cfg(unix)]
#[test]
fn on_a_thread_made_by_c() {
    extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the structure is valid.
        unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &mut stack);
            assert_ne!(stack.ss_flags & libc::SS_DISABLE, 0, "has a signal stack");
        }
        overflow();
        std::ptr::null_mut()
    }
    if is_child("pthread") {
        // SAFETY: `body` has the right type and needs no argument.
        unsafe {
            // A number with glibc, a pointer with musl.
            let mut thread = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
            let null = std::ptr::null;
            assert_eq!(
                libc::pthread_create(thread.as_mut_ptr(), null(), body, std::ptr::null_mut()),
                0
            );
            libc::pthread_join(thread.assume_init(), std::ptr::null_mut());
        }
        return;
    }
    assert_reported(&support::run_child("on_a_thread_made_by_c", "pthread"));
}

#[test]
fn in_a_nested_fiber_after_waiting() {
    if is_child("nested") {
        let mut outer = Builder::new()
            .name("outer")
            .run(|| {
                await_(yield_once());
                let inner = Builder::new()
                    .name("parser")
                    .stack_size(192 << 10)
                    .run(|| {
                        await_(yield_once());
                        recurse(0)
                    })
                    .unwrap();
                await_(inner)
            })
            .unwrap();
        poll_to_end(&mut outer, 10);
        return;
    }
    assert_reported(&support::run_child("in_a_nested_fiber_after_waiting", "nested"));
}

#[test]
fn below_reserved_bytes() {
    use fiberback::fiber::StackPool;
    if is_child("reserve") {
        let pool = StackPool::builder().stack_size(192 << 10).reserve(20 << 10).build().unwrap();
        let _ =
            poll_once(&mut Builder::new().name("parser").pool(&pool).run(|| recurse(0)).unwrap());
        return;
    }
    assert_reported(&support::run_child("below_reserved_bytes", "reserve"));
}

#[test]
fn with_mprotect_guards() {
    use fiberback::fiber::{GuardPages, StackPool};
    if is_child("mprotect") {
        let pool = StackPool::builder()
            .stack_size(192 << 10)
            .guard_pages(GuardPages::Mprotect)
            .build()
            .unwrap();
        let _ =
            poll_once(&mut Builder::new().name("parser").pool(&pool).run(|| recurse(0)).unwrap());
        return;
    }
    assert_reported(&support::run_child("with_mprotect_guards", "mprotect"));
}

#[test]
fn while_cancelled() {
    if is_child("cancelled") {
        let mut run = Builder::new()
            .name("parser")
            .stack_size(192 << 10)
            .run(|| {
                let _guard = support::OnDrop(|| assert_eq!(recurse(0), 0));
                await_(std::future::pending::<()>());
            })
            .unwrap();
        assert!(poll_once(&mut run).is_pending());
        drop(run);
        return;
    }
    assert_reported(&support::run_child("while_cancelled", "cancelled"));
}

#[cfg(unix)]
#[test]
fn in_a_forked_child() {
    if is_child("fork") {
        drop(Builder::new().stack_size(192 << 10).run(|| ()));
        // SAFETY: the process has one other thread at most (the test harness, idle), and the child
        // does nothing that needs it.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                overflow();
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            assert!(libc::WIFSIGNALED(status));
            libc::signal(libc::WTERMSIG(status), libc::SIG_DFL);
            libc::raise(libc::WTERMSIG(status));
        }
        return;
    }
    assert_reported(&support::run_child("in_a_forked_child", "fork"));
}

#[test]
fn in_a_pool_whose_owner_says_what_to_do() {
    use fiberback::fiber::StackPool;
    if is_child("advice") {
        let pool = StackPool::builder()
            .stack_size(192 << 10)
            .overflow_advice("Set PARSER_STACK.\nSee the manual.")
            .build()
            .unwrap();
        let _ =
            poll_once(&mut Builder::new().name("parser").pool(&pool).run(|| recurse(0)).unwrap());
        return;
    }
    let output = support::run_child("in_a_pool_whose_owner_says_what_to_do", "advice");
    let text = text(&output);
    assert_died_of_it(&output);
    assert!(
        text.contains(
            "'parser' has used up its stack of 192 KiB.\nSet PARSER_STACK.\nSee the manual.\n"
        ),
        "{text}"
    );
    assert!(!text.contains("Builder"), "{text}");
}

/// A frame of many pages is probed by the compiler; the fault is in the guard all the same.
#[test]
fn by_one_enormous_frame() {
    #[inline(never)]
    fn enormous() -> u8 {
        let frame = black_box([1u8; 400 << 10]);
        black_box(frame)[100]
    }
    if is_child("enormous") {
        let mut run = Builder::new().name("parser").stack_size(192 << 10).run(enormous).unwrap();
        let _ = poll_once(&mut run);
        return;
    }
    assert_reported(&support::run_child("by_one_enormous_frame", "enormous"));
}

#[test]
fn unnamed_and_in_the_default_pool() {
    if is_child("unnamed") {
        let _ = poll_once(&mut fiberback::run(|| recurse(0)));
        return;
    }
    let output = support::run_child("unnamed_and_in_the_default_pool", "unnamed");
    let text = text(&output);
    assert_died_of_it(&output);
    assert!(text.contains("'<unnamed>'") && text.contains(" 2048 KiB"), "{text}");
}

#[test]
fn deep_recursion_that_fits_is_fine() {
    #[inline(never)]
    fn deep(n: u64) -> u64 {
        let frame = black_box([n; 32]);
        if n == 0 { 0 } else { deep(n - 1) + black_box(frame)[7] - n + 1 }
    }
    let mut run = Builder::new().stack_size(64 << 20).run(|| deep(50_000)).unwrap();
    assert_eq!(poll_to_end(&mut run, 1), 50_000);
}

#[cfg(unix)]
fn null_dereference() {
    // SAFETY: none; the fault is what this is about.
    unsafe { std::ptr::without_provenance::<u8>(black_box(8)).read_volatile() };
}

#[cfg(unix)]
#[test]
fn an_ordinary_fault_on_a_fiber_is_not_an_overflow() {
    if is_child("null") {
        let _ = poll_once(&mut fiberback::run(null_dereference));
        return;
    }
    let output = support::run_child("an_ordinary_fault_on_a_fiber_is_not_an_overflow", "null");
    let text = text(&output);
    assert_eq!(signal(&output), Some(SIGSEGV), "{text}");
    assert!(!text.contains("stack overflow"), "{text}");
}

#[cfg(unix)]
#[test]
fn touching_the_guard_of_another_stack_is_not_an_overflow() {
    if is_child("foreign") {
        let stack = fiberback::StackPool::global().take().unwrap();
        let mut fiber = fiberback::fiber::Fiber::new(
            stack,
            |suspender: &fiberback::fiber::Suspender<(), ()>, ()| {
                let _ = suspender.suspend(());
            },
        );
        fiber.resume(());
        let guard = fiber.stack_range().start - 8;
        // SAFETY: none; the fault is what this is about.
        unsafe { std::ptr::with_exposed_provenance::<u8>(guard).read_volatile() };
        return;
    }
    let output =
        support::run_child("touching_the_guard_of_another_stack_is_not_an_overflow", "foreign");
    let text = text(&output);
    assert_eq!(signal(&output), Some(SIGSEGV), "{text}");
    assert!(!text.contains("stack overflow"), "{text}");
}

#[cfg(unix)]
#[test]
fn an_overflow_of_a_thread_is_reported_by_rust_as_ever() {
    if is_child("rust") {
        drop(fiberback::run(|| ()));
        std::thread::Builder::new()
            .name("plain".into())
            .stack_size(256 << 10)
            .spawn(|| {
                drop(fiberback::run(|| ()));
                recurse(0)
            })
            .unwrap()
            .join()
            .unwrap();
        return;
    }
    let output = support::run_child("an_overflow_of_a_thread_is_reported_by_rust_as_ever", "rust");
    let text = text(&output);
    assert_eq!(signal(&output), Some(SIGABRT), "{text}");
    assert!(text.contains("'plain'") && text.contains("has overflowed its stack"), "{text}");
    assert!(!text.contains("fiberback: stack overflow"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_signal_sent_by_somebody_still_kills() {
    if is_child("sent") {
        // Rust's own handler, which was there before, would let it pass.
        // SAFETY: no preconditions.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        drop(fiberback::run(|| ()));
        // SAFETY: no preconditions.
        unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) };
        std::thread::sleep(std::time::Duration::from_secs(5));
        println!("survived");
        return;
    }
    let output = support::run_child("a_signal_sent_by_somebody_still_kills", "sent");
    assert_eq!(signal(&output), Some(SIGSEGV), "{}", text(&output));
    assert!(!text(&output).contains("survived"));
}

#[cfg(unix)]
mod own_handler {
    use super::*;

    fn say(words: &[u8]) {
        // SAFETY: the bytes are valid.
        unsafe { libc::write(1, words.as_ptr().cast(), words.len()) };
    }

    extern "C" fn plain(_: libc::c_int) {
        say(b"plain handler\n");
        // SAFETY: no preconditions.
        unsafe { libc::_exit(41) };
    }

    extern "C" fn detailed(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel's structure.
        if unsafe { (*info).si_addr() }.addr() == 8 {
            say(b"detailed handler\n");
        }
        // SAFETY: no preconditions.
        unsafe { libc::_exit(42) };
    }

    fn install(handler: usize, flags: libc::c_int) {
        // SAFETY: a valid structure and handler.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = flags | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
        }
    }

    #[test]
    fn installed_before_is_reached() {
        if is_child("plain") {
            install(plain as *const () as usize, 0);
            let _ = poll_once(&mut fiberback::run(null_dereference));
            return;
        }
        if is_child("detailed") {
            install(detailed as *const () as usize, libc::SA_SIGINFO);
            let _ = poll_once(&mut fiberback::run(null_dereference));
            return;
        }
        for (case, code) in [("plain", 41), ("detailed", 42)] {
            let output = support::run_child("own_handler::installed_before_is_reached", case);
            assert_eq!(output.status.code(), Some(code), "{}", text(&output));
            assert!(text(&output).contains(&format!("{case} handler")), "{}", text(&output));
        }
    }

    /// Says which of three signals are blocked, and what SIGSEGV's disposition is.
    extern "C" fn blocked(_: libc::c_int) {
        // SAFETY: valid structures; all calls are async-signal-safe.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
            let named =
                [(libc::SIGSEGV, "SEGV "), (libc::SIGUSR1, "USR1 "), (libc::SIGUSR2, "USR2 ")];
            for (signal, name) in named {
                if libc::sigismember(&set, signal) == 1 {
                    say(name.as_bytes());
                }
            }
            say(b"blocked\n");
            libc::_exit(43);
        }
    }

    fn install_blocked(flags: libc::c_int) {
        // SAFETY: valid structures and handler.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = blocked as *const () as usize;
            action.sa_flags = flags | libc::SA_ONSTACK;
            libc::sigaddset(&mut action.sa_mask, libc::SIGUSR1);
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
        }
    }

    #[test]
    fn installed_before_finds_its_own_mask() {
        let cases = [
            ("deferred", 0, "\nSEGV USR1 blocked\n"),
            ("nodefer", libc::SA_NODEFER, "\nUSR1 blocked\n"),
        ];
        if let Some((_, flags, _)) = cases.iter().find(|(case, ..)| is_child(case)) {
            install_blocked(*flags);
            say(b"\n");
            let _ = poll_once(&mut fiberback::run(null_dereference));
            return;
        }
        for (case, _, expected) in cases {
            let test = "own_handler::installed_before_finds_its_own_mask";
            let output = support::run_child(test, case);
            assert_eq!(output.status.code(), Some(43), "{}", text(&output));
            assert!(text(&output).contains(expected), "{case}: {}", text(&output));
        }
    }

    #[test]
    fn installed_before_for_one_signal_is_called_once() {
        extern "C" fn again(_: libc::c_int) {
            say(b"called\n");
            // The next fault, in here, is the default's.
            // SAFETY: none; it faults.
            unsafe { std::ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
        }
        if is_child("reset") {
            install(again as *const () as usize, libc::SA_RESETHAND | libc::SA_NODEFER);
            let _ = poll_once(&mut fiberback::run(null_dereference));
            return;
        }
        let test = "own_handler::installed_before_for_one_signal_is_called_once";
        let output = support::run_child(test, "reset");
        assert_eq!(signal(&output), Some(SIGSEGV), "{}", text(&output));
        assert_eq!(text(&output).matches("called\n").count(), 1, "{}", text(&output));
    }

    #[test]
    fn does_not_hide_an_overflow() {
        if is_child("both") {
            install(plain as *const () as usize, 0);
            return overflow();
        }
        assert_reported(&support::run_child("own_handler::does_not_hide_an_overflow", "both"));
    }
}
