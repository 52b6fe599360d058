//! `block_on` off a fiber, next to tokio's own `Handle::block_on`.
//!
//! ```text
//! cargo bench --bench block_on
//! ```
//!
//! Three places: a plain thread, on which `fiberback::block_on` uses its background runtime, and tokio the
//! handle of a runtime that another thread drives; and a `spawn_blocking` thread of either kind of runtime.
//! Three futures: one that is ready, one that is pending once and wakes itself, and one
//! that waits for a task of the runtime, on the runtime's own thread. The last takes 5 or 100
//! microseconds, as the system wakes the other thread on this processor or on an idle one; both sides
//! the same: "again" measures ours a second time.

mod harness;

use fiberback::block_on;
use harness::{Bench, in_earnest, yielding};
use std::future::ready;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

fn times(n: u64, mut f: impl FnMut()) -> Duration {
    let begin = Instant::now();
    (0..n).for_each(|_| f());
    begin.elapsed()
}

async fn task() {
    tokio::spawn(ready(())).await.unwrap();
}

fn compare(place: &str, theirs: &Handle, rounds: usize) {
    println!("\n{place}");
    let mut bench = Bench::default();
    bench.case("ready", |n| times(n, || block_on(black_box(ready(())))));
    bench.case("ready, tokio", |n| times(n, || theirs.block_on(black_box(ready(())))));
    bench.case("pending once", |n| times(n, || block_on(yielding())));
    bench.case("pending once, tokio", |n| times(n, || theirs.block_on(yielding())));
    bench.case("a task", |n| times(n, || block_on(task())));
    bench.case("a task, tokio", |n| times(n, || theirs.block_on(task())));
    bench.case("a task, again", |n| times(n, || block_on(task())));
    bench.measure(rounds);
    bench.print_times();
    bench.print_ratio("ready", &["ready, tokio"], None);
    bench.print_ratio("pending once", &["pending once, tokio"], None);
    bench.print_ratio("a task", &["a task, tokio"], None);
    bench.print_ratio("a task, again", &["a task, tokio"], None);
}

fn main() {
    let rounds = if in_earnest() { 300 } else { 3 };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let theirs = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let driver = std::thread::spawn(move || runtime.block_on(stopped));

    compare("on a plain thread", &theirs, rounds);
    in_spawn_blocking("on a spawn_blocking thread, current-thread runtime", &theirs, rounds);
    stop.send(()).unwrap();
    driver.join().unwrap().unwrap();

    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let place = "on a spawn_blocking thread, multi-thread runtime";
    in_spawn_blocking(place, runtime.handle(), rounds);
}

fn in_spawn_blocking(place: &'static str, runtime: &Handle, rounds: usize) {
    let (done, is_done) = std::sync::mpsc::channel();
    runtime.spawn_blocking(move || {
        compare(place, &Handle::current(), rounds);
        done.send(()).unwrap();
    });
    is_done.recv().unwrap();
}
