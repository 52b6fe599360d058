//! The load test of `examples/axum_diesel.rs`, in rounds: an axum handler on a multi-threaded runtime
//! whose synchronous Diesel code runs on a `PinnedPool`, next to the same handler with
//! `spawn_blocking`, over loopback and a private PostgreSQL cluster.
//!
//! ```text
//! cargo bench --bench axum --features diesel-postgres,diesel-deadpool
//! ```
//!
//! Each request is a transaction of three queries, one of which waits 5 ms on the server. As many
//! clients as connections of the database: the two sides differ in threads, and in what a hand-over
//! between them costs.
#![allow(missing_docs)] // of what `diesel::table!` makes

#[allow(dead_code)]
#[path = "../examples/axum_diesel.rs"]
mod axum_diesel;
mod harness;

use axum_diesel::{Load, postgres::Cluster};

fn main() {
    let (clients, requests, rounds) = if harness::in_earnest() { (64, 20, 15) } else { (4, 2, 1) };
    let load = Load { clients, requests, database_connections: clients, workers: 2 };
    let cluster = match Cluster::start(clients + 10) {
        Ok(cluster) => cluster,
        Err(reason) => {
            println!("NOT RUN: {reason}");
            return;
        }
    };
    let url = cluster.url("postgres");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("two threads");
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut threads = (0, 0);
    for _ in 0..rounds {
        let compared = runtime.block_on(axum_diesel::compare(&url, load));
        let (fibers, blocking) = compared.expect("every visit is answered and counted");
        threads = (threads.0.max(fibers.more_threads), threads.1.max(blocking.more_threads));
        ours.push(fibers.per_second);
        theirs.push(blocking.per_second);
        ratios.push(fibers.per_second / blocking.per_second);
    }
    println!("{load:?}, {rounds} rounds: median");
    println!(
        "PinnedPool      {:5.0} requests a second, {} more threads",
        harness::median(ours),
        threads.0
    );
    println!(
        "spawn_blocking  {:5.0} requests a second, {} more threads",
        harness::median(theirs),
        threads.1
    );
    println!("requests a second, PinnedPool / spawn_blocking: {:.2}", harness::median(ratios));
}
