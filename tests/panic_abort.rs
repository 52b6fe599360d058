//! A program built with `panic = "abort"`: nothing can unwind, so what is suspended is leaked.
//! Builds one in `target/` and runs it.

#[path = "support/program.rs"]
mod program;
mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

const MAIN: &str = r##"
use fiberback::fiber::{Fiber, StackPool, Suspender};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

struct Noisy;

impl Drop for Noisy {
    fn drop(&mut self) {
        println!("dropped");
    }
}

fn yields(mut times: u32) {
    fiberback::await_(std::future::poll_fn(move |context| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }));
}

fn main() {
    assert!(cfg!(panic = "abort"));
    let mut context = Context::from_waker(Waker::noop());

    // Dropping a waiting run leaks it: no abort, no destructor, and its stack is never reused.
    let pool = StackPool::builder().stack_size(64 << 10).build().unwrap();
    let builder = fiberback::Builder::new().pool(&pool);
    for leaked in 0..100 {
        let mut run = Box::pin(builder.run(|| {
            let _noisy = Noisy;
            fiberback::await_(std::future::pending::<()>());
        }).unwrap());
        assert!(run.as_mut().poll(&mut context).is_pending());
        assert_eq!(pool.stats().in_use, leaked + 1);
        drop(run);
        assert_eq!(pool.stats().in_use, leaked + 1);
        assert_eq!(pool.stats().leaked, leaked + 1);
    }
    println!("leaked");

    // One that never started is dropped in order, and one that ends too.
    let noisy = Noisy;
    drop(fiberback::run(move || drop(noisy)));
    let mut run = pin!(fiberback::run(|| {
        let _noisy = Noisy;
        fiberback::await_(std::future::ready(5))
    }));
    assert_eq!(run.as_mut().poll(&mut context), Poll::Ready(5));

    // A bare fiber that answers the refusal by returning ends in order.
    let mut fiber = Fiber::new(pool.take().unwrap(), |suspender: &Suspender<(), ()>, ()| {
        let _noisy = Noisy;
        assert!(suspender.suspend(()).is_err());
    });
    let _ = fiber.resume(());
    drop(fiber);

    // A fiber of a scope that has begun cannot be cancelled there: it goes on, and is waited for.
    let mut run = pin!(fiberback::run(|| {
        let borrowed = String::from("went on");
        fiberback::scope(|s| {
            let begun = s.spawn(|| {
                yields(3);
                println!("{borrowed}");
            });
            yields(1);
            begun.cancel();
            s.spawn(|| println!("never")).cancel();
        });
    }));
    while run.as_mut().poll(&mut context).is_pending() {}
    println!("survived");
}
"##;

#[test]
fn dropping_a_suspended_run_leaks_and_does_not_abort() {
    let mut command = Command::new(program::build("panic-abort", "panic = \"abort\"", "", MAIN));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = support::output_within(command, Duration::from_secs(300));
    let text = support::text(&output);
    assert!(output.status.success(), "{text}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["leaked", "dropped", "dropped", "dropped", "went on", "survived"],
        "{text}"
    );
}
