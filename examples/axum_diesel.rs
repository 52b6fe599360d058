//! An axum handler on a multi-threaded runtime that runs synchronous Diesel code on a `PinnedPool`,
//! next to the same handler with `spawn_blocking`, under load over loopback.
//!
//! ```text
//! cargo run --release --example axum_diesel --features diesel-postgres,diesel-deadpool
//! ```
//!
//! Starts a private PostgreSQL cluster from the system's programs, or uses `DATABASE_URL`; starts the
//! server, sends it a bounded number of requests, prints the figures, and ends. Each request runs a
//! transaction of three queries, one of which waits for the server for some milliseconds: what a
//! handler does when it waits for a lock, or another service.
#![allow(missing_docs)] // of what `diesel::table!` makes

#[allow(dead_code)]
#[path = "../tests/support/postgres.rs"]
pub(crate) mod postgres;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use fiberback::diesel::{Guarded, checkout};
use fiberback::tokio::PinnedPool;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn Error + Send + Sync>;
type PgPool = Pool<Guarded<AsyncPgConnection>>;

diesel::table! {
    hits (page) {
        page -> Integer,
        count -> BigInt,
    }
}

/// Synchronous Diesel code, whatever connection it gets: counts a visit, returns how many there were.
fn visit<C>(connection: &mut C, page: i32) -> QueryResult<i64>
where
    C: diesel::connection::LoadConnection<Backend = diesel::pg::Pg>,
{
    connection.transaction(|connection| {
        diesel::sql_query("SELECT pg_sleep(0.005)").execute(connection)?;
        diesel::insert_into(hits::table)
            .values((hits::page.eq(page), hits::count.eq(1)))
            .on_conflict(hits::page)
            .do_update()
            .set(hits::count.eq(hits::count + 1))
            .execute(connection)?;
        hits::table.find(page).select(hits::count).first(connection)
    })
}

#[derive(Clone)]
struct App {
    database: PgPool,
    workers: PinnedPool,
}

fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

type Answer = Result<String, (StatusCode, String)>;

/// The handler: what it needs goes to a worker's fiber, and it awaits the result. If the client goes
/// away, the guard aborts the job, and the connection in the middle of something is not reused.
async fn on_a_fiber(State(app): State<App>, Path(page): Path<i32>) -> Answer {
    let database = app.database;
    let job = app.workers.spawn(move || {
        let mut connection = checkout(&database).map_err(failed)?;
        visit(&mut connection, page).map_err(failed)
    });
    let job = AbortOnDrop(job);
    job.await.map_err(failed)?.map(|count| count.to_string())
}

/// What users do today: a thread for each request that waits.
async fn on_a_blocking_thread(State(app): State<App>, Path(page): Path<i32>) -> Answer {
    let object = app.database.get().await.map_err(failed)?;
    let job = tokio::task::spawn_blocking(move || {
        let mut connection: AsyncConnectionWrapper<_> = AsyncConnectionWrapper::from(object);
        visit(&mut connection, page).map_err(failed)
    });
    job.await.map_err(failed)?.map(|count| count.to_string())
}

/// A job that nobody waits for any more is ended.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// --- the load ------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests at a time, each on a connection of its own that is kept alive.
    pub(crate) clients: usize,
    /// Requests of each client.
    pub(crate) requests: usize,
    pub(crate) database_connections: usize,
    pub(crate) workers: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    pub(crate) per_second: f64,
    /// The most threads that the process had, beyond what it had before the first request.
    pub(crate) more_threads: usize,
}

/// One client: sends its requests one after the other, and reads each answer.
async fn client(
    address: std::net::SocketAddr,
    path: String,
    requests: usize,
) -> Result<i64, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (mut answer, mut last) = (Vec::new(), 0);
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).await?;
        last = loop {
            if let Some(body) = complete(&answer) {
                let text = std::str::from_utf8(&answer)?;
                if !text.starts_with("HTTP/1.1 200") {
                    return Err(text.into());
                }
                break text[body..].parse()?;
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server hung up".into());
            }
        };
        answer.clear();
    }
    Ok(last)
}

/// Where the body of an answer begins, once all of it is there.
fn complete(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let body = text.find("\r\n\r\n")? + 4;
    let length = text[..body].lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (answer.len() - body >= length.parse().ok()?).then_some(body)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

async fn fire(address: std::net::SocketAddr, route: &str, load: Load) -> Result<Figures, Failure> {
    let before = threads();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let counting = tokio::spawn(async move {
        loop {
            seen.fetch_max(threads(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let began = Instant::now();
    let clients: Vec<_> = (0..load.clients)
        .map(|n| tokio::spawn(client(address, format!("{route}/{n}"), load.requests)))
        .collect();
    for client in clients {
        client.await??;
    }
    let took = began.elapsed();
    counting.abort();
    let requests = load.clients * load.requests;
    Ok(Figures {
        requests,
        per_second: requests as f64 / took.as_secs_f64(),
        more_threads: most.load(Ordering::Relaxed).saturating_sub(before),
    })
}

/// Serves both handlers, and fires the load at each of them in turn: fibers, then blocking threads.
/// Checks that every visit was counted.
pub(crate) async fn compare(url: &str, load: Load) -> Result<(Figures, Figures), Failure> {
    let manager = AsyncDieselConnectionManager::<Guarded<AsyncPgConnection>>::new(url);
    let database: PgPool = Pool::builder(manager).max_size(load.database_connections).build()?;
    let workers = PinnedPool::builder().worker_threads(load.workers).build()?;

    // All connections of the database, established before anybody measures.
    let mut connections = Vec::new();
    for _ in 0..load.database_connections {
        connections.push(database.get().await?);
    }
    drop(connections);
    let setting_up = database.clone();
    let set_up = workers.spawn(move || {
        let mut connection = checkout(&setting_up).map_err(|error| error.to_string())?;
        connection
            .batch_execute(
                "DROP TABLE IF EXISTS hits;
                 CREATE TABLE hits (page integer PRIMARY KEY, count bigint NOT NULL)",
            )
            .map_err(|error| error.to_string())
    });
    set_up.await??;

    let app = App { database: database.clone(), workers: workers.clone() };
    let router = Router::new()
        .route("/fiber/{page}", routing::get(on_a_fiber))
        .route("/blocking/{page}", routing::get(on_a_blocking_thread))
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async { axum::serve(listener, router).await });

    let fibers = fire(address, "/fiber", load).await?;
    let blocking = fire(address, "/blocking", load).await?;

    let counting = database.clone();
    let counted = workers.spawn(move || {
        let mut connection = checkout(&counting).map_err(|error| error.to_string())?;
        let counts = hits::table.select(hits::count).load::<i64>(&mut connection);
        connection.batch_execute("DROP TABLE hits").map_err(|error| error.to_string())?;
        counts.map_err(|error| error.to_string())
    });
    let expected = vec![i64::try_from(2 * load.requests)?; load.clients];
    let counted = counted.await??;
    if counted != expected {
        return Err(format!("visits are missing: {counted:?}").into());
    }
    server.abort();
    workers.shutdown().await;
    Ok((fibers, blocking))
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Failure> {
    let load = Load { clients: 64, requests: 40, database_connections: 64, workers: 1 };
    let _cluster;
    let url = match std::env::var("DATABASE_URL") {
        Ok(url) => url,
        Err(_) => {
            let cluster = postgres::Cluster::start(load.database_connections + 10)?;
            let url = cluster.url("postgres");
            _cluster = cluster;
            url
        }
    };
    println!("{load:?}");
    let (fibers, blocking) = compare(&url, load).await?;
    for (name, figures) in [("PinnedPool, fibers", fibers), ("spawn_blocking", blocking)] {
        println!(
            "{name:18}  {} requests, {:5.0} a second, {} more threads",
            figures.requests, figures.per_second, figures.more_threads
        );
    }
    println!(
        "requests a second, fibers / spawn_blocking: {:.2}",
        fibers.per_second / blocking.per_second
    );
    Ok(())
}
