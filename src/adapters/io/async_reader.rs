//! tokio's `AsyncRead` over a synchronous reader.

use super::operation::Operation;
use crate::bridge::Builder;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// A synchronous reader that waits inside, as tokio's [`AsyncRead`] and [`AsyncBufRead`].
///
/// For instance a decompressor, a decoder or a TLS session over [`SyncIo`](super::SyncIo):
///
/// ```
/// use fiberback::io::{AsyncReader, SyncIo};
/// use flate2::read::GzDecoder;
/// use tokio::io::AsyncReadExt;
/// # use std::io::Write;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
/// # encoder.write_all(b"hello")?;
/// # let compressed = std::io::Cursor::new(encoder.finish()?);
/// // `compressed` is any `AsyncRead`. The decoder in between is synchronous, and reads the header
/// // when it is made; so that is done on a fiber, too.
/// let mut plain = AsyncReader::open(|| Ok(GzDecoder::new(SyncIo::new(compressed))));
/// let mut text = String::new();
/// plain.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
///
/// Like [`Run`](crate::Run) it is `!Send`.
///
/// # Buffering
///
/// Bytes are read on demand only: with nothing buffered, a poll makes **one** call of
/// [`Read::read`], on a fiber, with a buffer of the [capacity](Self::with_capacity) (8 KiB unless set);
/// what it returns is handed out before the next call. The reader is never called from off a fiber.
/// Between calls it takes up no stack.
///
/// # Errors
///
/// An error of the reader is returned by the poll that asked for the bytes, and the next poll asks
/// the reader again; except [`Interrupted`](io::ErrorKind::Interrupted), which is retried here.
/// [`OutOfMemory`](io::ErrorKind::OutOfMemory) with a [`StackError`](crate::StackError) inside if no
/// stack can be had; nothing is lost then. The end of the file is not final: a poll after it asks
/// again.
///
/// # Panics
///
/// A panic of the reader comes out of the poll. All later polls return an error.
///
/// # Cancellation
///
/// Dropping a pending `read` future loses nothing: the call goes on at the next poll. Dropping the
/// `AsyncReader` cancels the call that is under way, whose waits then return errors, or unwind; the
/// reader itself is dropped next, *off* a fiber.
pub struct AsyncReader<R: 'static> {
    operation: Operation<Reading<R>>,
}

struct Reading<R> {
    source: Source<R>,
    /// Empty until the first read.
    buffer: Box<[u8]>,
    capacity: usize,
    /// The bytes of `buffer` that are not handed out yet.
    start: usize,
    end: usize,
}

enum Source<R> {
    Unopened(Box<dyn FnOnce() -> io::Result<R>>),
    Open(R),
    Failed,
}

const DEFAULT_CAPACITY: usize = 8 * 1024;

impl<R: Read + 'static> AsyncReader<R> {
    /// Wraps `reader`. Reads nothing yet; may be called anywhere.
    #[track_caller]
    pub fn new(reader: R) -> Self {
        Self::of(Source::Open(reader))
    }

    /// Wraps the reader that `open` makes. `open` is called by the first read, on a fiber, so it may
    /// wait, as constructors that read a header do.
    ///
    /// If it fails, its error is returned by that read, and others by the later ones.
    #[track_caller]
    pub fn open(open: impl FnOnce() -> io::Result<R> + 'static) -> Self {
        Self::of(Source::Unopened(Box::new(open)))
    }

    #[track_caller]
    fn of(source: Source<R>) -> Self {
        let reading = Reading {
            source,
            buffer: Box::default(),
            capacity: DEFAULT_CAPACITY,
            start: 0,
            end: 0,
        };
        Self { operation: Operation::new(reading) }
    }

    /// Sets how many bytes the reader is asked for at once; at least 1. No effect after the first
    /// read.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        if let Ok(reading) = self.operation.object() {
            reading.capacity = bytes.max(1);
        }
        self
    }

    /// Sets the name, stack size or pool of the fibers.
    #[must_use]
    pub fn with_builder(mut self, builder: Builder) -> Self {
        self.operation.set_builder(builder);
        self
    }

    /// The reader; `None` while a read is under way, after a panic, or if it is not opened.
    pub fn get_mut(&mut self) -> Option<&mut R> {
        match &mut self.operation.object().ok()?.source {
            Source::Open(reader) => Some(reader),
            _ => None,
        }
    }

    /// Returns the reader; `None` after a panic, or if it is not opened. Cancels a read that is under
    /// way. Bytes that are buffered here are lost.
    pub fn into_inner(self) -> Option<R> {
        match self.operation.into_object()?.source {
            Source::Open(reader) => Some(reader),
            _ => None,
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Reading<R>>> {
        if !self.operation.is_under_way() && self.operation.object()?.is_empty() {
            self.operation.start(Reading::fill)?;
        }
        ready!(self.operation.poll(context))?;
        Poll::Ready(self.operation.object())
    }
}

impl<R> Reading<R> {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl<R: Read> Reading<R> {
    /// Calls the reader once. On a fiber.
    fn fill(&mut self) -> io::Result<()> {
        if let Source::Unopened(_) = self.source {
            if let Source::Unopened(open) = mem::replace(&mut self.source, Source::Failed) {
                self.source = Source::Open(open()?);
            }
        }
        let Source::Open(reader) = &mut self.source else {
            return Err(io::Error::other("fiberback: this reader could not be opened"));
        };
        if self.buffer.is_empty() {
            self.buffer = vec![0; self.capacity].into_boxed_slice();
        }
        let count = loop {
            match reader.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        assert!(count <= self.buffer.len(), "the reader returned more bytes than it was asked for");
        (self.start, self.end) = (0, count);
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, amount: usize) {
        assert!(amount <= self.end - self.start, "consumed more than there is");
        self.start += amount;
    }
}

impl<R> Unpin for AsyncReader<R> {}

impl<R: Read + 'static> AsyncRead for AsyncReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let reading = ready!(self.get_mut().poll_fill(context))?;
        let bytes = reading.bytes();
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        reading.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<R: Read + 'static> AsyncBufRead for AsyncReader<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Ok(ready!(self.get_mut().poll_fill(context))?.bytes()))
    }

    /// # Panics
    ///
    /// If `amount` is more than [`poll_fill_buf`](AsyncBufRead::poll_fill_buf) returned.
    fn consume(self: Pin<&mut Self>, amount: usize) {
        if amount > 0 {
            let reading = self.get_mut().operation.object();
            reading.expect("bytes are consumed after they were returned").consume(amount);
        }
    }
}

impl<R> fmt::Debug for AsyncReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncReader").field(&self.operation).finish()
    }
}
