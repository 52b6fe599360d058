//! A fiber that blocks its thread, and what `fiberback::watch()` says of it.
//!
//! ```text
//! cargo run --example who_blocks --features dump
//! ```

use fiberback::{Blocked, Builder, await_, watch};
use std::sync::mpsc;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local, yield_now};

/// What is reported of synchronous code that blocks in a channel of the standard library, until somebody has heard
/// of it.
pub(crate) async fn order_that_blocks() -> Blocked {
    let (reported, report) = mpsc::channel();
    let _watching = watch(Duration::from_millis(100), move |blocked| {
        if blocked.name() == Some("order 2") {
            let _ = reported.send(blocked.clone());
        }
    })
    .expect("there is a thread");
    let handle_order = move || {
        await_(yield_now());
        report.recv().expect("it is reported") // blocks the thread: `await_` what is async
    };
    let local = LocalSet::new();
    local
        .run_until(async {
            let other = Builder::new().name("order 1").run(|| await_(std::future::pending::<()>()));
            let other = spawn_local(other.expect("there is a stack"));
            let order = Builder::new().name("order 2").run(handle_order);
            let blocked = order.expect("there is a stack").await;
            other.abort();
            blocked
        })
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{}", order_that_blocks().await);
}
