//! `std::io` over tokio's traits.

use super::error::cannot_wait;
use crate::bridge::try_await;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite,
    AsyncWriteExt, ReadBuf,
};

/// A tokio socket, file or pipe for synchronous code: [`Read`], [`Write`], [`BufRead`] and [`Seek`],
/// as far as `T` has their async counterparts.
///
/// Below [`run`](crate::run) only. It adds no buffer and no state: each operation is one of `T`'s,
/// which is polled at once and suspends the fiber only while it is pending. So, as over a bare
/// socket, small reads are better made through [`BufReader`](io::BufReader) (or `SyncIo` around
/// tokio's own `BufReader`), and small writes through [`BufWriter`](io::BufWriter).
///
/// ```
/// use fiberback::io::SyncIo;
/// use std::io::{Read, Write};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (near, far) = tokio::io::duplex(16);
/// let echo = fiberback::run(move || {
///     let mut far = SyncIo::new(far);
///     let mut word = [0; 5];
///     far.read_exact(&mut word)?;
///     word.make_ascii_uppercase();
///     far.write_all(&word)
/// });
/// let ask = fiberback::run(move || {
///     let mut near = SyncIo::new(near);
///     near.write_all(b"hello")?;
///     let mut answer = String::new();
///     near.read_to_string(&mut answer)?;
///     Ok(answer)
/// });
/// let (echoed, answer): (_, std::io::Result<String>) = tokio::join!(echo, ask);
/// echoed?;
/// assert_eq!(answer?, "HELLO");
/// # Ok(())
/// # }
/// ```
///
/// A `T` that is not `Unpin` goes in pinned: `SyncIo::new(Box::pin(source))`. For both directions at
/// once, on two fibers, split the source first ([`tokio::io::split`](::tokio::io::split),
/// `TcpStream::into_split`) and wrap each half.
///
/// # Errors
///
/// Every operation returns the errors of `T`'s, and the error described in the [module's
/// documentation](super#cancellation) when it cannot wait: off a fiber, on a cancelled fiber, and
/// during a panic when `T` is not ready.
///
/// # Cancellation
///
/// A cancelled read has taken nothing from the source; a cancelled write has written nothing.
/// (Operations made of several, like `read_exact`, `write_all` or `read_to_end`, may be cut in
/// between, as they may by any other error.)
///
/// # Dropping
///
/// Dropping a `SyncIo` drops `T` and does nothing else. In particular it does not
/// [shut down](Self::shutdown) or flush; `tokio::fs::File` needs a [`flush`](Write::flush).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncIo<T> {
    inner: T,
}

impl<T> SyncIo<T> {
    /// Wraps `inner`. Touches nothing; may be called anywhere.
    #[inline]
    pub const fn new(inner: T) -> Self {
        Self { inner }
    }

    /// Returns what was wrapped. Nothing is lost, since nothing is buffered here.
    #[inline]
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// What is wrapped.
    #[inline]
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped, for instance to await something else on it.
    #[inline]
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> From<T> for SyncIo<T> {
    #[inline]
    fn from(inner: T) -> Self {
        Self::new(inner)
    }
}

impl<T> AsRef<T> for SyncIo<T> {
    #[inline]
    fn as_ref(&self) -> &T {
        &self.inner
    }
}

impl<T> AsMut<T> for SyncIo<T> {
    #[inline]
    fn as_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: AsyncWrite + Unpin> SyncIo<T> {
    /// Flushes, and ends the writing direction: the peer sees the end of the file.
    ///
    /// `std::io::Write` has no word for this. What it means is `T`'s to say; see
    /// [`AsyncWrite::poll_shutdown`].
    ///
    /// # Errors
    ///
    /// As all operations; see [`SyncIo`].
    #[track_caller]
    pub fn shutdown(&mut self) -> io::Result<()> {
        wait(self.inner.shutdown())
    }

    /// Whether [`write_vectored`](Write::write_vectored) makes one operation of many slices. (The
    /// method of this name in `Write` is not stable yet.)
    pub fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Waits for an operation on whatever fiber we are on.
#[inline(always)]
fn wait<T>(operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match try_await(operation) {
        Ok(result) => result,
        Err(error) => Err(cannot_wait(error)),
    }
}

impl<T: AsyncRead + Unpin> Read for SyncIo<T> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let inner = &mut self.inner;
        wait(poll_fn(|context| Pin::new(&mut *inner).poll_read(context, &mut buffer)))?;
        Ok(buffer.filled().len())
    }

    // `Read::read_buf` is not stable, so the default of this clears memory before each read into
    // it; tokio's version reads into the uninitialised tail of the vector.
    fn read_to_end(&mut self, vector: &mut Vec<u8>) -> io::Result<usize> {
        let before = vector.len();
        loop {
            match wait(self.inner.read_to_end(vector)) {
                // What was read so far is in the vector already.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(vector.len() - before),
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for SyncIo<T> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        wait(poll_fn(|context| Pin::new(&mut *inner).poll_write(context, bytes)))
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let inner = &mut self.inner;
        wait(poll_fn(|context| Pin::new(&mut *inner).poll_write_vectored(context, slices)))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        wait(poll_fn(|context| Pin::new(&mut *inner).poll_flush(context)))
    }
}

impl<T: AsyncBufRead + Unpin> BufRead for SyncIo<T> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        wait(self.inner.fill_buf())
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl<T: AsyncSeek + Unpin> Seek for SyncIo<T> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        wait(self.inner.seek(position))
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        wait(self.inner.stream_position())
    }
}
