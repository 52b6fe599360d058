//! Synchronous code that waits, on a multi-threaded runtime.
//!
//! ```text
//! cargo run --example multi_thread
//! ```
//!
//! tokio moves a task between threads while it waits. A call stack must not be moved: what is on
//! it may be tied to the thread. So a `fiberback::Run` is not `Send`, and a multi-threaded runtime
//! does not take it. A `PinnedPool` has a few threads of its own; each job stays on the one it
//! started on, and each thread has as many jobs waiting at once as you like.

use fiberback::tokio::PinnedPool;
use std::collections::HashSet;
use std::error::Error;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Jobs that wait at the same time.
const JOBS: u64 = 1000;
/// How long each wait of a job takes, of which there are three.
const NAP: Duration = Duration::from_millis(20);

/// Synchronous, and may keep across a wait what is not `Send`.
fn job(number: u64) -> (u64, ThreadId) {
    let parts = std::rc::Rc::new([number, 1, 2]);
    let sum = parts
        .iter()
        .map(|part| {
            fiberback::await_(tokio::time::sleep(NAP));
            part * 2
        })
        .sum();
    (sum, thread::current().id())
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sum: u64,
    pub(crate) threads: usize,
    pub(crate) took: Duration,
    /// How a job that panics ends.
    pub(crate) panicked: bool,
}

/// Runs so many jobs at once on two threads.
pub(crate) async fn run_jobs(jobs: u64) -> Result<Outcome, Box<dyn Error>> {
    let pool = PinnedPool::builder().worker_threads(2).build()?;
    let began = Instant::now();
    let handles: Vec<_> = (0..jobs).map(|number| pool.spawn(move || job(number))).collect();
    let (mut sum, mut threads) = (0, HashSet::new());
    for handle in handles {
        let (part, thread) = handle.await?;
        sum += part;
        threads.insert(thread);
    }
    let took = began.elapsed();

    // A panic comes out of the handle, as from any tokio task.
    let failing = pool.spawn(|| -> () { std::panic::resume_unwind(Box::new("quiet")) });
    let panicked = failing.await.is_err_and(|error| error.is_panic());

    pool.shutdown().await;
    Ok(Outcome { sum, threads: threads.len(), took, panicked })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let outcome = run_jobs(JOBS).await?;
    println!(
        "{JOBS} synchronous jobs, each waiting 3 times {} ms, took {} ms on {} threads; sum {}",
        NAP.as_millis(),
        outcome.took.as_millis(),
        outcome.threads,
        outcome.sum
    );
    if outcome.panicked {
        println!("a job that panicked was reported by its handle");
    }
    Ok(())
}
