//! `block_on` inside `block_on`, where tokio's own panics.
//!
//! ```text
//! cargo run --example nested_block_on
//! ```
//!
//! Many libraries have a synchronous face on an async inside: each function does `block_on` of
//! something async. That works until two of them meet: one library's async inside calls another
//! library's synchronous face. This program calls the same little library with tokio's `block_on`
//! and with fiberback's.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use tokio::runtime::Handle;

/// How a library turns its async inside into a synchronous face.
pub(crate) trait Block: Copy + 'static {
    fn on<F: Future>(self, future: F) -> F::Output;
}

/// The usual way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokio;

impl Block for Tokio {
    fn on<F: Future>(self, future: F) -> F::Output {
        Handle::current().block_on(future)
    }
}

/// Ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fiberback;

impl Block for Fiberback {
    fn on<F: Future>(self, future: F) -> F::Output {
        fiberback::block_on(future)
    }
}

// --- Two libraries, each synchronous outside and async inside. -------------------------------

/// The upper library: builds a page of several keys.
fn page(block: impl Block, keys: &[&str]) -> String {
    block.on(async {
        let mut page = String::new();
        for key in keys {
            tokio::time::sleep(Duration::from_millis(1)).await;
            page += &lookup(block, key); // async code calls the other library's synchronous face
            page += "; ";
        }
        page
    })
}

/// The lower library: looks one key up.
fn lookup(block: impl Block, key: &str) -> String {
    block.on(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        format!("{key} = {}", key.len())
    })
}

// --- The program, which is async. ------------------------------------------------------------

/// Calls the synchronous libraries on a fiber; a panic's message becomes the error.
pub(crate) async fn attempt(block: impl Block) -> Result<String, String> {
    fiberback::run(move || {
        panic::catch_unwind(AssertUnwindSafe(|| page(block, &["tea", "honey"]))).map_err(
            |payload| match payload.downcast::<String>() {
                Ok(message) => *message,
                Err(payload) => payload.downcast_ref::<&str>().unwrap_or(&"?").to_string(),
            },
        )
    })
    .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    panic::set_hook(Box::new(|_| {})); // we print the message ourselves
    for (name, outcome) in [
        ("tokio::runtime::Handle::block_on", attempt(Tokio).await),
        ("fiberback::block_on", attempt(Fiberback).await),
    ] {
        match outcome {
            Ok(page) => println!("{name}:\n    returns: {page}"),
            Err(message) => println!("{name}:\n    panics: {message}"),
        }
    }
}
