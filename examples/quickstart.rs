//! The quickstart: synchronous code waits inside a tokio task.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::time::Duration;

async fn request(id: u32) -> String {
    tokio::time::sleep(Duration::from_millis(10)).await;
    format!("row {id}")
}

/// Synchronous, and called by synchronous code.
fn fetch(id: u32) -> String {
    fiberback::await_(request(id))
}

fn report() -> Vec<String> {
    (1..=3).map(fetch).collect()
}

/// Two reports, side by side on one thread.
pub(crate) async fn reports() -> (Vec<String>, Vec<String>) {
    tokio::join!(fiberback::run(report), fiberback::run(report))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{:?}", reports().await);
}
