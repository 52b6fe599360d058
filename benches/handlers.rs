//! Synchronous code behind axum on a multi-threaded runtime: `PinnedPool` against `spawn_blocking`, and against
//! native async code.
//!
//! ```text
//! cargo bench --bench handlers --features io,stream
//! ```
//!
//! * **Handlers**: requests over 1, 64 and 1,000 connections on loopback, each of which sends the next when it
//!   has the answer. What the handler waits for is a task of the runtime, twice, or a timer of 5 ms: `handler`
//!   in synchronous code on the pool, `blocking` in `spawn_blocking` with `Handle::block_on`, `async` natively.
//! * **Bodies**: 1 and 64 clients at once get 1 MiB each from synchronous code that writes 256 times 4 KiB, and
//!   waits 16 times for a task. `reader` is `PinnedPool::reader`; `blocking` writes on a `spawn_blocking` thread,
//!   through a `BufWriter` of 64 KiB and `SyncIoBridge`, to a pipe of 256 KiB that the body reads.
//!
//! Server, clients and pool share the machine: two workers for the server, two for the pool, one for all
//! clients. Times are for one request.
//!
//! Over a single connection a request is handed over to a thread that sleeps, and its answer back to another:
//! on an idle machine most of the time is that of processors that wake up, which virtual ones do slowly.
//! `spawn_blocking` makes more system calls for it (`strace -f -c`: 2.1 writes to event descriptors and 6.4
//! futex calls a request, where `handler` makes 1.4 and 0.4), and by them keeps more processors from sleeping.
//! So that is measured once more while threads that do nothing but yield keep the processors awake.

mod harness;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use fiberback::await_;
use fiberback::tokio::PinnedPool;
use harness::{Bench, in_earnest, runtimes};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio_util::io::{ReaderStream, SyncIoBridge};

const BODY: usize = 1 << 20;
const PIECE: [u8; 4096] = [b'x'; 4096];

async fn task() {
    tokio::spawn(async {}).await.expect("nobody panics");
}

async fn timer() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn write_body(mut to: impl Write, wait: impl Fn()) -> io::Result<()> {
    for piece in 0..BODY / PIECE.len() {
        if piece % 16 == 0 {
            wait();
        }
        to.write_all(&PIECE)?;
    }
    to.flush()
}

async fn body_on_a_thread() -> Body {
    let (read, write) = tokio::io::duplex(256 << 10);
    tokio::task::spawn_blocking(move || {
        let handle = Handle::current();
        let to = io::BufWriter::with_capacity(64 << 10, SyncIoBridge::new(write));
        write_body(to, || handle.block_on(task())).expect("somebody reads");
    });
    Body::from_stream(ReaderStream::with_capacity(read, 64 << 10))
}

async fn blocking<F>(wait: fn() -> F, times: usize) -> &'static str
where
    F: Future<Output = ()> + 'static,
{
    let waiting = tokio::task::spawn_blocking(move || {
        let handle = Handle::current();
        for _ in 0..times {
            handle.block_on(wait());
        }
    });
    waiting.await.expect("nobody panics");
    "done"
}

fn app(pool: &PinnedPool) -> Router {
    let bodies = pool.clone();
    Router::new()
        .route(
            "/task/handler",
            get(pool.handler(|()| {
                await_(task());
                await_(task());
                "done"
            })),
        )
        .route("/task/blocking", get(|| blocking(task, 2)))
        .route(
            "/task/async",
            get(|| async {
                task().await;
                task().await;
                "done"
            }),
        )
        .route(
            "/timer/handler",
            get(pool.handler(|()| {
                await_(timer());
                "done"
            })),
        )
        .route("/timer/blocking", get(|| blocking(timer, 1)))
        .route(
            "/timer/async",
            get(|| async {
                timer().await;
                "done"
            }),
        )
        .route(
            "/body/reader",
            get(move || async move {
                Body::from_stream(bodies.reader(|to| write_body(to, || await_(task()))))
            }),
        )
        .route("/body/blocking", get(body_on_a_thread))
}

/// One request, and its answer to the end. Returns the size of the answer's body.
async fn exchange(socket: &mut BufReader<TcpStream>, path: &str) -> io::Result<usize> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    socket.get_mut().write_all(request.as_bytes()).await?;
    let (mut line, mut length) = (String::new(), None);
    while line != "\r\n" {
        line.clear();
        socket.read_line(&mut line).await?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut bytes = Vec::new();
    if let Some(length) = length {
        bytes.resize(length, 0);
        socket.read_exact(&mut bytes).await?;
        return Ok(length);
    }
    let mut total = 0;
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        bytes.resize(size + 2, 0);
        socket.read_exact(&mut bytes).await?;
        total += size;
        if size == 0 {
            return Ok(total);
        }
    }
}

/// The time that `n` requests on each connection take, for one request.
fn load(
    clients: &Runtime,
    address: SocketAddr,
    connections: usize,
    path: &'static str,
    size: usize,
) -> impl FnMut(u64) -> Duration {
    let open = clients.block_on(async {
        let mut open = Vec::new();
        for _ in 0..connections {
            let socket = TcpStream::connect(address).await.expect("the server listens");
            socket.set_nodelay(true).expect("a socket");
            open.push(BufReader::with_capacity(64 << 10, socket));
        }
        open
    });
    let handle = clients.handle().clone();
    let mut open = Some(open);
    move |n| {
        let sockets = open.take().expect("put back");
        let began = Instant::now();
        let working: Vec<_> = sockets
            .into_iter()
            .map(|mut socket| {
                handle.spawn(async move {
                    for _ in 0..n {
                        let got = exchange(&mut socket, path).await.expect("an answer");
                        assert_eq!(got, size);
                    }
                    socket
                })
            })
            .collect();
        let sockets = fiberback::block_on(async {
            let mut sockets = Vec::new();
            for one in working {
                sockets.push(one.await.expect("nobody panics"));
            }
            sockets
        });
        open = Some(sockets);
        began.elapsed() / connections as u32
    }
}

/// Keeps the processors awake with threads that yield to all others, until it is dropped.
struct Awake {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Awake {
    fn new() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..count).map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })
        });
        Self { threads: threads.collect(), is_over }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only yields");
        }
    }
}

fn main() {
    let server = runtimes::multi_thread();
    let clients = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread");
    let pool = PinnedPool::builder().worker_threads(2).build().expect("two threads");
    let app = app(&pool);
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("a port");
    server.spawn(async { axum::serve(listener, app).await });

    let many = if in_earnest() { &[1, 64, 1000][..] } else { &[1, 8] };
    for (name, paths) in [
        ("two tasks", ["/task/handler", "/task/blocking", "/task/async"]),
        ("a timer of 5 ms", ["/timer/handler", "/timer/blocking", "/timer/async"]),
    ] {
        let idle = many.iter().map(|&connections| (connections, None));
        for (connections, awake) in idle.chain([(1, Some(", processors kept awake"))]) {
            let _awake = awake.map(|_| Awake::new());
            let mut bench = Bench::default();
            for path in paths {
                bench.case(path, load(&clients, address, connections, path, 4));
            }
            bench.measure(15);
            let awake = awake.unwrap_or_default();
            println!("\n{connections} connections, waiting for {name}{awake}: time for a request");
            bench.print_times();
            bench.print_ratio(paths[1], &[paths[0]], None);
            bench.print_ratio(paths[0], &[paths[2]], None);
        }
    }
    for &connections in &many[..2] {
        let mut bench = Bench::default();
        for path in ["/body/reader", "/body/blocking"] {
            bench.case(path, load(&clients, address, connections, path, BODY));
        }
        bench.measure(15);
        println!("\nbodies of 1 MiB, {connections} clients: time for a body");
        bench.print_times();
        bench.print_ratio("/body/blocking", &["/body/reader"], None);
    }
}
