//! Readers and writers that let other tasks run.

use super::error::cannot_wait;
use crate::adapters::yielding::Budget;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};

/// A synchronous reader or writer that lets other tasks run every so many bytes.
///
/// For code that computes more than it waits, like a decompressor over a fast socket or over
/// memory. Wrap the side where the bytes are counted that tell how much work is done: for
/// decompression, the decompressed side.
///
/// ```
/// use fiberback::Budget;
/// use fiberback::io::Yielding;
/// use std::io::{self, Read};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let file = vec![0; 100_000]; // in memory: never waits
/// let copied = fiberback::run(move || {
///     // Others run each 16 KiB.
///     let mut reader = Yielding::new(&file[..], Budget::every(16 << 10));
///     io::copy(&mut reader, &mut io::sink())
/// });
/// assert_eq!(copied.await?, 100_000);
/// # Ok(())
/// # }
/// ```
///
/// Off a fiber it only passes everything on.
///
/// # Errors
///
/// Those of `T`; and, when a turn is due on a cancelled fiber, the error described in the [module's
/// documentation](super#cancellation). The turn is taken *before* an operation, so no bytes are lost
/// with that error.
#[derive(Clone, Debug)]
pub struct Yielding<T> {
    inner: T,
    budget: Budget,
}

impl<T> Yielding<T> {
    /// Wraps `inner`; bytes read and written are both spent from `budget`.
    pub const fn new(inner: T, budget: Budget) -> Self {
        Self { inner, budget }
    }

    /// What is wrapped.
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped. Bytes that pass by this way are not counted.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Returns what was wrapped.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Does one operation, after the turn that is due, and counts the bytes it reports.
    #[inline]
    fn counted(
        &mut self,
        operation: impl FnOnce(&mut T) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.budget.settle().map_err(cannot_wait)?;
        let bytes = operation(&mut self.inner)?;
        self.budget.charge(bytes as u64);
        Ok(bytes)
    }
}

impl<T: Read> Read for Yielding<T> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.counted(|inner| inner.read(buffer))
    }

    #[inline]
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.counted(|inner| inner.read_vectored(buffers))
    }
}

impl<T: Write> Write for Yielding<T> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.counted(|inner| inner.write(bytes))
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.counted(|inner| inner.write_vectored(slices))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: BufRead> BufRead for Yielding<T> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.budget.settle().map_err(cannot_wait)?;
        self.inner.fill_buf()
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.budget.charge(amount as u64);
    }
}

impl<T: Seek> Seek for Yielding<T> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
