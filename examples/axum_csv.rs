//! A response body of gzip-ed CSV, made by synchronous code, in axum on the default multi-threaded runtime.
//!
//! ```text
//! cargo run --release --example axum_csv --features io,stream
//! ```
//!
//! `csv` and `flate2` write to any `std::io::Write`, and know nothing of async. On a server one either gives
//! them a thread for each request (`spawn_blocking` and a bridge), or all of the body at once, in memory. Here
//! they write to the body itself: where the client reads slowly, or the next rows are not there yet, the
//! synchronous code waits on its fiber, and the thread makes other bodies meanwhile.
//!
//! The program serves one body of at least 64 MiB of CSV to a client, which checks every row, and counts the
//! requests that the same server answers meanwhile.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::{Router, get};
use fiberback::await_;
use fiberback::io::SyncIo;
use fiberback::tokio::PinnedPool;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Rows that the database sends at once.
const PAGE: u64 = 500;

/// What stands for a query: the next page arrives some time later.
async fn next_page(first: u64) -> Vec<(u64, u64)> {
    tokio::time::sleep(Duration::from_micros(50)).await;
    (first..first + PAGE).map(|id| (id, amount(id))).collect()
}

/// Some number that does not compress too well.
fn amount(id: u64) -> u64 {
    (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// Ordinary synchronous code: writes rows, page by page, until there are `bytes` of them.
fn export(to: impl Write, bytes: u64) -> io::Result<()> {
    let mut written = 0;
    let mut rows = csv::Writer::from_writer(GzEncoder::new(to, Compression::fast()));
    rows.write_record(["id", "amount", "comment"])?;
    for page in (0..).step_by(PAGE as usize) {
        if written >= bytes {
            break;
        }
        for (id, amount) in await_(next_page(page)) {
            let fields = [id.to_string(), amount.to_string(), format!("row, \"{id}\" of many")];
            written += fields.iter().map(|field| field.len() as u64 + 1).sum::<u64>();
            rows.write_record(fields)?;
        }
    }
    rows.into_inner().map_err(|error| error.into_error())?.finish()?.flush()
}

/// The handler: the body is what the synchronous code writes.
async fn download(pool: PinnedPool, bytes: u64) -> impl IntoResponse {
    let body = Body::from_stream(pool.reader(move |to| export(to, bytes)));
    ([(CONTENT_TYPE, "text/csv"), (CONTENT_ENCODING, "gzip")], body)
}

/// What one client has seen of a body, and another of the server meanwhile.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) rows: u64,
    pub(crate) text: u64,
    pub(crate) compressed: u64,
    /// Answers of the same server to small requests, while the body was made.
    pub(crate) pings: u64,
    pub(crate) took: Duration,
}

async fn request(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    // Version 1.0: neither chunks nor another request.
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    Ok(socket)
}

/// Counts what goes through.
struct Counted<R>(R, u64);

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1 += count as u64;
        Ok(count)
    }
}

/// Reads a body, on a fiber, and checks each row. Returns rows, bytes of text, and bytes of the body.
fn check(socket: TcpStream) -> Result<(u64, u64, u64), Failure> {
    let mut socket = BufReader::new(SyncIo::new(socket));
    let mut line = String::new();
    socket.read_line(&mut line)?;
    if !line.contains("200 OK") {
        return Err(line.into());
    }
    while line != "\r\n" {
        line.clear();
        socket.read_line(&mut line)?;
    }
    let mut text = Counted(GzDecoder::new(Counted(socket, 0)), 0);
    let mut count = 0;
    let mut rows = csv::Reader::from_reader(&mut text);
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row)? {
        let id: u64 = row[0].parse()?;
        if id != count || row[1].parse() != Ok(amount(id)) || !row[2].contains('"') {
            return Err(format!("row {count} is {row:?}").into());
        }
        count += 1;
    }
    drop(rows);
    Ok((count, text.1, text.0.get_ref().1))
}

/// Serves, downloads `bytes` of CSV, and returns what was seen.
pub(crate) async fn serve_and_download(bytes: u64) -> Result<Outcome, Failure> {
    let pool = PinnedPool::builder().worker_threads(1).thread_name("bodies").build()?;
    let bodies = pool.clone();
    let app: Router = Router::new()
        .route(
            "/export/{bytes}",
            get(move |Path(bytes): Path<u64>| download(bodies.clone(), bytes)),
        )
        // A synchronous handler in one line.
        .route("/ping", get(pool.handler(|()| await_(async { "pong" }))));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let served = axum::serve(listener, app);
        tokio::select! { served = served => served, _ = stopped => Ok(()) }
    });

    let began = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));
    let pinging = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut pings = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut answer = String::new();
                request(address, "/ping").await?.read_to_string(&mut answer).await?;
                assert!(answer.ends_with("pong"), "{answer}");
                pings += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            io::Result::Ok(pings)
        }
    });
    let socket = request(address, &format!("/export/{bytes}")).await?;
    let client = PinnedPool::builder().worker_threads(1).build()?;
    let (rows, text, compressed) = client.run(move || check(socket)).await?;
    let took = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let pings = pinging.await??;
    let _ = stop.send(());
    server.await??;
    Ok(Outcome { rows, text, compressed, pings, took })
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Outcome { rows, text, compressed, pings, took } = serve_and_download(64 << 20).await?;
    println!("rows            {rows}, each as it must be");
    println!("CSV             {:.1} MiB", text as f64 / f64::from(1 << 20));
    println!("body            {:.1} MiB, gzip-ed", compressed as f64 / f64::from(1 << 20));
    println!("time            {:.2} s", took.as_secs_f64());
    println!("other requests  {pings} answered meanwhile, by the same thread that made the body");
    Ok(())
}
