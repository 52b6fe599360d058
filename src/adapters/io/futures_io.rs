//! `futures-io`'s traits in tokio's terms.

use futures_io::{
    AsyncBufRead as FuturesBufRead, AsyncRead as FuturesRead, AsyncSeek as FuturesSeek,
    AsyncWrite as FuturesWrite,
};
use std::io::{self, IoSlice, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// A source of `futures-io` (smol, async-std, `async-compression`, ...) for [`SyncIo`](super::SyncIo).
///
/// It has tokio's traits, so it also works wherever else those are asked for. If you use
/// `tokio-util` already, its `compat` does the same.
///
/// ```
/// use fiberback::io::{FuturesIo, SyncIo};
/// use std::io::Read;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let source = futures_util::io::Cursor::new(b"hello");
/// let text = fiberback::run(move || std::io::read_to_string(SyncIo::new(FuturesIo::new(source))));
/// assert_eq!(text.await?, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuturesIo<T> {
    inner: T,
    /// The target of a seek that has begun, which tokio's traits split in two.
    seeking: Option<SeekFrom>,
}

impl<T> FuturesIo<T> {
    /// Wraps `inner`.
    pub const fn new(inner: T) -> Self {
        Self { inner, seeking: None }
    }

    /// What is wrapped.
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Returns what was wrapped.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Unpin> FuturesIo<T> {
    fn project(self: Pin<&mut Self>) -> Pin<&mut T> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl<T: FuturesRead + Unpin> AsyncRead for FuturesIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Clears what is uninitialised, once for each buffer; nothing if `SyncIo` reads.
        let bytes = ready!(self.project().poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<T: FuturesWrite + Unpin> AsyncWrite for FuturesIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().poll_write_vectored(context, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().poll_close(context)
    }
}

impl<T: FuturesBufRead + Unpin> AsyncBufRead for FuturesIo<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.project().poll_fill_buf(context)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.project().consume(amount);
    }
}

impl<T: FuturesSeek + Unpin> AsyncSeek for FuturesIo<T> {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.seeking = Some(position);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        // Asked before a seek begins, to finish an earlier one; the result is then meaningless.
        let Some(target) = self.seeking else { return Poll::Ready(Ok(0)) };
        let position = ready!(self.as_mut().project().poll_seek(context, target));
        self.seeking = None;
        Poll::Ready(position)
    }
}
