//! Synchronous callbacks that wait, against what users do today: the whole script or parser on a
//! `spawn_blocking` thread, with `Handle::block_on` in the callback.
//!
//! ```text
//! cargo bench --bench callbacks
//! ```
//!
//! * **script**: a `rhai` script that calls a host function a thousand times.
//! * **serde**: a JSON document of a thousand numbers, whose `Deserialize` looks each one up.
//! * **drop**: a thousand values whose destructor waits. The peer is `block_in_place`, on a
//!   multi-threaded runtime, the only one where a destructor may block.
//! * **scripts at once**: 200 scripts, each of which naps for a millisecond, five times.
//!
//! What is waited for is the answer of another task of the runtime; a timer in the last.

mod harness;

use harness::runtimes::{current_thread, multi_thread};
use harness::{Bench, show};
use rhai::Engine;
use serde::de::{Deserialize, Deserializer};
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};

const CALLS: i64 = 1000;

/// Stands for a request, which another task answers.
async fn look_up(number: i64) -> i64 {
    tokio::spawn(async move { number }).await.expect("nobody panics")
}

/// How a callback waits: what differs between the sides.
trait Wait: 'static {
    fn wait<F: Future>(future: F) -> F::Output;
}

struct OnFiber;

impl Wait for OnFiber {
    fn wait<F: Future>(future: F) -> F::Output {
        fiberback::await_(future)
    }
}

struct OnThread;

impl Wait for OnThread {
    fn wait<F: Future>(future: F) -> F::Output {
        Handle::current().block_on(future)
    }
}

struct InPlace;

impl Wait for InPlace {
    fn wait<F: Future>(future: F) -> F::Output {
        tokio::task::block_in_place(|| Handle::current().block_on(future))
    }
}

fn script<W: Wait>() -> i64 {
    let mut engine = Engine::new();
    engine.register_fn("look_up", |number: i64| W::wait(look_up(number)));
    let script = "let sum = 0; for n in 0..1000 { sum += look_up(n); } sum";
    engine.eval(script).expect("the script is in order")
}

fn naps<W: Wait>() -> i64 {
    // Without rhai's library, which takes longer to set up than these scripts.
    let mut engine = Engine::new_raw();
    engine.register_fn("nap", || {
        W::wait(async { tokio::time::sleep(Duration::from_millis(1)).await })
    });
    engine.eval("nap(); nap(); nap(); nap(); nap(); 5").expect("the script is in order")
}

struct LookedUp<W>(i64, std::marker::PhantomData<W>);

impl<'de, W: Wait> Deserialize<'de> for LookedUp<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Ok(Self(W::wait(look_up(number)), std::marker::PhantomData))
    }
}

fn document<W: Wait>() -> i64 {
    let numbers: Vec<String> = (0..CALLS).map(|n| n.to_string()).collect();
    let json = format!("[{}]", numbers.join(","));
    let parsed: Vec<LookedUp<W>> = serde_json::from_str(&json).expect("the document is in order");
    parsed.iter().map(|number| number.0).sum()
}

struct Goodbye<'a, W: Wait>(i64, &'a Cell<i64>, std::marker::PhantomData<W>);

impl<W: Wait> Drop for Goodbye<'_, W> {
    fn drop(&mut self) {
        self.1.set(self.1.get() + W::wait(look_up(self.0)));
    }
}

fn drops<W: Wait>() -> i64 {
    let said = Cell::new(0);
    for n in 0..CALLS {
        drop(Goodbye::<W>(n, &said, std::marker::PhantomData));
    }
    said.get()
}

/// `future`, `n` times over, each checked.
fn sums<F: Future<Output = i64>>(runtime: &Runtime, n: u64, future: impl Fn() -> F) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        assert_eq!(runtime.block_on(future()), CALLS * (CALLS - 1) / 2);
    }
    began.elapsed()
}

async fn on_a_thread(work: fn() -> i64) -> i64 {
    tokio::task::spawn_blocking(work).await.expect("nobody panics")
}

async fn on_a_worker(work: fn() -> i64) -> i64 {
    tokio::spawn(async move { work() }).await.expect("nobody panics")
}

fn compare(title: &str, fiber: fn() -> i64, thread: fn() -> i64, in_place: Option<fn() -> i64>) {
    let (ours, theirs, many) = (current_thread(), current_thread(), multi_thread());
    let mut bench = Bench::default();
    bench.case("fiber", |n| sums(&ours, n, || fiberback::run(fiber)));
    let peers: &[&'static str] = if let Some(in_place) = in_place {
        bench.case("block_in_place", {
            let many = &many;
            move |n| sums(many, n, || on_a_worker(in_place))
        });
        &["block_in_place"]
    } else {
        bench.case("thread", |n| sums(&theirs, n, || on_a_thread(thread)));
        bench.case("thread, mt", |n| sums(&many, n, || on_a_thread(thread)));
        &["thread", "thread, mt"]
    };
    bench.measure(41);
    println!("{title}, {CALLS} waits: median");
    bench.print_times();
    for peer in peers {
        bench.print_ratio(peer, &["fiber"], None);
    }
    println!();
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Many at once: how long, and on how many threads.
fn at_once() {
    const SCRIPTS: usize = 200;
    let fibers = || {
        let (runtime, before) = (current_thread(), threads());
        let began = Instant::now();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let scripts: Vec<_> =
                (0..SCRIPTS).map(|_| fiberback::tokio::spawn_local(naps::<OnFiber>)).collect();
            for script in scripts {
                assert_eq!(script.await.expect("nobody panics"), 5);
            }
        });
        (began.elapsed(), threads() - before)
    };
    let blocking = || {
        let (runtime, before) = (current_thread(), threads());
        let began = Instant::now();
        let more = runtime.block_on(async {
            let scripts: Vec<_> =
                (0..SCRIPTS).map(|_| tokio::task::spawn_blocking(naps::<OnThread>)).collect();
            let more = threads() - before;
            for script in scripts {
                assert_eq!(script.await.expect("nobody panics"), 5);
            }
            more
        });
        (began.elapsed(), more)
    };
    let rounds = if harness::in_earnest() { 15 } else { 1 };
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut more = (0, 0);
    for _ in 0..rounds {
        let (fiber, no_threads) = fibers();
        let (thread, many_threads) = blocking();
        more = (no_threads, many_threads);
        ours.push(fiber.as_nanos() as f64);
        theirs.push(thread.as_nanos() as f64);
        ratios.push(thread.as_secs_f64() / fiber.as_secs_f64());
    }
    println!("{SCRIPTS} scripts at once, each naps five times for a millisecond: median");
    println!("fiber   {}, {} more threads", show(harness::median(ours)), more.0);
    println!("thread  {}, {} more threads", show(harness::median(theirs)), more.1);
    println!("thread / fiber: {:.2}", harness::median(ratios));
}

fn main() {
    compare("script", script::<OnFiber>, script::<OnThread>, None);
    compare("serde", document::<OnFiber>, document::<OnThread>, None);
    compare("drop", drops::<OnFiber>, drops::<OnThread>, Some(drops::<InPlace>));
    at_once();
}
