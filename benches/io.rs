//! Synchronous readers over async sources, against what users take today: tokio-util's
//! `SyncIoBridge` on a `spawn_blocking` thread.
//!
//! ```text
//! cargo bench --features io --bench io            # all
//! cargo bench --features io --bench io -- csv     # those with "csv" in their title
//! ```
//!
//! * **raw**: reads of 8 KiB from a tokio duplex pipe of 64 KiB, filled by an async task of the same
//!   runtime in pieces of 8 KiB; 16 MiB in all. A native async reader for comparison.
//! * **csv**: a CSV file of 64 MiB over loopback TCP, read with `csv` at its defaults. Two servers,
//!   both with all at hand: a task of the same runtime that sends pieces of 8 KiB, and a thread that
//!   stands for another machine. The reader seldom waits, so this is bound by the processor, and what
//!   is to be had is bounded: next to the ratio stands that of a reader which costs nothing. For what
//!   a thread sends, that is the blocking original, `std::net::TcpStream`; otherwise the sum of the
//!   parser alone (over memory) and of the bytes alone (over TCP, not parsed).
//! * **csv, many connections**: 64 at once, each of which gets 1 MiB of CSV in pieces of 1460 bytes,
//!   the payload of an Ethernet frame, as they come: from a thread that serves them in turn. The
//!   readers wait for nearly every piece, as servers do. Also the processor time of all threads but
//!   the sender's: what is left for other work.
//! * **gzip**: 16 MiB of text, compressed, over loopback TCP from such a thread, through `flate2`:
//!   bound by the processor.
//! * **small reads**: a duplex pipe as in raw, but one byte at a time, which `BufReader` would avoid
//!   and some code does: the price of one ready operation.
//!
//! `SyncIoBridge` is measured on both kinds of runtime: "bridge" on a current-thread one, like ours,
//! "bridge, mt" on one with two workers. Its blocking thread is warm. A fiber needs one thread. Each
//! case checks the sum of the bytes it read.

mod harness;

use fiberback::io::SyncIo;
use fiberback::run;
use harness::runtimes::{current_thread, multi_thread};
use harness::{Bench, Target};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::io::SyncIoBridge;

type Source = fn(&mut dyn Read) -> io::Result<u64>;

const RAW: usize = 16 << 20;
const PIECE: usize = 8 << 10;

/// Drives the future on a fresh thread: where more runs than there are processors, a scheduler
/// prefers threads that have slept, like the bridge's, to one that is always busy, and our figures
/// would tell of that.
fn on_a_thread<F: Future<Output = Duration>>(
    runtime: &Runtime,
    future: impl FnOnce() -> F + Send,
) -> Duration {
    thread::scope(|scope| scope.spawn(|| runtime.block_on(future())).join().expect("nobody panics"))
}

/// Reads 8 KiB at a time and adds up what came.
fn read_raw(source: &mut dyn Read) -> io::Result<u64> {
    let mut buffer = [0; PIECE];
    let mut total = 0;
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += black_box(&buffer[..count]).len() as u64,
        }
    }
}

fn read_bytes(source: &mut dyn Read) -> io::Result<u64> {
    let mut byte = [0];
    let mut total = 0;
    while source.read(&mut byte)? > 0 {
        total += u64::from(byte[0]);
    }
    Ok(total)
}

fn read_csv(source: &mut dyn Read) -> io::Result<u64> {
    let mut reader = csv::Reader::from_reader(source);
    let mut record = csv::ByteRecord::new();
    let mut total = 0;
    while reader.read_byte_record(&mut record)? {
        total += record.iter().map(|field| field.len() as u64).sum::<u64>();
    }
    Ok(total)
}

fn read_gzip(source: &mut dyn Read) -> io::Result<u64> {
    read_raw(&mut flate2::read::GzDecoder::new(source))
}

/// On a fiber.
async fn fiber(source: impl AsyncRead + Unpin + 'static, read: Source) -> u64 {
    run(move || read(&mut SyncIo::new(source))).await.expect("the source does not fail")
}

/// On a blocking thread.
async fn bridge(source: impl AsyncRead + Unpin + Send + 'static, read: Source) -> u64 {
    let reading = tokio::task::spawn_blocking(move || read(&mut SyncIoBridge::new(source)));
    reading.await.expect("nobody panics").expect("the source does not fail")
}

/// The blocking original, on the runtime's own thread. Only for what another thread sends.
async fn blocking(source: TcpStream, read: Source) -> u64 {
    let mut source = source.into_std().expect("a socket");
    source.set_nonblocking(false).expect("a socket");
    read(&mut source).expect("the source does not fail")
}

/// As an async reader does it.
async fn native(mut source: DuplexStream, _: Source) -> u64 {
    let mut buffer = [0; PIECE];
    let mut total = 0;
    loop {
        match source.read(&mut buffer).await.expect("a pipe does not fail") {
            0 => return total,
            count => total += black_box(&buffer[..count]).len() as u64,
        }
    }
}

/// Through a pipe, `n` times over.
async fn piped<F: Future<Output = u64>>(
    n: u64,
    bytes: Arc<[u8]>,
    expected: u64,
    read: Source,
    side: impl Fn(DuplexStream, Source) -> F,
) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let bytes = Arc::clone(&bytes);
        let writing = tokio::spawn(async move {
            for piece in bytes.chunks(PIECE) {
                far.write_all(piece).await.expect("somebody reads");
            }
        });
        assert_eq!(side(near, read).await, expected);
        writing.await.expect("nobody panics");
    }
    began.elapsed()
}

#[derive(Clone, Copy)]
enum Server {
    /// A task of the runtime that has all at hand.
    Task,
    /// Another machine that has all at hand.
    Thread,
}

/// Over TCP, `n` times over.
async fn over_tcp<F: Future<Output = u64>>(
    n: u64,
    bytes: Arc<[u8]>,
    expected: u64,
    read: Source,
    server: Server,
    side: impl Fn(TcpStream, Source) -> F,
) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        let bytes = Arc::clone(&bytes);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let got = match server {
            Server::Task => {
                let serving = tokio::spawn(async move {
                    let (mut socket, _) = listener.accept().await.expect("somebody connects");
                    for piece in bytes.chunks(PIECE) {
                        socket.write_all(piece).await.expect("somebody reads");
                    }
                });
                let socket = TcpStream::connect(address).await.expect("it listens");
                let got = side(socket, read).await;
                serving.await.expect("nobody panics");
                got
            }
            Server::Thread => {
                let socket = TcpStream::connect(address).await.expect("it listens");
                let (served, _) = listener.accept().await.expect("somebody connects");
                let mut served = served.into_std().expect("a socket");
                served.set_nonblocking(false).expect("a socket");
                let serving = thread::spawn(move || served.write_all(&bytes));
                let got = side(socket, read).await;
                serving.join().expect("nobody panics").expect("somebody reads");
                got
            }
        };
        assert_eq!(got, expected);
    }
    began.elapsed()
}

fn expected(bytes: &[u8], read: Source) -> u64 {
    read(&mut &bytes[..]).expect("memory does not fail")
}

/// Is there a word on the command line, and not in the title?
fn is_wanted(title: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    words.peek().is_none() || words.any(|word| title.contains(&word))
}

fn compare_pipe(
    title: &str,
    bytes: Vec<u8>,
    read: Source,
    against_native: bool,
    target: Option<Target>,
) {
    if !is_wanted(title) {
        return;
    }
    let sum = expected(&bytes, read);
    let bytes: Arc<[u8]> = bytes.into();
    let bytes = &bytes;
    let mut bench = Bench::default();
    bench.case("fiber", {
        let runtime = current_thread();
        move |n| on_a_thread(&runtime, || piped(n, Arc::clone(bytes), sum, read, fiber))
    });
    bench.case("bridge", {
        let runtime = current_thread();
        move |n| on_a_thread(&runtime, || piped(n, Arc::clone(bytes), sum, read, bridge))
    });
    bench.case("bridge, mt", {
        let runtime = multi_thread();
        move |n| on_a_thread(&runtime, || piped(n, Arc::clone(bytes), sum, read, bridge))
    });
    if against_native {
        bench.case("native", {
            let runtime = current_thread();
            move |n| on_a_thread(&runtime, || piped(n, Arc::clone(bytes), sum, read, native))
        });
    }
    bench.measure(41);
    println!("{title}: median");
    bench.print_times();
    bench.print_ratio("bridge", &["fiber"], target);
    bench.print_ratio("bridge, mt", &["fiber"], target);
    if against_native {
        bench.print_ratio("fiber", &["native"], None);
    }
    println!();
}

fn compare_tcp(
    title: &str,
    bytes: Vec<u8>,
    read: Source,
    server: Server,
    at_least: Option<f64>,
    at_most: Option<f64>,
    rounds: usize,
) {
    let is_csv = at_least.is_some();
    if !is_wanted(title) {
        return;
    }
    let sum = expected(&bytes, read);
    let bytes: Arc<[u8]> = bytes.into();
    let bytes = &bytes;
    let mut bench = Bench::default();
    bench.case("fiber", {
        let runtime = current_thread();
        move |n| on_a_thread(&runtime, || over_tcp(n, Arc::clone(bytes), sum, read, server, fiber))
    });
    bench.case("bridge", {
        let runtime = current_thread();
        move |n| on_a_thread(&runtime, || over_tcp(n, Arc::clone(bytes), sum, read, server, bridge))
    });
    bench.case("bridge, mt", {
        let runtime = multi_thread();
        move |n| on_a_thread(&runtime, || over_tcp(n, Arc::clone(bytes), sum, read, server, bridge))
    });
    let floor: &[&str] = match server {
        _ if !is_csv => &[],
        Server::Thread => {
            let runtime = current_thread();
            bench.case("std", move |n| {
                let bytes = Arc::clone(bytes);
                on_a_thread(&runtime, || over_tcp(n, bytes, sum, read, server, blocking))
            });
            &["std"]
        }
        Server::Task => {
            bench.case("parser alone", |n| {
                let began = Instant::now();
                for _ in 0..n {
                    assert_eq!(expected(bytes, read), sum);
                }
                began.elapsed()
            });
            let runtime = current_thread();
            let (read, sum): (Source, _) = (read_raw, bytes.len() as u64);
            bench.case("bytes alone", move |n| {
                let bytes = Arc::clone(bytes);
                on_a_thread(&runtime, || over_tcp(n, bytes, sum, read, server, fiber))
            });
            &["parser alone", "bytes alone"]
        }
    };
    bench.measure(rounds);
    println!("{title}: median");
    bench.print_times();
    for peer in ["bridge", "bridge, mt"] {
        if at_most.is_some() {
            bench.print_ratio("fiber", &[peer], at_most.map(Target::AtMost));
        } else {
            bench.print_ratio(peer, &["fiber"], at_least.map(Target::AtLeast));
            bench.print_ratio(peer, floor, None);
        }
    }
    println!();
}

/// What something took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// Processor time; zero where the system does not tell.
    processor: Duration,
}

/// Processor time of all threads that there are now.
fn processor_time() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let nanoseconds = threads.filter_map(|thread| {
        let times = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

const CONNECTIONS: usize = 64;
const FRAME: usize = 1460;

/// Connects, has a thread send `bytes` to all in turn, and waits for all readers.
async fn many<J: Future<Output = u64>>(
    bytes: Arc<[u8]>,
    expected: u64,
    start: impl Fn(TcpStream) -> J,
) -> Cost {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        near.push(TcpStream::connect(address).await.expect("it listens"));
        let (socket, _) = listener.accept().await.expect("somebody connects");
        let socket = socket.into_std().expect("a socket");
        socket.set_nonblocking(false).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        far.push(socket);
    }
    let (processor, began) = (processor_time(), Instant::now());
    let sending = thread::spawn(move || {
        for piece in bytes.chunks(FRAME) {
            for socket in &mut far {
                socket.write_all(piece).expect("somebody reads");
            }
        }
    });
    let reading: Vec<_> = near.into_iter().map(start).collect();
    for read in reading {
        assert_eq!(read.await, expected);
    }
    let wall = began.elapsed();
    // Its time goes with it.
    sending.join().expect("somebody reads");
    Cost { wall, processor: processor_time().saturating_sub(processor) }
}

/// Drives [`many`] as [`on_a_thread`] does.
fn many_on_a_thread<F: Future<Output = Cost>>(
    runtime: &Runtime,
    future: impl FnOnce() -> F + Send,
) -> Cost {
    let local = async || tokio::task::LocalSet::new().run_until(future()).await;
    thread::scope(|scope| scope.spawn(|| runtime.block_on(local())).join().expect("nobody panics"))
}

async fn joined(task: tokio::task::JoinHandle<io::Result<u64>>) -> u64 {
    task.await.expect("nobody panics").expect("the source does not fail")
}

fn compare_many(title: &str, bytes: Vec<u8>, read: Source, at_least: f64, rounds: usize) {
    if !is_wanted(title) {
        return;
    }
    let sum = expected(&bytes, read);
    let bytes: Arc<[u8]> = bytes.into();
    let (ours, theirs, multi) = (current_thread(), current_thread(), multi_thread());
    let pool = fiberback::tokio::PinnedPool::builder().worker_threads(2).build();
    let pool = pool.expect("two threads");
    let fibers = || {
        let start =
            |socket| joined(fiberback::tokio::spawn_local(move || read(&mut SyncIo::new(socket))));
        many_on_a_thread(&ours, || many(Arc::clone(&bytes), sum, start))
    };
    let pinned = || {
        let start = |socket: TcpStream| {
            // Each worker waits for its own sockets.
            let socket = socket.into_std().expect("a socket");
            joined(pool.spawn(move || read(&mut SyncIo::new(TcpStream::from_std(socket)?))))
        };
        many_on_a_thread(&multi, || many(Arc::clone(&bytes), sum, start))
    };
    let bridges = |runtime: &Runtime| {
        let start = |socket| {
            joined(tokio::task::spawn_blocking(move || read(&mut SyncIoBridge::new(socket))))
        };
        many_on_a_thread(runtime, || many(Arc::clone(&bytes), sum, start))
    };
    let names = ["fiber", "PinnedPool, 2 workers", "bridge", "bridge, mt"];
    let mut samples = vec![Vec::new(); names.len()];
    let rounds = if harness::in_earnest() { rounds } else { 1 };
    // The first round is for the threads and stacks to be there.
    for round in 0..=rounds {
        let costs = [fibers(), pinned(), bridges(&theirs), bridges(&multi)];
        if round > 0 {
            samples.iter_mut().zip(costs).for_each(|(samples, cost)| samples.push(cost));
        }
    }
    let wall = |cost: &Cost| cost.wall.as_nanos() as f64;
    let processor = |cost: &Cost| cost.processor.as_nanos() as f64;
    println!("{title}: median");
    for (name, samples) in names.iter().zip(&samples) {
        println!(
            "{name:21}  {:>10}, processor {:>10}",
            harness::show(harness::median(samples.iter().map(wall).collect())),
            harness::show(harness::median(samples.iter().map(processor).collect())),
        );
    }
    for (peer, us, target) in [(2, 0, Some(at_least)), (3, 0, Some(at_least)), (3, 1, None)] {
        let ratio = |of: fn(&Cost) -> f64| {
            let ratios = samples[peer].iter().zip(&samples[us]).map(|(a, b)| of(a) / of(b));
            harness::median(ratios.collect())
        };
        let (time, work) = (ratio(wall), ratio(processor));
        let verdict = target.map_or(String::new(), |least| Target::AtLeast(least).verdict(time));
        println!("{} / {}: {time:.2}, processor {work:.2}{verdict}", names[peer], names[us]);
    }
    println!();
}

/// Rows of some fields, about so many bytes.
fn csv_file(size: usize) -> Vec<u8> {
    let mut file = b"id,station,celsius,hectopascal,remark\n".to_vec();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for id in 0.. {
        if file.len() >= size {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (station, celsius) = (random % 997, (random >> 10) % 600);
        let (pressure, remark) = (950 + (random >> 20) % 100, random >> 40);
        let celsius = celsius as f64 / 10.0;
        writeln!(file, "{id},station-{station:03},{celsius:.1},{pressure},remark {remark:08}")
            .expect("memory does not fail");
    }
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

fn main() {
    let scale = if harness::in_earnest() { 1 } else { 16 };
    compare_pipe(
        "raw reads of 8 KiB over a duplex pipe, 16 MiB",
        vec![1; RAW / scale],
        read_raw,
        true,
        Some(Target::AtLeast(2.0)),
    );
    let csv = csv_file((64 << 20) / scale);
    for (title, server, target) in [
        ("csv over loopback TCP, sent by a task of the runtime, 64 MiB", Server::Task, 1.2),
        ("csv over loopback TCP, sent by a thread, 64 MiB", Server::Thread, 1.2),
    ] {
        compare_tcp(title, csv.clone(), read_csv, server, Some(target), None, 15);
    }
    compare_many(
        "csv over 64 connections at once, 1 MiB each in pieces of 1460 bytes",
        csv_file((1 << 20) / scale),
        read_csv,
        1.2,
        15,
    );
    compare_tcp(
        "gzip over loopback TCP from a thread, 16 MiB of text",
        gzip(&csv_file((16 << 20) / scale)),
        read_gzip,
        Server::Thread,
        None,
        Some(1.05),
        41,
    );
    compare_pipe(
        "reads of one byte over a duplex pipe, 64 KiB",
        vec![1; 64 << 10],
        read_bytes,
        false,
        None,
    );
}
