//! Async streams made of synchronous codecs, against what users take today: an async port of the
//! same codec, where there is one (`async-compression`), or a `spawn_blocking` thread between two
//! pipes (tokio-util's `SyncIoBridge`).
//!
//! ```text
//! cargo bench --features io --bench codecs
//! ```
//!
//! * **decode**: 16 MiB of text, compressed, comes through a duplex pipe in pieces of 1460 bytes, the
//!   payload of an Ethernet frame, and is read as an `AsyncRead` through `flate2::read::GzDecoder`.
//! * **encode**: the same text is written, 8 KiB at a time, to an `AsyncWrite` through
//!   `flate2::write::GzEncoder`, to a duplex pipe.
//! * **wrapper**: reads of 8 KiB from a duplex pipe, as they are and through an `AsyncReader` over a
//!   `SyncIo`, which do nothing: the price of both.
//!
//! Both of the first are bound by the processor. All sides use the same `flate2`. "thread" is on a
//! current-thread runtime, as ours is; "thread, mt" on one with two workers. Each case checks the
//! bytes that arrive by their number and their sum.

mod harness;

use async_compression::tokio::{bufread::GzipDecoder, write::GzipEncoder};
use fiberback::io::{AsyncReader, AsyncWriter, SyncIo};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use harness::runtimes::{current_thread, multi_thread};
use harness::{Bench, Target};
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex,
};
use tokio::runtime::Runtime;
use tokio_util::io::SyncIoBridge;

const PIPE: usize = 64 << 10;
const PIECE: usize = 8 << 10;
const FRAME: usize = 1460;

/// How many bytes, and their sum.
type Checksum = (u64, u64);

fn checksum(checksum: Checksum, bytes: &[u8]) -> Checksum {
    let sum = bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    (checksum.0 + bytes.len() as u64, checksum.1 + sum)
}

/// Lines that compress to a third.
fn text(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 64);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while text.len() < size {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        writeln!(text, "{},station-{:03},{:08}", text.len(), random % 997, random >> 40)
            .expect("memory does not fail");
    }
    text
}

async fn read_all(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Checksum> {
    let mut buffer = vec![0; PIECE];
    let mut total = (0, 0);
    loop {
        match source.read(&mut buffer).await? {
            0 => return Ok(total),
            count => total = checksum(total, &buffer[..count]),
        }
    }
}

async fn write_all(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        sink.write_all(piece).await?;
    }
    sink.shutdown().await
}

/// Sends `bytes` through a pipe, `size` at a time, and has `read` read them, `n` times over.
fn received<F: Future<Output = io::Result<Checksum>>>(
    runtime: &Runtime,
    n: u64,
    (bytes, size): (&Rc<[u8]>, usize),
    expected: Checksum,
    read: impl Fn(DuplexStream) -> F,
) -> Duration {
    let began = Instant::now();
    for _ in 0..n {
        let (near, mut far) = duplex(PIPE);
        let sending = async {
            for piece in bytes.chunks(size) {
                far.write_all(piece).await?;
            }
            far.shutdown().await
        };
        let (got, ()) = runtime
            .block_on(async { tokio::try_join!(read(near), sending) })
            .expect("a pipe does not fail");
        assert_eq!(got, expected);
    }
    began.elapsed()
}

/// Has `write` write to a pipe whose other end is read, `n` times over.
fn sent<F: Future<Output = io::Result<()>>>(
    runtime: &Runtime,
    n: u64,
    expected: Checksum,
    write: impl Fn(DuplexStream) -> F,
) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..n {
        let began = Instant::now();
        let (near, mut far) = duplex(PIPE);
        let mut compressed = Vec::new();
        runtime
            .block_on(async { tokio::try_join!(write(near), far.read_to_end(&mut compressed)) })
            .expect("a pipe does not fail");
        took += began.elapsed();
        let mut plain = Vec::new();
        GzDecoder::new(&compressed[..]).read_to_end(&mut plain).expect("what we sent");
        assert_eq!(checksum((0, 0), &plain), expected);
    }
    took
}

/// A decoder on a blocking thread, between two pipes.
async fn decode_on_thread(source: DuplexStream) -> io::Result<Checksum> {
    let (near, mut far) = duplex(PIPE);
    let decoding = tokio::task::spawn_blocking(move || {
        let mut near = SyncIoBridge::new(near);
        io::copy(&mut GzDecoder::new(SyncIoBridge::new(source)), &mut near)?;
        near.shutdown()
    });
    let got = read_all(&mut far).await?;
    decoding.await.expect("nobody panics")?;
    Ok(got)
}

/// An encoder on a blocking thread, between two pipes.
async fn encode_on_thread(sink: DuplexStream, bytes: &[u8]) -> io::Result<()> {
    let (mut near, far) = duplex(PIPE);
    let encoding = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(SyncIoBridge::new(sink), Compression::default());
        io::copy(&mut SyncIoBridge::new(far), &mut encoder)?;
        encoder.finish()?.shutdown()
    });
    write_all(&mut near, bytes).await?;
    encoding.await.expect("nobody panics")
}

/// An encoder on fibers.
async fn encode_on_fiber(sink: DuplexStream, bytes: &[u8]) -> io::Result<()> {
    let encoder = GzEncoder::new(SyncIo::new(sink), Compression::default());
    let mut writer = AsyncWriter::new(encoder).on_shutdown(|encoder| {
        encoder.try_finish()?;
        encoder.get_mut().shutdown()
    });
    write_all(&mut writer, bytes).await
}

fn compare_decoders(plain: &[u8]) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory does not fail");
    let compressed: Rc<[u8]> = encoder.finish().expect("memory does not fail").into();
    let (source, sum) = ((&compressed, FRAME), checksum((0, 0), plain));
    let ours = |pipe| async {
        let open = move || Ok(GzDecoder::new(SyncIo::new(pipe)));
        read_all(&mut AsyncReader::open(open)).await
    };
    let port = |pipe| async { read_all(&mut GzipDecoder::new(BufReader::new(pipe))).await };
    let (runtime, workers) = (current_thread(), multi_thread());
    let mut bench = Bench::default();
    bench.case("fiber", |n| received(&runtime, n, source, sum, ours));
    bench.case("async port", |n| received(&runtime, n, source, sum, port));
    bench.case("thread", |n| received(&runtime, n, source, sum, decode_on_thread));
    bench.case("thread, mt", |n| received(&workers, n, source, sum, decode_on_thread));
    report("decode gzip, 16 MiB of text in pieces of 1460 bytes", bench, 21);
}

fn compare_encoders(plain: &[u8]) {
    let sum = checksum((0, 0), plain);
    let ours = |pipe| encode_on_fiber(pipe, plain);
    let port = |pipe| async { write_all(&mut GzipEncoder::new(pipe), plain).await };
    let thread = |pipe| encode_on_thread(pipe, plain);
    let (runtime, workers) = (current_thread(), multi_thread());
    let mut bench = Bench::default();
    bench.case("fiber", |n| sent(&runtime, n, sum, ours));
    bench.case("async port", |n| sent(&runtime, n, sum, port));
    bench.case("thread", |n| sent(&runtime, n, sum, thread));
    bench.case("thread, mt", |n| sent(&workers, n, sum, thread));
    report("encode gzip, 4 MiB of text in writes of 8 KiB", bench, 11);
}

fn report(title: &str, mut bench: Bench<'_>, rounds: usize) {
    bench.measure(rounds);
    println!("{title}: median");
    bench.print_times();
    for peer in ["async port", "thread", "thread, mt"] {
        bench.print_ratio("fiber", &[peer], Some(Target::AtMost(1.05)));
    }
    println!();
}

fn compare_wrapper(bytes: &[u8]) {
    let bytes: Rc<[u8]> = bytes.into();
    let (source, sum) = ((&bytes, PIECE), checksum((0, 0), &bytes));
    let ours = |pipe| async { read_all(&mut AsyncReader::new(SyncIo::new(pipe))).await };
    let native = |mut pipe| async move { read_all(&mut pipe).await };
    let runtime = current_thread();
    let mut bench = Bench::default();
    bench.case("wrapped", |n| received(&runtime, n, source, sum, ours));
    bench.case("native", |n| received(&runtime, n, source, sum, native));
    bench.measure(41);
    let reads = bytes.len() as f64 / PIECE as f64;
    let more = (bench.nanoseconds("wrapped") - bench.nanoseconds("native")) / reads;
    println!("wrapper, 16 MiB in pieces of 8 KiB: median");
    bench.print_times();
    println!("a read of 8 KiB through both wrappers: {} more", harness::show(more));
}

fn main() {
    let scale = if harness::in_earnest() { 1 } else { 64 };
    compare_decoders(&text((16 << 20) / scale));
    compare_encoders(&text((4 << 20) / scale));
    compare_wrapper(&text((16 << 20) / scale));
}
