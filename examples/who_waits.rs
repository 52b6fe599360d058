//! Three fibers that wait for ever, and what `fiberback::dump()` says of them.
//!
//! ```text
//! cargo run --example who_waits --features dump
//! ```

use fiberback::{Builder, Dump, await_, dump};
use tokio::sync::Mutex;
use tokio::task::{LocalSet, spawn_local, yield_now};

static ACCOUNTS: Mutex<u32> = Mutex::const_new(0);

fn pay(amount: u32) {
    let mut accounts = await_(ACCOUNTS.lock()); // somebody has it
    *accounts += amount;
}

fn handle_order(amount: u32) {
    pay(amount);
}

/// What waits, when three orders wait for a lock that is never free again.
pub(crate) async fn orders_that_hang() -> Dump {
    let _never_free_again = ACCOUNTS.lock().await;
    let local = LocalSet::new();
    local
        .run_until(async {
            for n in 1..=3 {
                let order = Builder::new().name(format!("order {n}")).run(move || handle_order(n));
                spawn_local(order.expect("there is a stack"));
            }
            yield_now().await;
            dump()
        })
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{}", orders_that_hang().await);
}
