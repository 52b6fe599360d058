//! What several test files share.
#![allow(dead_code, unreachable_pub)]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Pending once; wakes itself.
pub fn yield_once() -> impl Future<Output = ()> + Unpin {
    yields(1)
}

/// Pending `times` times; wakes itself each time.
pub fn yields(mut times: usize) -> impl Future<Output = ()> + Unpin {
    poll_fn(move |cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Polls once with a waker that does nothing.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls until ready, at most `limit` times.
pub fn poll_to_end<F: Future + Unpin>(future: &mut F, limit: usize) -> F::Output {
    for _ in 0..limit {
        if let Poll::Ready(output) = poll_once(future) {
            return output;
        }
    }
    panic!("not ready after {limit} polls")
}

/// Counts its drops.
#[derive(Clone, Default)]
pub struct Drops(Rc<Cell<usize>>);

impl Drops {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn count(&self) -> usize {
        self.0.get()
    }

    pub fn guard(&self) -> DropGuard {
        DropGuard(self.0.clone())
    }
}

pub struct DropGuard(Rc<Cell<usize>>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Counts wakes.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Calls a closure when dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

const CHILD: &str = "FIBERBACK_TEST_CHILD";

/// Whether this process was started by [`run_child`] to run `case`.
pub fn is_child(case: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|set| set == case)
}

/// Runs the test `test` of this same binary again, in a process of its own (on its main thread),
/// with [`is_child`]`(case)` true there. Kills it after a minute and fails: a hang.
pub fn run_child(test: &str, case: &str) -> Output {
    run_child_with(test, case, |_| {})
}

pub fn run_child_with(test: &str, case: &str, adjust: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, case)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    adjust(&mut command);
    output_within(command, Duration::from_secs(120))
}

/// Runs a command to its end; kills it and panics if that takes longer than `limit`.
pub fn output_within(mut command: Command, limit: Duration) -> Output {
    let child = command.spawn().unwrap();
    let id = child.id();
    let (done, is_done) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = done.send(child.wait_with_output());
    });
    let begin = Instant::now();
    match is_done.recv_timeout(limit) {
        Ok(output) => {
            waiter.join().unwrap();
            output.unwrap()
        }
        Err(_) => {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("{command:?} still ran after {:?}", begin.elapsed());
        }
    }
}

/// A child's standard error and output, for messages and searches.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}\n{:?}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status
    )
}

/// The signal that ended a child, if one did.
#[cfg(unix)]
pub fn signal(output: &Output) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&output.status)
}
