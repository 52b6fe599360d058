//! Synchronous Diesel on a fiber, next to native `diesel-async` and to `spawn_blocking`, on a private
//! PostgreSQL cluster behind a Unix socket.
//!
//! ```text
//! cargo bench --bench diesel --features diesel-postgres,diesel-deadpool
//! ```
//!
//! Against whom:
//!
//! * **Native `diesel-async`**: the same query, `.await`ed, over the same connection, on the same
//!   current-thread runtime. (The very same: where the scheduler has put a connection's server
//!   process is worth more than what is measured here.)
//! * **`spawn_blocking`** with `diesel-async`'s own synchronous wrapper: what users do today who have
//!   synchronous Diesel code and no libpq; once for each query, as a handler would, and once for
//!   all of them, so that the hand-over between threads is paid but once.
//!
//! Then a thousand queries that each wait on the server, all at once: fibers on one thread, and
//! threads.
#![allow(missing_docs)] // of what `diesel::table!` makes
#![allow(clippy::await_holding_refcell_ref)] // one task, one case at a time

mod harness;
#[allow(dead_code)]
#[path = "../tests/support/postgres.rs"]
mod postgres;

use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use fiberback::diesel::{Guarded, SyncConnection, checkout};
use harness::{Bench, Target, show};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::{self, Runtime};

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
        price -> BigInt,
    }
}

type Item = (i32, String, i64);

const SCHEMA: &str = "CREATE TABLE items (id integer PRIMARY KEY, name text NOT NULL,
        price bigint NOT NULL);
    INSERT INTO items SELECT n, 'item ' || n, n * 7 FROM generate_series(1, 1000) n;";

fn id(n: u64) -> i32 {
    i32::try_from(n % 1000 + 1).expect("small")
}

/// The query, synchronous.
fn find<C: LoadConnection<Backend = Pg>>(connection: &mut C, id: i32) -> Item {
    items::table.find(id).first(connection).expect("there are items up to 1000")
}

/// The query, native.
async fn find_natively(connection: &mut AsyncPgConnection, id: i32) -> Item {
    diesel_async::RunQueryDsl::first(items::table.find(id), connection)
        .await
        .expect("there are items up to 1000")
}

/// The query, native, over a guarded connection.
async fn find_natively_guarded(connection: &mut Guarded<AsyncPgConnection>, id: i32) -> Item {
    diesel_async::RunQueryDsl::first(items::table.find(id), connection)
        .await
        .expect("there are items up to 1000")
}

fn connect<C: diesel_async::AsyncConnection>(runtime: &Runtime, url: &str) -> C {
    runtime.block_on(C::establish(url)).expect("the cluster is up")
}

/// `iterations` queries on a fiber of `runtime`, over a connection that is kept.
fn on_a_fiber<C>(
    runtime: &Runtime,
    connection: &Rc<RefCell<SyncConnection<C>>>,
    iterations: u64,
) -> Duration
where
    C: diesel_async::AsyncConnection<Backend = Pg> + 'static,
{
    let connection = Rc::clone(connection);
    let began = Instant::now();
    runtime.block_on(fiberback::run(move || {
        let mut connection = connection.borrow_mut();
        for n in 0..iterations {
            assert_eq!(find(&mut *connection, id(n)).0, id(n));
        }
    }));
    began.elapsed()
}

fn one_at_a_time(url: &str) {
    let runtime = &runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plain: AsyncPgConnection = connect(runtime, url);
    let plain = Rc::new(RefCell::new(SyncConnection::from(plain)));
    let guarded: Guarded<AsyncPgConnection> = connect(runtime, url);
    let guarded = Rc::new(RefCell::new(SyncConnection::from(guarded)));
    let mut each = Some(connect::<AsyncPgConnection>(runtime, url));
    let mut once = Some(connect::<AsyncPgConnection>(runtime, url));

    let mut bench = Bench::default();
    bench.case("native", |iterations| {
        let began = Instant::now();
        runtime.block_on(async {
            let mut connection = plain.borrow_mut();
            for n in 0..iterations {
                assert_eq!(find_natively(&mut connection, id(n)).await.0, id(n));
            }
        });
        began.elapsed()
    });
    bench.case("fiber", |iterations| on_a_fiber(runtime, &plain, iterations));
    bench.case("native, guarded", |iterations| {
        let began = Instant::now();
        runtime.block_on(async {
            let mut connection = guarded.borrow_mut();
            for n in 0..iterations {
                assert_eq!(find_natively_guarded(&mut connection, id(n)).await.0, id(n));
            }
        });
        began.elapsed()
    });
    bench.case("fiber, guarded", |iterations| on_a_fiber(runtime, &guarded, iterations));
    bench.measure(400);
    println!("one query at a time, by primary key:");
    bench.print_times();
    bench.print_ratio("fiber", &["native"], Some(Target::AtMost(1.05)));
    bench.print_ratio("fiber, guarded", &["native, guarded"], Some(Target::AtMost(1.05)));

    // Apart: what comes after a change of threads finds the server on another processor.
    let mut bench = Bench::default();
    bench.case("fiber", |iterations| on_a_fiber(runtime, &plain, iterations));
    bench.case("spawn_blocking, one for each", |iterations| {
        let began = Instant::now();
        runtime.block_on(async {
            for n in 0..iterations {
                let connection = each.take().expect("put back");
                let task = tokio::task::spawn_blocking(move || {
                    let mut connection: AsyncConnectionWrapper<_> =
                        AsyncConnectionWrapper::from(connection);
                    assert_eq!(find(&mut connection, id(n)).0, id(n));
                    connection.into_inner()
                });
                each = Some(task.await.expect("no panic"));
            }
        });
        began.elapsed()
    });
    bench.case("spawn_blocking, one for all", |iterations| {
        let connection = once.take().expect("put back");
        let began = Instant::now();
        once = Some(runtime.block_on(async {
            let task = tokio::task::spawn_blocking(move || {
                let mut connection: AsyncConnectionWrapper<_> =
                    AsyncConnectionWrapper::from(connection);
                for n in 0..iterations {
                    assert_eq!(find(&mut connection, id(n)).0, id(n));
                }
                connection.into_inner()
            });
            task.await.expect("no panic")
        }));
        began.elapsed()
    });
    bench.measure(200);
    println!("\nthe same, next to threads:");
    bench.print_times();
    bench.print_ratio("spawn_blocking, one for each", &["fiber"], None);
    bench.print_ratio("spawn_blocking, one for all", &["fiber"], None);
}

const NAP: Duration = Duration::from_secs(1);

fn nap<C: LoadConnection<Backend = Pg>>(connection: &mut C) {
    diesel::sql_query("SELECT pg_sleep(1)").execute(connection).expect("it only sleeps");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn all_at_once(url: &str, count: usize) {
    let runtime = &runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = ManagerConfig::<Guarded<AsyncPgConnection>>::default();
    config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::new_with_config(url, config);
    let pool = Pool::builder(manager).max_size(count).build().expect("a pool");
    // All connections, before the clock starts.
    runtime.block_on(async {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(pool.get().await.expect("the cluster lets in as many"));
        }
    });

    let fibers = |pool: &Pool<Guarded<AsyncPgConnection>>| {
        let began = Instant::now();
        let before = threads();
        let more = tokio::task::LocalSet::new().block_on(runtime, async {
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let pool = pool.clone();
                    fiberback::tokio::spawn_local(move || {
                        nap(&mut checkout(&pool).expect("a connection each"));
                    })
                })
                .collect();
            tokio::time::sleep(NAP / 2).await;
            let more = threads() - before;
            for task in tasks {
                task.await.expect("no panic");
            }
            more
        });
        (began.elapsed(), more)
    };
    let blocking = |pool: &Pool<Guarded<AsyncPgConnection>>| {
        let began = Instant::now();
        let before = threads();
        let more = runtime.block_on(async {
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let pool = pool.clone();
                    tokio::task::spawn_blocking(move || {
                        let object = tokio::runtime::Handle::current()
                            .block_on(pool.get())
                            .expect("a connection each");
                        let mut connection: AsyncConnectionWrapper<_> =
                            AsyncConnectionWrapper::from(object);
                        nap(&mut connection);
                    })
                })
                .collect();
            tokio::time::sleep(NAP / 2).await;
            let more = threads() - before;
            for task in tasks {
                task.await.expect("no panic");
            }
            more
        });
        (began.elapsed(), more)
    };

    println!("\n{count} queries at once, each of which sleeps {NAP:?} on the server:");
    let mut ratios = Vec::new();
    for round in 1..=if harness::in_earnest() { 3 } else { 1 } {
        let (fiber, fiber_threads) = fibers(&pool);
        let (thread, blocking_threads) = blocking(&pool);
        println!(
            "round {round}: fibers on one thread {}, {fiber_threads} more threads; \
             spawn_blocking {}, {blocking_threads} more threads",
            show(fiber.as_nanos() as f64),
            show(thread.as_nanos() as f64),
        );
        ratios.push((
            fiber.as_secs_f64() / NAP.as_secs_f64(),
            thread.as_secs_f64() / fiber.as_secs_f64(),
        ));
    }
    let of = |pick: fn(&(f64, f64)) -> f64| harness::median(ratios.iter().map(pick).collect());
    let overlap = of(|ratio| ratio.0);
    println!(
        "fibers / one sleep: {overlap:.2}{} ({:.0} sleeps' worth in the time of one)",
        Target::AtMost(2.0).verdict(overlap),
        count as f64 / overlap
    );
    println!("spawn_blocking / fibers: {:.2}", of(|ratio| ratio.1));
}

fn main() {
    let count = if harness::in_earnest() { 1000 } else { 20 };
    let cluster = match postgres::Cluster::start(count + 20) {
        Ok(cluster) => cluster,
        Err(reason) => {
            println!("NOT RUN: {reason}");
            return;
        }
    };
    let url = cluster.url("postgres");
    let mut connection = SyncConnection::<AsyncPgConnection>::establish(&url).expect("a server");
    diesel::connection::SimpleConnection::batch_execute(&mut connection, SCHEMA).expect("a schema");
    one_at_a_time(&url);
    all_at_once(&url, count);
}
