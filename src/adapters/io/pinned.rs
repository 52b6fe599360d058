//! Readers and writers whose synchronous code runs on a `PinnedPool`, for any thread.

use super::error::cannot_wait;
use crate::adapters::tokio::PinnedPool;
use crate::adapters::tokio::call::Owned;
use crate::adapters::tokio::handover::{Giver, Taker, handover};
use crate::bridge::try_await;
use std::future::{pending, poll_fn};
use std::io::{self, BufRead, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are handed over at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may be on their way.
const CAPACITY: usize = 4;

impl PinnedPool {
    /// The bytes that synchronous code writes, on a thread of the pool, as a `Send` [`AsyncRead`]; with the
    /// feature `stream` also as a stream of chunks, which axum's and hyper's bodies take.
    ///
    /// The code begins at once. It is handed a [`ByteSender`] to write to, and waits there while four chunks
    /// are not read yet; bytes are handed over when there are 64 KiB of them, when it flushes, and at its end.
    ///
    /// ```
    /// use flate2::write::GzEncoder;
    /// use std::io::Write;
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let mut body = pool.reader(|to| {
    ///     let mut gzip = GzEncoder::new(to, flate2::Compression::fast());
    ///     for row in 0..1000 {
    ///         if row % 100 == 0 {
    ///             fiberback::await_(tokio::task::yield_now()); // the next page of a query
    ///         }
    ///         writeln!(gzip, "{row}")?;
    ///     }
    ///     gzip.finish()?;
    ///     Ok(())
    /// });
    /// // For instance axum::body::Body::from_stream(body)
    /// let mut compressed = Vec::new();
    /// body.read_to_end(&mut compressed).await?;
    /// # let mut text = String::new();
    /// # std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut text)?;
    /// # assert_eq!(text.lines().count(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that `write` returns, once, after the bytes before it; then the end. An error, too, if the pool
    /// is closed, or has aborted the job.
    ///
    /// # Panics
    ///
    /// The poll panics with the panic of `write`, after the bytes before it that were handed over.
    ///
    /// # Cancellation
    ///
    /// Dropping the reader aborts the job: a write or flush of the code returns an error, and any other wait
    /// unwinds or returns one.
    #[track_caller]
    pub fn reader<F>(&self, write: F) -> PinnedReader
    where
        F: FnOnce(&mut ByteSender) -> io::Result<()> + Send + 'static,
    {
        let (giver, taker) = handover(CAPACITY);
        let job = self.spawn(move || {
            let mut sender = ByteSender { chunks: giver, filling: Vec::new() };
            write(&mut sender)?;
            sender.flush()
        });
        PinnedReader { chunks: taker, current: Vec::new(), start: 0, job: Some(Owned(job)) }
    }

    /// A `Send` [`AsyncWrite`] whose bytes synchronous code reads, on a thread of the pool.
    ///
    /// The code begins at once. It is handed a [`ByteReceiver`], which waits for bytes. Up to four writes may be
    /// on their way, each of 64 KiB at most (many small ones are better made through tokio's `BufWriter`); a flush is ready when the code has taken all of them and asks for more, and a shutdown when it
    /// has returned.
    ///
    /// ```
    /// use std::io::BufRead;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// # let pool = fiberback::tokio::PinnedPool::builder().worker_threads(1).build()?;
    /// let (tell, lines) = tokio::sync::oneshot::channel();
    /// let mut upload = pool.writer(|from| {
    ///     let _ = tell.send(from.lines().collect::<Result<Vec<_>, _>>()?);
    ///     Ok(())
    /// });
    /// upload.write_all(b"one\ntwo\n").await?;
    /// upload.shutdown().await?;
    /// assert_eq!(lines.await.unwrap(), ["one", "two"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that `read` returns, once, from the next operation; [`BrokenPipe`](io::ErrorKind::BrokenPipe)
    /// for a write after the code has returned, or after a shutdown. An error, too, if the pool is closed, or
    /// has aborted the job.
    ///
    /// # Panics
    ///
    /// The poll panics with the panic of `read`.
    ///
    /// # Cancellation
    ///
    /// Dropping the writer aborts the job, unless a shutdown was ready: a read of the code returns an error, and
    /// any other wait unwinds or returns one.
    #[track_caller]
    pub fn writer<F>(&self, read: F) -> PinnedWriter
    where
        F: FnOnce(ByteReceiver) -> io::Result<()> + Send + 'static,
    {
        let (giver, taker) = handover(CAPACITY);
        let receiver = ByteReceiver { chunks: taker, current: Vec::new(), start: 0 };
        let job = self.spawn(move || read(receiver));
        PinnedWriter { chunks: Some(giver), job: Some(Owned(job)) }
    }
}

/// What the code of [`PinnedPool::reader`] writes to.
///
/// # Errors
///
/// A write or flush that has to wait when the reader is dropped returns an error, in which
/// [`await_error`](super::await_error) finds the cancellation.
pub struct ByteSender {
    chunks: Giver<Vec<u8>>,
    filling: Vec<u8>,
}

impl Write for ByteSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filling.len() >= CHUNK {
            self.flush()?;
        }
        if self.filling.capacity() == 0 {
            self.filling.reserve_exact(CHUNK);
        }
        let taken = bytes.len().min(CHUNK - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Hands over what was written. Does not wait until it is read.
    fn flush(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let room = try_await(poll_fn(|context| self.chunks.poll_ready(context)));
        if room.map_err(cannot_wait)?.is_err() {
            // Nobody reads any more: the job has been aborted, or is about to be.
            try_await(pending::<()>()).map_err(cannot_wait)?;
        }
        self.chunks.give(mem::take(&mut self.filling));
        Ok(())
    }
}

impl fmt::Debug for ByteSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteSender").finish_non_exhaustive()
    }
}

/// What the code of [`PinnedPool::writer`] reads from; at its end when the writer is shut down.
///
/// # Errors
///
/// A read that waits when the writer is dropped returns an error, in which
/// [`await_error`](super::await_error) finds the cancellation.
pub struct ByteReceiver {
    chunks: Taker<Vec<u8>>,
    current: Vec<u8>,
    start: usize,
}

impl BufRead for ByteReceiver {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.current.len() {
            let next = try_await(poll_fn(|context| self.chunks.poll_take(context)));
            self.current = next.map_err(cannot_wait)?.unwrap_or_default();
            self.start = 0;
        }
        Ok(&self.current[self.start..])
    }

    fn consume(&mut self, amount: usize) {
        assert!(amount <= self.current.len() - self.start, "consumed more than there is");
        self.start += amount;
    }
}

impl Read for ByteReceiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl fmt::Debug for ByteReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteReceiver").finish_non_exhaustive()
    }
}

type Job = Option<Owned<io::Result<()>>>;

/// What the code has returned, once; afterwards that all is well.
fn poll_end(slot: &mut Job, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    Poll::Ready(match ready!(Owned::poll_slot(slot, context)) {
        None => Ok(()),
        Some(Ok(returned)) => returned,
        Some(Err(aborted)) => Err(io::Error::other(aborted)),
    })
}

/// The bytes that synchronous code on a [`PinnedPool`] writes. Made by [`PinnedPool::reader`].
#[must_use = "dropping it aborts the code"]
pub struct PinnedReader {
    chunks: Taker<Vec<u8>>,
    current: Vec<u8>,
    start: usize,
    /// `None` at the end.
    job: Job,
}

impl PinnedReader {
    /// The next chunk; empty at the end.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if let Some(chunk) = ready!(self.chunks.poll_take(context)) {
            return Poll::Ready(Ok(chunk));
        }
        Poll::Ready(ready!(poll_end(&mut self.job, context)).map(|()| Vec::new()))
    }
}

impl AsyncBufRead for PinnedReader {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.start == this.current.len() {
            this.current = ready!(this.poll_chunk(context))?;
            this.start = 0;
        }
        Poll::Ready(Ok(&this.current[this.start..]))
    }

    /// # Panics
    ///
    /// If `amount` is more than [`poll_fill_buf`](AsyncBufRead::poll_fill_buf) returned.
    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        assert!(amount <= this.current.len() - this.start, "consumed more than there is");
        this.start += amount;
    }
}

impl AsyncRead for PinnedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let bytes = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// Chunks of up to 64 KiB, none of them empty.
#[cfg(feature = "stream")]
impl futures_core::Stream for PinnedReader {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.start < this.current.len() {
            // What was read otherwise.
            let rest = this.current.split_off(mem::take(&mut this.start));
            this.current = Vec::new();
            return Poll::Ready(Some(Ok(rest)));
        }
        let chunk = ready!(this.poll_chunk(context));
        let is_end = chunk.as_ref().is_ok_and(Vec::is_empty);
        Poll::Ready((!is_end).then_some(chunk))
    }
}

impl fmt::Debug for PinnedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedReader").finish_non_exhaustive()
    }
}

/// What synchronous code on a [`PinnedPool`] reads. Made by [`PinnedPool::writer`].
#[must_use = "dropping it aborts the code"]
pub struct PinnedWriter {
    /// `None` after a shutdown.
    chunks: Option<Giver<Vec<u8>>>,
    /// `None` once the code has ended.
    job: Job,
}

fn broken_pipe(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, message)
}

impl AsyncWrite for PinnedWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(chunks) = &this.chunks else {
            let message = "fiberback: written to a `PinnedWriter` after its shutdown";
            return Poll::Ready(Err(broken_pipe(message)));
        };
        if ready!(chunks.poll_ready(context)).is_err() {
            ready!(poll_end(&mut this.job, context))?;
            let message = "fiberback: the code that reads from this `PinnedWriter` has returned";
            return Poll::Ready(Err(broken_pipe(message)));
        }
        let taken = bytes.len().min(CHUNK);
        chunks.give(bytes[..taken].to_vec());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(chunks) = &this.chunks else { return Poll::Ready(Ok(())) };
        match ready!(chunks.poll_idle(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_gone) => poll_end(&mut this.job, context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.chunks = None;
        poll_end(&mut this.job, context)
    }
}

impl Drop for PinnedWriter {
    /// Before the job is aborted, which takes effect later.
    fn drop(&mut self) {
        if let Some(chunks) = self.chunks.take() {
            chunks.abandon();
        }
    }
}

impl fmt::Debug for PinnedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedWriter").finish_non_exhaustive()
    }
}
