//! A thousand queries wait for the server at once, on one thread: connections of a pool of that
//! size, to a server of this process's own that answers none of them before all have come. A test
//! binary of its own, so that nobody else's threads count.

use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use fiberback::diesel::{Guarded, checkout};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream};
use tokio::sync::Barrier;

const QUERIES: usize = 1000;

/// What the server knows of its sessions.
struct Sessions {
    connected: AtomicUsize,
    waiting: AtomicUsize,
    most: AtomicUsize,
    all_here: Barrier,
}

/// One message of the server's (PostgreSQL's protocol 3.0, "Message Formats").
async fn send(out: &mut BufWriter<DuplexStream>, kind: u8, body: &[u8]) -> io::Result<()> {
    out.write_u8(kind).await?;
    out.write_i32(i32::try_from(body.len() + 4).unwrap()).await?;
    out.write_all(body).await
}

/// One C string off the front.
fn string<'a>(body: &mut &'a [u8]) -> &'a str {
    let end = body.iter().position(|&byte| byte == 0).unwrap();
    let string = std::str::from_utf8(&body[..end]).unwrap();
    *body = &body[end + 1..];
    string
}

/// Serves one session: every query returns no rows; one that sleeps waits for all the others.
async fn serve(stream: DuplexStream, sessions: Arc<Sessions>) -> io::Result<()> {
    let mut stream = BufWriter::new(stream);
    let length = stream.read_i32().await?;
    let mut startup = vec![0; usize::try_from(length - 4).unwrap()];
    stream.read_exact(&mut startup).await?;
    sessions.connected.fetch_add(1, Ordering::Relaxed);
    send(&mut stream, b'R', &0_i32.to_be_bytes()).await?; // AuthenticationOk
    send(&mut stream, b'K', &[0; 8]).await?;
    send(&mut stream, b'Z', b"I").await?;
    stream.flush().await?;
    let mut prepared: HashMap<String, String> = HashMap::new();
    let mut bound = String::new();
    loop {
        let Ok(kind) = stream.read_u8().await else { return Ok(()) };
        let length = stream.read_i32().await?;
        let mut body = vec![0; usize::try_from(length - 4).unwrap()];
        stream.read_exact(&mut body).await?;
        let mut body = &body[..];
        match kind {
            b'P' => {
                let name = string(&mut body).to_owned();
                prepared.insert(name, string(&mut body).to_owned());
                send(&mut stream, b'1', &[]).await?;
            }
            b'D' => {
                send(&mut stream, b't', &[0, 0]).await?;
                send(&mut stream, b'n', &[]).await?;
            }
            b'B' => {
                let _portal = string(&mut body);
                bound = prepared[string(&mut body)].clone();
                send(&mut stream, b'2', &[]).await?;
            }
            b'E' => {
                if bound.contains("pg_sleep") {
                    let waiting = sessions.waiting.fetch_add(1, Ordering::Relaxed) + 1;
                    sessions.most.fetch_max(waiting, Ordering::Relaxed);
                    sessions.all_here.wait().await;
                    sessions.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                send(&mut stream, b'C', b"SELECT 0\0").await?;
            }
            b'C' => send(&mut stream, b'3', &[]).await?,
            b'S' => {
                send(&mut stream, b'Z', b"I").await?;
                stream.flush().await?;
            }
            b'H' => stream.flush().await?,
            b'X' => return Ok(()),
            other => panic!("a message that this server does not know: {:?}", char::from(other)),
        }
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_thousand_queries_wait_on_one_thread() {
    let sessions = Arc::new(Sessions {
        connected: AtomicUsize::new(0),
        waiting: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        all_here: Barrier::new(QUERIES),
    });
    let mut config = ManagerConfig::<Guarded<AsyncPgConnection>>::default();
    config.recycling_method = RecyclingMethod::Fast;
    let server = Arc::clone(&sessions);
    config.custom_setup = Box::new(move |_| {
        let server = Arc::clone(&server);
        Box::pin(async move {
            let bad =
                |error: &dyn std::fmt::Display| ConnectionError::BadConnection(error.to_string());
            let (near, far) = tokio::io::duplex(4096);
            tokio::spawn(serve(far, server));
            let (client, connection) = tokio_postgres::Config::new()
                .user("anybody")
                .connect_raw(near, tokio_postgres::NoTls)
                .await
                .map_err(|error| bad(&error))?;
            tokio::spawn(async move { drop(connection.await) });
            Ok(Guarded::new(AsyncPgConnection::try_from(client).await?))
        })
    });
    let manager = AsyncDieselConnectionManager::new_with_config("", config);
    let pool = Pool::builder(manager).max_size(QUERIES).build().unwrap();

    let threads_before = threads();
    let here = std::thread::current().id();
    let answered = Rc::new(std::cell::Cell::new(0));
    let local = tokio::task::LocalSet::new();
    let all = local.run_until(async {
        let waiting: Vec<_> = (0..QUERIES)
            .map(|_| {
                let (pool, answered) = (pool.clone(), answered.clone());
                fiberback::tokio::spawn_local(move || {
                    let mut connection = checkout(&pool).unwrap();
                    diesel::sql_query("SELECT pg_sleep(1)").execute(&mut connection).unwrap();
                    assert_eq!(std::thread::current().id(), here);
                    answered.set(answered.get() + 1);
                })
            })
            .collect();
        for task in waiting {
            task.await.unwrap();
        }
    });
    // If they did not overlap, the server would wait for ever.
    tokio::time::timeout(Duration::from_secs(300), all).await.expect("all wait together");
    assert_eq!(answered.get(), QUERIES);
    assert_eq!(sessions.most.load(Ordering::Relaxed), QUERIES);
    assert_eq!(sessions.connected.load(Ordering::Relaxed), QUERIES);
    assert_eq!(threads(), threads_before);
}
