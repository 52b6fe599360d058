//! Streams and synchronous iterators, against what users take today: a `spawn_blocking` thread at the
//! other end of a channel. And against plain async code, for the price of it all.
//!
//! ```text
//! cargo bench --features stream --bench stream
//! ```
//!
//! * **iterate**: an async task sends numbers through a channel of 32; synchronous code takes them
//!   from an iterator. `stream::iter` on a fiber; `blocking_recv` on a blocking thread.
//! * **produce**: a synchronous iterator waits once every 16 items, and an async task takes its
//!   items from a stream. `stream::from_iter`; or a blocking thread that waits by `Handle::block_on`
//!   and sends with `blocking_send` through a channel of 32.
//! * **consume**: an async task sends into a sink with synchronous code behind it.
//!   `stream::into_sink`; or a channel of 32 and `blocking_recv`.
//!
//! "thread" is on a current-thread runtime, as ours is; "thread, mt" on one with two workers. Each
//! case checks the sum of the items.

mod harness;

use fiberback::stream;
use futures_util::{SinkExt, Stream, StreamExt};
use harness::Bench;
use harness::runtimes::{current_thread, multi_thread};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

const ITEMS: u64 = 10_000;
const ROOM: usize = 32;
/// A wait for every so many items.
const BATCH: u64 = 16;
const SUM: u64 = ITEMS * (ITEMS - 1) / 2;

/// `future`, `n` times over, each checked.
fn sums<F: Future<Output = u64>>(runtime: &Runtime, n: u64, future: impl Fn() -> F) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        assert_eq!(runtime.block_on(future()), SUM);
    }
    began.elapsed()
}

async fn send_all(sender: Sender<u64>) {
    for item in 0..ITEMS {
        sender.send(item).await.expect("somebody receives");
    }
}

fn stream_of(mut receiver: Receiver<u64>) -> impl Stream<Item = u64> + Unpin {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// What an iterator of the producers waits for: another task.
async fn next_batch() {
    tokio::spawn(async {}).await.expect("nobody panics");
}

fn numbers(wait: impl Fn()) -> impl Iterator<Item = u64> {
    (0..ITEMS).inspect(move |item| {
        if item % BATCH == 0 {
            wait();
        }
    })
}

async fn add_up(stream: impl Stream<Item = u64>) -> u64 {
    let mut stream = pin!(stream);
    let mut sum = 0;
    while let Some(item) = stream.next().await {
        sum += item;
    }
    sum
}

async fn iterate_on_a_fiber() -> u64 {
    let (sender, receiver) = channel(ROOM);
    tokio::spawn(send_all(sender));
    fiberback::run(move || stream::iter(stream_of(receiver)).sum()).await
}

async fn iterate_on_a_thread() -> u64 {
    let (sender, mut receiver) = channel(ROOM);
    tokio::spawn(send_all(sender));
    let summing =
        tokio::task::spawn_blocking(move || std::iter::from_fn(|| receiver.blocking_recv()).sum());
    summing.await.expect("nobody panics")
}

async fn iterate_natively() -> u64 {
    let (sender, receiver) = channel(ROOM);
    tokio::spawn(send_all(sender));
    add_up(stream_of(receiver)).await
}

async fn produce_on_a_fiber() -> u64 {
    add_up(stream::from_iter(numbers(|| fiberback::await_(next_batch())))).await
}

async fn produce_on_a_thread() -> u64 {
    let (sender, receiver) = channel(ROOM);
    let producing = tokio::task::spawn_blocking(move || {
        let runtime = Handle::current();
        for item in numbers(|| runtime.block_on(next_batch())) {
            sender.blocking_send(item).expect("somebody receives");
        }
    });
    let sum = add_up(stream_of(receiver)).await;
    producing.await.expect("nobody panics");
    sum
}

async fn produce_natively() -> u64 {
    add_up(futures_util::stream::iter(0..ITEMS).then(async |item| {
        if item % BATCH == 0 {
            next_batch().await;
        }
        item
    }))
    .await
}

async fn consume_on_a_fiber() -> u64 {
    let (tell, sum) = oneshot::channel();
    let mut sink = stream::into_sink(move |items| tell.send(items.sum()));
    for item in 0..ITEMS {
        sink.feed(item).await.expect("takes all");
    }
    sink.close().await.expect("takes all");
    sum.await.expect("told")
}

async fn consume_on_a_thread() -> u64 {
    let (sender, mut receiver) = channel(ROOM);
    let summing =
        tokio::task::spawn_blocking(move || std::iter::from_fn(|| receiver.blocking_recv()).sum());
    send_all(sender).await;
    summing.await.expect("nobody panics")
}

async fn consume_natively() -> u64 {
    let sum = Cell::new(0);
    let mut sink = pin!(futures_util::sink::unfold((), |(), item: u64| {
        sum.set(sum.get() + item);
        std::future::ready(Ok::<_, Infallible>(()))
    }));
    for item in 0..ITEMS {
        sink.feed(item).await.expect("infallible");
    }
    sink.close().await.expect("infallible");
    sum.get()
}

fn compare<A, B, C>(
    title: &str,
    fiber: impl Fn() -> A,
    thread: impl Fn() -> B,
    native: impl Fn() -> C,
) where
    A: Future<Output = u64>,
    B: Future<Output = u64>,
    C: Future<Output = u64>,
{
    let (ours, theirs, many) = (current_thread(), current_thread(), multi_thread());
    let mut bench = Bench::default();
    bench.case("fiber", |n| sums(&ours, n, &fiber));
    bench.case("thread", |n| sums(&theirs, n, &thread));
    bench.case("thread, mt", |n| sums(&many, n, &thread));
    bench.case("native", |n| sums(&ours, n, &native));
    bench.measure(41);
    println!("{title}, {ITEMS} items: median");
    bench.print_times();
    bench.print_ratio("thread", &["fiber"], None);
    bench.print_ratio("thread, mt", &["fiber"], None);
    bench.print_ratio("fiber", &["native"], None);
    println!();
}

fn main() {
    compare("iterate over a stream", iterate_on_a_fiber, iterate_on_a_thread, iterate_natively);
    compare("a stream of an iterator", produce_on_a_fiber, produce_on_a_thread, produce_natively);
    compare("a sink before a loop", consume_on_a_fiber, consume_on_a_thread, consume_natively);
}
