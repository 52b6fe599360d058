//! `Send` futures, readers, writers, streams and sinks of synchronous code on a `PinnedPool`.
#![cfg(all(feature = "io", feature = "stream"))]

mod support;

use fiberback::io::{PinnedReader, PinnedWriter, await_error};
use fiberback::stream::{PinnedSink, PinnedStream};
use fiberback::tokio::{PinnedPool, PinnedRun};
use fiberback::{await_, try_await};
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::future::pending;
use std::io::{self, BufRead, Read, Write};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::yield_now;

fn pool() -> PinnedPool {
    PinnedPool::builder().worker_threads(1).build().unwrap()
}

const _: fn() = || {
    fn server_takes<T: Send + Unpin + 'static>() {}
    server_takes::<PinnedReader>();
    server_takes::<PinnedWriter>();
    server_takes::<PinnedStream<u8>>();
    server_takes::<PinnedSink<u8, io::Error>>();
    server_takes::<PinnedRun<u8>>();
};

/// Sends when dropped.
struct TellsDrop(mpsc::Sender<()>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn words(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(words) => *words,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "?".into(), |w| w.to_string()),
    }
}

/// What `future` panics with.
async fn panic_of<F: Future<Output: std::fmt::Debug>>(future: F) -> String {
    words(AssertUnwindSafe(future).catch_unwind().await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_returns_panics_and_is_aborted_when_dropped() {
    let pool = pool();
    let here = thread::current().id();
    let there = tokio::spawn(pool.run(|| {
        await_(yield_now());
        thread::current().id()
    }));
    assert_ne!(there.await.unwrap(), here);
    assert_eq!(panic_of(pool.run(|| panic!("on the pool"))).await, "on the pool");

    let (begun, has_begun) = oneshot::channel();
    let (dropped, was_dropped) = mpsc::channel();
    let run = pool.run(move || {
        let _guard = TellsDrop(dropped);
        begun.send(()).unwrap();
        await_(pending::<()>());
    });
    has_begun.await.unwrap();
    drop(run);
    was_dropped.recv().unwrap();

    pool.close();
    assert!(panic_of(pool.run(|| ())).await.contains("`PinnedPool` was closed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_a_function_of_its_request() {
    let double = pool().handler(|n: u32| {
        await_(yield_now());
        n * 2
    });
    let again = double.clone();
    assert_eq!(tokio::spawn(async move { double(1).await + again(20).await }).await.unwrap(), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_reads_what_the_code_writes() {
    let expected: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    let mut reader = pool().reader(|to| {
        for n in 0..100_000 {
            if n % 10_000 == 0 {
                await_(yield_now());
            }
            writeln!(to, "{n}")?;
        }
        Ok(())
    });
    let text = tokio::spawn(async move {
        let mut text = String::new();
        reader.read_line(&mut text).await?;
        // Both ways to read may be mixed.
        let chunk = reader.next().await.unwrap()?;
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        reader.read_to_string(&mut text).await?;
        assert!(reader.next().await.is_none());
        io::Result::Ok(text)
    });
    assert!(text.await.unwrap().unwrap() == expected);
}

#[tokio::test]
async fn what_is_flushed_can_be_read_while_the_code_waits() {
    let (go, gone) = oneshot::channel::<()>();
    let mut reader = pool().reader(|to| {
        to.write_all(b"first")?;
        to.flush()?;
        await_(gone).unwrap();
        to.write_all(b"second")
    });
    assert_eq!(reader.fill_buf().await.unwrap(), b"first");
    reader.consume(5);
    go.send(()).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"second");
}

#[tokio::test]
async fn the_code_of_a_reader_is_only_a_few_chunks_ahead() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let pool = pool();
    let mut reader = pool.reader(move |to| {
        for _ in 0..100 {
            to.write_all(&[0; 64 * 1024])?;
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    // Anything else on that thread has its turn only when the code waits.
    for _ in 0..10 {
        pool.run(|| await_(yield_now())).await;
    }
    assert!((4..=6).contains(&written.load(Ordering::SeqCst)), "{written:?}");
    let mut all = Vec::new();
    assert_eq!(reader.read_to_end(&mut all).await.unwrap(), 100 * 64 * 1024);
}

#[tokio::test]
async fn an_error_or_panic_of_the_code_comes_after_its_bytes() {
    let pool = pool();
    let mut failing = pool.reader(|to| {
        to.write_all(b"before")?;
        to.flush()?;
        Err(io::Error::new(io::ErrorKind::NotFound, "no such row"))
    });
    let mut bytes = Vec::new();
    let error = failing.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!((bytes.as_slice(), error.kind()), (b"before".as_slice(), io::ErrorKind::NotFound));
    assert_eq!(failing.read(&mut [0]).await.unwrap(), 0);

    let mut chunks = pool.reader(|to| {
        to.write_all(b"before")?;
        to.flush()?;
        panic!("in the code");
    });
    assert_eq!(chunks.next().await.unwrap().unwrap(), b"before");
    assert_eq!(panic_of(chunks.next()).await, "in the code");
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_reader_ends_its_code_wherever_it_waits() {
    let pool = pool();
    let (tell, told) = mpsc::channel();
    let mut writing = pool.reader(move |to| {
        let error = loop {
            if let Err(error) = to.write_all(&[0; 64 * 1024]) {
                break error;
            }
        };
        tell.send(await_error(&error).unwrap().is_cancelled()).unwrap();
        Err(error)
    });
    writing.read_exact(&mut [0; 10]).await.unwrap();
    drop(writing);
    assert!(told.recv().unwrap());

    let (dropped, was_dropped) = mpsc::channel();
    let mut waiting = pool.reader(move |to| {
        let _guard = TellsDrop(dropped);
        to.write_all(b"x")?;
        to.flush()?;
        await_(pending::<()>());
        Ok(())
    });
    waiting.read_exact(&mut [0]).await.unwrap();
    drop(waiting);
    was_dropped.recv().unwrap();
}

#[tokio::test]
async fn a_pool_that_is_closed_or_aborts_ends_nothing_silently() {
    let aborting = pool();
    let (begun, has_begun) = oneshot::channel();
    let mut reader = aborting.reader(move |to| {
        to.write_all(b"x")?;
        to.flush()?;
        begun.send(()).unwrap();
        await_(pending::<()>());
        Ok(())
    });
    let mut items = aborting.stream(|yielder| {
        yielder.yield_(1);
        await_(pending::<()>());
    });
    has_begun.await.unwrap();
    assert_eq!(items.next().await, Some(1));
    assert_eq!(aborting.shutdown_timeout(Duration::ZERO).await, 2);
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("shutdown_timeout"), "{error}");
    assert!(panic_of(items.next()).await.contains("shutdown_timeout"));

    assert!(aborting.reader(|_| Ok(())).read(&mut [0]).await.is_err());
    assert!(aborting.writer(|_| Ok(())).shutdown().await.is_err());
    assert!(
        panic_of(aborting.stream(|_: &_| ()).next().map(|_: Option<u8>| ()))
            .await
            .contains("closed")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writers_code_reads_what_is_written() {
    let (tell, told) = oneshot::channel();
    let mut writer = pool().writer(|mut from| {
        let mut first = String::new();
        from.read_line(&mut first)?;
        let mut rest = Vec::new();
        from.read_to_end(&mut rest)?;
        await_(yield_now());
        tell.send((first, rest.len())).map_err(|_| io::Error::other("nobody listens"))
    });
    tokio::spawn(async move {
        writer.write_all(b"one\n").await?;
        writer.write_all(&vec![7; 1 << 20]).await?;
        writer.flush().await?;
        writer.shutdown().await?;
        assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        writer.shutdown().await
    })
    .await
    .unwrap()
    .unwrap();
    assert_eq!(told.await.unwrap(), ("one\n".into(), 1 << 20));
}

#[tokio::test]
async fn a_flush_waits_until_the_code_asks_for_more() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut writer = pool().writer(move |mut from| {
        let mut byte = [0];
        while from.read(&mut byte)? == 1 {
            await_(yield_now());
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    writer.write_all(b"abc").await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(taken.load(Ordering::SeqCst), 3);
    writer.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_writers_code_may_fail_return_early_or_be_dropped() {
    let pool = pool();
    let mut failing = pool.writer(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "not gzip")));
    assert_eq!(failing.shutdown().await.unwrap_err().kind(), io::ErrorKind::InvalidData);

    let mut early = pool.writer(|mut from| from.read_exact(&mut [0; 2]));
    early.write_all(b"ab").await.unwrap();
    early.flush().await.unwrap();
    assert_eq!(early.write(b"c").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    early.shutdown().await.unwrap();

    let (tell, told) = mpsc::channel();
    let mut dropped = pool.writer(move |mut from| {
        let error = from.read_to_end(&mut Vec::new()).unwrap_err();
        tell.send(await_error(&error).unwrap().is_cancelled()).unwrap();
        Err(error)
    });
    dropped.write_all(b"x").await.unwrap();
    dropped.flush().await.unwrap();
    drop(dropped);
    // Not the end of the file: what was not shut down is not complete.
    assert!(told.recv().unwrap());

    // Nor where the code only gets to reading when all is dropped, and its abortion is on the way.
    let (tell, told) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let (drop_it, dropped) = mpsc::channel::<()>();
    let mut late = pool.writer(move |mut from| {
        begun.send(()).unwrap();
        dropped.recv().unwrap_err();
        let error = from.read_to_end(&mut Vec::new()).unwrap_err();
        tell.send(await_error(&error).unwrap().is_cancelled()).unwrap();
        Err(error)
    });
    begins.recv().unwrap();
    late.write_all(b"x").await.unwrap();
    drop(late);
    drop(drop_it);
    assert!(told.recv().unwrap());

    let mut panicking = pool.writer(|_| panic!("in the code"));
    assert_eq!(panic_of(panicking.shutdown()).await, "in the code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_yields_and_is_only_so_far_ahead() {
    let yielded = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&yielded);
    let pool = pool();
    let stream = pool.stream(move |yielder| {
        for n in 0..1000 {
            yielder.yield_(n);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    for _ in 0..10 {
        pool.run(|| await_(yield_now())).await;
    }
    assert_eq!(yielded.load(Ordering::SeqCst), 32);
    let all = tokio::spawn(stream.collect::<Vec<usize>>()).await.unwrap();
    assert!(all.into_iter().eq(0..1000));
}

#[tokio::test]
async fn a_stream_that_panics_or_is_dropped() {
    let pool = pool();
    let mut stream = pool.stream(|yielder| {
        yielder.yield_(1);
        panic!("in the code");
    });
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(panic_of(stream.next()).await, "in the code");
    assert_eq!(stream.next().await, None);

    let (tell, told) = mpsc::channel();
    let (dropped, was_dropped) = mpsc::channel();
    let mut polite = pool.stream(move |yielder| {
        let error = loop {
            if let Err(error) = yielder.try_yield(0) {
                break error;
            }
        };
        tell.send(error.is_cancelled()).unwrap();
    });
    let mut unwound = pool.stream(move |yielder| {
        let _guard = TellsDrop(dropped);
        loop {
            yielder.yield_(0);
        }
    });
    assert_eq!((polite.next().await, unwound.next().await), (Some(0), Some(0)));
    drop((polite, unwound));
    assert!(told.recv().unwrap());
    was_dropped.recv().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_flushed_and_closed() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut sink = pool().sink(move |items| {
        for item in items {
            await_(yield_now());
            count.fetch_add(item, Ordering::SeqCst);
        }
        await_(yield_now());
        count.fetch_add(1_000_000, Ordering::SeqCst);
        Ok::<_, io::Error>(())
    });
    tokio::spawn(async move {
        for item in 0..100 {
            sink.feed(item).await?;
        }
        sink.flush().await?;
        assert_eq!(taken.load(Ordering::SeqCst), 4950);
        sink.close().await?;
        assert_eq!(taken.load(Ordering::SeqCst), 1_004_950);
        sink.close().await
    })
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn a_sinks_code_may_fail_return_early_or_be_dropped() {
    let pool = pool();
    let mut failing = pool.sink(|mut items| Err(items.next().unwrap_or(0)));
    failing.feed(7).await.unwrap();
    assert_eq!(failing.close().await, Err(7));
    failing.close().await.unwrap();

    let mut early = pool.sink(|mut items| {
        assert_eq!(items.next(), Some(1));
        Ok::<_, ()>(())
    });
    for n in 1..100 {
        early.send(n).await.unwrap();
    }
    early.close().await.unwrap();

    let (tell, told) = mpsc::channel();
    let mut dropped = pool.sink(move |mut items| {
        assert_eq!(items.next(), Some(1));
        tell.send(try_await(pending::<()>()).unwrap_err().is_cancelled()).unwrap();
        Ok::<_, ()>(())
    });
    dropped.feed(1).await.unwrap();
    pool.run(|| await_(yield_now())).await;
    drop(dropped);
    assert!(told.recv().unwrap());

    // What was not closed does not come to an end, where its abortion is only on the way.
    let (tell, told) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let (drop_it, dropped) = mpsc::channel::<()>();
    let mut late = pool.sink(move |items| {
        begun.send(()).unwrap();
        dropped.recv().unwrap_err();
        tell.send(items.collect::<Vec<_>>()).unwrap();
        Ok::<_, ()>(())
    });
    begins.recv().unwrap();
    late.feed(1).await.unwrap();
    drop(late);
    drop(drop_it);
    assert!(told.recv().is_err());
}
