//! tokio's `AsyncWrite` over a synchronous writer.

use super::operation::Operation;
use crate::bridge::Builder;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};
use tokio::io::AsyncWrite;

/// A synchronous writer that waits inside, as tokio's [`AsyncWrite`].
///
/// For instance a compressor or an archiver over [`SyncIo`](super::SyncIo). What
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) means to such a writer, `std::io::Write` has no
/// word for, so it is given [here](Self::on_shutdown):
///
/// ```
/// use fiberback::io::{AsyncWriter, SyncIo};
/// use flate2::write::GzEncoder;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # use std::io::Read;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (socket, mut peer) = tokio::io::duplex(16);
/// let encoder = GzEncoder::new(SyncIo::new(socket), Default::default());
/// let mut plain = AsyncWriter::new(encoder).on_shutdown(|encoder| {
///     encoder.try_finish()?;
///     encoder.get_mut().shutdown()
/// });
/// let send = async {
///     plain.write_all(b"hello").await?;
///     plain.shutdown().await
/// };
/// let mut compressed = Vec::new();
/// tokio::try_join!(send, peer.read_to_end(&mut compressed))?;
/// # let mut text = String::new();
/// # flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text)?;
/// # assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
///
/// Like [`Run`](crate::Run) it is `!Send`.
///
/// # Buffering
///
/// Each write takes up to the [capacity](Self::with_capacity) (64 KiB unless set) of the bytes and
/// passes them to the writer at once, on a fiber, with [`Write::write_all`]. If that has to wait, the
/// write reports its bytes as taken nevertheless, and the next write, flush or shutdown goes on with
/// it before it does anything else. So at most one capacity of bytes is ever on its way, and all of
/// it has arrived when a flush or shutdown is ready. Many small writes are better made through
/// tokio's `BufWriter`.
///
/// # Errors
///
/// Those of the writer; those of a write that had to wait are returned by the next operation, whose
/// own bytes are not taken. What becomes of the bytes of a failed write is up to the writer.
/// [`OutOfMemory`](io::ErrorKind::OutOfMemory) with a [`StackError`](crate::StackError) inside if no
/// stack can be had; nothing is taken then. [`BrokenPipe`](io::ErrorKind::BrokenPipe) after a
/// shutdown.
///
/// # Panics
///
/// A panic of the writer comes out of the poll. All later polls return an error.
///
/// # Cancellation
///
/// Dropping a pending `write`, `flush` or `shutdown` future loses nothing: the call goes on at the
/// next poll. Dropping the `AsyncWriter` cancels the call that is under way, whose waits then return
/// errors, or unwind; the writer itself is dropped next, *off* a fiber. Neither flushes: shut down
/// first.
pub struct AsyncWriter<W: 'static> {
    operation: Operation<Writing<W>>,
    /// The writer has got something since the last flush.
    dirty: bool,
    /// What is under way is...
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    Flush,
    Finish,
    /// Nothing; and nothing will be, after a `Finish`.
    Finished,
}

struct Writing<W> {
    writer: W,
    finish: Option<Finish<W>>,
    /// What the write under way writes.
    bytes: Vec<u8>,
    capacity: usize,
}

type Finish<W> = Box<dyn FnMut(&mut W) -> io::Result<()>>;

const DEFAULT_CAPACITY: usize = 64 * 1024;

impl<W: Write + 'static> AsyncWriter<W> {
    /// Wraps `writer`. Writes nothing yet; may be called anywhere.
    #[track_caller]
    pub fn new(writer: W) -> Self {
        let writing =
            Writing { writer, finish: None, bytes: Vec::new(), capacity: DEFAULT_CAPACITY };
        // Dirty from the start: the writer may have got something before.
        Self { operation: Operation::new(writing), dirty: true, step: Step::Write }
    }

    /// Sets what is done at shutdown, on a fiber, instead of [`Write::flush`]: finish what the format
    /// needs at its end, then pass the shutdown on to what lies below.
    ///
    /// If it fails, the shutdown returns its error, and another shutdown calls it again.
    ///
    /// # Panics
    ///
    /// Panics if a write is under way.
    #[must_use]
    pub fn on_shutdown(mut self, finish: impl FnMut(&mut W) -> io::Result<()> + 'static) -> Self {
        let writing = self.operation.object();
        writing.expect("set before the first write").finish = Some(Box::new(finish));
        self
    }

    /// Sets how many bytes one write takes at most; at least 1.
    ///
    /// # Panics
    ///
    /// Panics if a write is under way.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        let writing = self.operation.object();
        writing.expect("set before the first write").capacity = bytes.max(1);
        self
    }

    /// Sets the name, stack size or pool of the fibers.
    #[must_use]
    pub fn with_builder(mut self, builder: Builder) -> Self {
        self.operation.set_builder(builder);
        self
    }

    /// The writer; `None` while an operation is under way, or after a panic.
    pub fn get_mut(&mut self) -> Option<&mut W> {
        self.dirty = true;
        Some(&mut self.operation.object().ok()?.writer)
    }

    /// Returns the writer; `None` after a panic. Cancels an operation that is under way: flush first.
    pub fn into_inner(self) -> Option<W> {
        Some(self.operation.into_object()?.writer)
    }

    /// Goes on with what is under way. Ready if there is nothing (any more).
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.operation.is_under_way() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.operation.poll(context))?;
        match self.step {
            Step::Write | Step::Finished => {}
            Step::Flush => self.dirty = false,
            Step::Finish => self.step = Step::Finished,
        }
        Poll::Ready(Ok(()))
    }

    fn start(&mut self, step: Step) -> io::Result<()> {
        self.operation.start(match step {
            Step::Write => Writing::write,
            Step::Flush | Step::Finished => Writing::flush,
            Step::Finish => Writing::finish,
        })?;
        self.step = step;
        Ok(())
    }

    /// Takes of `slices` what fits, and begins to write it.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_step(context))?;
        if self.step == Step::Finished {
            let message = "fiberback: written to an AsyncWriter after its shutdown";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, message)));
        }
        let Writing { bytes, capacity, .. } = self.operation.object()?;
        // Left over only from a write that could not start.
        bytes.clear();
        for slice in slices {
            let room = *capacity - bytes.len();
            bytes.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = bytes.len();
        self.start(Step::Write)?;
        self.dirty = true;
        match self.poll_step(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }
}

// Each on a fiber.
impl<W: Write> Writing<W> {
    fn write(&mut self) -> io::Result<()> {
        // Taken, so that bytes of a failed write are gone.
        let mut bytes = mem::take(&mut self.bytes);
        let written = self.writer.write_all(&bytes);
        bytes.clear();
        self.bytes = bytes;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        match &mut self.finish {
            Some(finish) => finish(&mut self.writer),
            None => self.writer.flush(),
        }
    }
}

impl<W> Unpin for AsyncWriter<W> {}

impl<W: Write + 'static> AsyncWrite for AsyncWriter<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_step(context))?;
        while this.dirty && this.step != Step::Finished {
            this.start(Step::Flush)?;
            ready!(this.poll_step(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_step(context))?;
        while this.step != Step::Finished {
            this.start(Step::Finish)?;
            ready!(this.poll_step(context))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<W> fmt::Debug for AsyncWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncWriter")
            .field("operation", &self.operation)
            .field("dirty", &self.dirty)
            .field("step", &self.step)
            .finish()
    }
}
