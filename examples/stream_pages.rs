//! A paged API as a plain iterator, and what synchronous code makes of it as a stream again.
//!
//! ```text
//! cargo run --features stream --example stream_pages
//! ```

use fiberback::stream;
use futures_util::StreamExt;
use std::time::Duration;

const PAGE: u32 = 4;

/// Stands for a request over the network.
async fn fetch_page(number: u32) -> Vec<u32> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let first = number * PAGE;
    (first..(first + PAGE).min(10)).collect()
}

/// All items, page after page: an ordinary iterator, lazily fetched.
fn items() -> impl Iterator<Item = u32> {
    (0..)
        .map(|number| fiberback::await_(fetch_page(number)))
        .take_while(|p| !p.is_empty())
        .flatten()
}

/// Synchronous code that takes any iterator and gives one.
fn running_totals(items: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    items.scan(0, |total, item| {
        *total += item;
        Some(*total)
    })
}

/// From the API through iterator adapters to a stream, which async code reads.
pub(crate) async fn totals() -> Vec<u32> {
    stream::from_iter(running_totals(items())).collect().await
}

/// From a stream into a `for` loop.
pub(crate) async fn sum_of_slow_stream() -> u32 {
    let slow = futures_util::stream::iter(1..=4).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        n
    });
    fiberback::run(move || {
        let mut sum = 0;
        for number in stream::iter(Box::pin(slow)) {
            sum += number;
        }
        sum
    })
    .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("totals {:?}", totals().await);
    println!("sum {}", sum_of_slow_stream().await);
}
