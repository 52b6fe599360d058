//! Fan-out in synchronous code, next to `futures::future::join_all` in async code.
//!
//! ```text
//! cargo bench --bench scope
//! ```
//!
//! Each of the N futures, or fibers, waits once: for itself (`yield`, where all that is measured is what the
//! fan-out costs), or for a task of the runtime's own, which is about the least that anybody waits for in
//! earnest (`task`). All in one task, on a current-thread runtime; with N = 2, as `join` against tokio's
//! `join!`.

mod harness;

use fiberback::{await_, join, map_concurrent, scope};
use futures_util::StreamExt;
use futures_util::future::join_all;
use harness::{Bench, in_earnest, runtimes, yielding};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

async fn task() {
    tokio::spawn(async {}).await.expect("nobody panics");
}

async fn one(n: usize, in_a_task: bool) -> usize {
    if in_a_task {
        task().await;
    } else {
        yielding().await;
    }
    black_box(n)
}

fn scoped(count: usize, in_a_task: bool) -> usize {
    scope(|s| {
        let handles: Vec<_> =
            (0..count).map(|n| s.spawn(move || await_(one(n, in_a_task)))).collect();
        handles.into_iter().map(|handle| handle.join()).sum()
    })
}

/// The time of `n` fan-outs, each a future that `runtime` drives.
fn times<F: Future<Output = usize>>(
    runtime: &Runtime,
    n: u64,
    fan_out: impl Fn() -> F,
) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        black_box(runtime.block_on(fan_out()));
    }
    began.elapsed()
}

fn compare(count: usize, in_a_task: bool, rounds: usize) {
    let runtime = &runtimes::current_thread();
    println!("\n{count} that wait for {}", if in_a_task { "a task" } else { "themselves" });
    let mut bench = Bench::default();
    bench.case("scope", move |n| {
        times(runtime, n, || fiberback::run(move || scoped(count, in_a_task)))
    });
    bench.case("map_concurrent", move |n| {
        times(runtime, n, || {
            fiberback::run(move || {
                map_concurrent(0..count, count, |n| await_(one(n, in_a_task))).into_iter().sum()
            })
        })
    });
    bench.case("join_all", move |n| {
        times(runtime, n, || async move {
            join_all((0..count).map(|n| one(n, in_a_task))).await.into_iter().sum()
        })
    });
    bench.case("buffered", move |n| {
        times(runtime, n, || async move {
            let all = futures_util::stream::iter((0..count).map(|n| one(n, in_a_task)));
            all.buffered(count).fold(0, |sum, n| async move { sum + n }).await
        })
    });
    bench.measure(rounds);
    bench.print_times();
    bench.print_ratio("scope", &["join_all"], None);
    bench.print_ratio("map_concurrent", &["buffered"], None);
}

fn compare_two(in_a_task: bool, rounds: usize) {
    let runtime = &runtimes::current_thread();
    println!("\n2 that wait for {}", if in_a_task { "a task" } else { "themselves" });
    let mut bench = Bench::default();
    bench.case("join", move |n| {
        times(runtime, n, || {
            fiberback::run(move || {
                let (a, b) = join(|| await_(one(1, in_a_task)), || await_(one(2, in_a_task)));
                a + b
            })
        })
    });
    bench.case("join!", move |n| {
        times(runtime, n, || async move {
            let (a, b) = tokio::join!(one(1, in_a_task), one(2, in_a_task));
            a + b
        })
    });
    bench.measure(rounds);
    bench.print_times();
    bench.print_ratio("join", &["join!"], None);
}

fn main() {
    let rounds = if in_earnest() { 200 } else { 3 };
    for in_a_task in [false, true] {
        compare_two(in_a_task, rounds);
        for count in [10, 100, 1000] {
            compare(count, in_a_task, rounds);
        }
    }
}
