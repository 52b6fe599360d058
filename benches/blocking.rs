//! Many waits in synchronous code at the same time, against the ways that tokio has for them.
//!
//! ```text
//! cargo bench --bench blocking
//! RUSTFLAGS="--cfg bench_may" cargo bench --bench blocking     # the crate `may`, too
//! ```
//!
//! Starts 1, 100 and 10,000 pieces of synchronous code at once, each of which waits once, and takes
//! the time until all have ended. Two kinds of wait: one that is over at once (`yield_now`), where
//! the time is all overhead, and a timer of 5 ms. Contenders:
//!
//! * **native**: an async task, for comparison; no synchronous code.
//! * **`spawn_local`**: `fiberback::tokio::spawn_local` and `await_`, one thread.
//! * **`PinnedPool`**: `PinnedPool::spawn` and `await_`, two threads.
//! * **..., kept warm**: the same with a `StackPool` whose `high_water_mark` is above the number of
//!   waits. Where the default mark is below it, the pool gives the memory of the idle stacks above
//!   back to the system, and the next lot of waits faults it in again.
//! * **`spawn_blocking`** and `Handle::block_on` in it. tokio has at most 512 blocking threads
//!   unless told otherwise, so of 10,000 waits 512 are under way at a time and the rest are queued:
//!   the memory for 10,000 threads is what this machine would rather not have.
//! * **`block_in_place`** and `Handle::block_on` in it, in async tasks. Each takes a thread, too,
//!   and when the 512 are gone, nobody is left to run the timers and the runtime *hangs*. So here a
//!   semaphore lets 400 in at a time, as a program would have to.
//! * **`may`**: stackful coroutines with a scheduler and timers of their own, which cannot await
//!   tokio's futures; two threads.
//!
//! All multi-threaded runtimes have two workers. Threads, once started, stay for later rounds.

mod harness;

use fiberback::tokio::{PinnedPool, spawn_local};
use fiberback::{StackPool, await_};
use harness::Bench;
use harness::runtimes::{current_thread, multi_thread};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, block_in_place, spawn_blocking};

#[derive(Clone, Copy)]
enum Wait {
    Yield,
    Timer,
}

const TIMER: Duration = Duration::from_millis(5);

impl Wait {
    async fn over(self) {
        match self {
            Self::Yield => tokio::task::yield_now().await,
            Self::Timer => tokio::time::sleep(TIMER).await,
        }
    }
}

/// A pool that never gives memory back while it has no more stacks than these.
fn keeping(stacks: usize) -> StackPool {
    StackPool::builder().high_water_mark(2 * stacks).build().expect("in range")
}

/// Starts `count` of something, waits for all, `n` times over.
async fn all(n: u64, count: usize, start: impl Fn() -> JoinHandle<()>) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        let handles: Vec<_> = (0..count).map(|_| start()).collect();
        for handle in handles {
            handle.await.expect("nobody panics");
        }
    }
    began.elapsed()
}

fn compare(title: &str, wait: Wait, count: usize, rounds: usize) {
    let mut bench = Bench::default();
    bench.case("native task", {
        let runtime = multi_thread();
        move |n| runtime.block_on(all(n, count, || tokio::spawn(wait.over())))
    });
    bench.case("spawn_local", {
        let runtime = current_thread();
        move |n| {
            let start = || spawn_local(move || await_(wait.over()));
            LocalSet::new().block_on(&runtime, all(n, count, start))
        }
    });
    bench.case("PinnedPool", {
        let runtime = multi_thread();
        let pool = PinnedPool::builder().worker_threads(2).build().expect("two threads");
        move |n| {
            let start = || pool.spawn(move || await_(wait.over()));
            runtime.block_on(all(n, count, start))
        }
    });
    bench.case("spawn_local, kept warm", {
        let runtime = current_thread();
        let fibers = fiberback::Builder::new().pool(&keeping(count));
        move |n| {
            let start = || {
                let run = fibers.run(move || await_(wait.over()));
                tokio::task::spawn_local(run.expect("there are stacks"))
            };
            LocalSet::new().block_on(&runtime, all(n, count, start))
        }
    });
    bench.case("PinnedPool, kept warm", {
        let runtime = multi_thread();
        let pool = PinnedPool::builder().worker_threads(2).stack_pool(&keeping(count));
        let pool = pool.build().expect("two threads");
        move |n| {
            let start = || pool.spawn(move || await_(wait.over()));
            runtime.block_on(all(n, count, start))
        }
    });
    bench.case("spawn_blocking", {
        let runtime = multi_thread();
        move |n| {
            let start = || {
                let handle = Handle::current();
                spawn_blocking(move || handle.block_on(wait.over()))
            };
            runtime.block_on(all(n, count, start))
        }
    });
    bench.case("block_in_place", {
        let runtime = multi_thread();
        let permits = Arc::new(Semaphore::new(400));
        move |n| {
            let start = || {
                let permits = Arc::clone(&permits);
                tokio::spawn(async move {
                    let _permit = permits.acquire().await;
                    block_in_place(|| Handle::current().block_on(wait.over()));
                })
            };
            runtime.block_on(all(n, count, start))
        }
    });
    #[cfg(bench_may)]
    bench.case("may", |n| {
        may::config().set_workers(2);
        let began = Instant::now();
        for _ in 0..n {
            let handles: Vec<_> = (0..count)
                .map(|_| {
                    may::go!(move || match wait {
                        Wait::Yield => may::coroutine::yield_now(),
                        Wait::Timer => may::coroutine::sleep(TIMER),
                    })
                })
                .collect();
            for handle in handles {
                handle.join().expect("nobody panics");
            }
        }
        began.elapsed()
    });
    bench.measure(rounds);

    println!("{title}, {count} at once: until all have ended, median");
    bench.print_times();
    for peer in ["spawn_blocking", "block_in_place"] {
        for ours in ["spawn_local", "PinnedPool"] {
            bench.print_ratio(peer, &[ours], None);
        }
    }
    println!();
}

fn main() {
    for (title, wait) in [("yield_now", Wait::Yield), ("timer of 5 ms", Wait::Timer)] {
        compare(title, wait, 1, 101);
        compare(title, wait, 100, 51);
        compare(title, wait, if harness::in_earnest() { 10_000 } else { 1000 }, 11);
    }
}
