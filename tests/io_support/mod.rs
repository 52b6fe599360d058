//! Async sources and sinks that behave badly in a reproducible way, and counts of them.
#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Text that compresses somewhat.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 32);
    while bytes.len() < len {
        let word = random.below(500);
        bytes.extend_from_slice(format!("word{word} ").as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// How many objects are alive.
#[derive(Clone, Default)]
pub struct Census(Rc<Cell<usize>>);

impl Census {
    pub fn alive(&self) -> usize {
        self.0.get()
    }

    pub fn enter(&self) -> Citizen {
        self.0.set(self.0.get() + 1);
        Citizen(self.0.clone())
    }
}

pub struct Citizen(Rc<Cell<usize>>);

impl Drop for Citizen {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Passes on pieces of random size, and is pending at random.
pub struct Choppy<T> {
    pub inner: T,
    random: Random,
    largest: usize,
    _citizen: Option<Citizen>,
    seeking: Option<SeekFrom>,
}

impl<T> Choppy<T> {
    pub fn new(inner: T, seed: u64, largest: usize) -> Self {
        Self { inner, random: Random::new(seed), largest, _citizen: None, seeking: None }
    }

    pub fn counted(mut self, census: &Census) -> Self {
        self._citizen = Some(census.enter());
        self
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        if self.random.below(3) == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(1 + self.random.below(self.largest))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Choppy<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = std::task::ready!(self.turn(context)).min(buffer.remaining());
        let mut piece = vec![0; size];
        let mut piece = ReadBuf::new(&mut piece);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
        buffer.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for Choppy<T> {
    fn poll_fill_buf(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>> {
        let size = std::task::ready!(self.turn(context));
        let bytes = std::task::ready!(Pin::new(&mut self.get_mut().inner).poll_fill_buf(context))?;
        Poll::Ready(Ok(&bytes[..bytes.len().min(size)]))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Choppy<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let size = std::task::ready!(self.turn(context)).min(bytes.len());
        Pin::new(&mut self.inner).poll_write(context, &bytes[..size])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.turn(context));
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.turn(context));
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<T: AsyncSeek + Unpin> AsyncSeek for Choppy<T> {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.seeking = Some(position);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        std::task::ready!(self.turn(context));
        if let Some(position) = self.seeking.take() {
            Pin::new(&mut self.inner).start_seek(position)?;
        }
        Pin::new(&mut self.inner).poll_complete(context)
    }
}

/// Several handles to one source, so that another fiber can go on where one was cancelled.
pub struct Shared<T>(pub Rc<RefCell<T>>);

impl<T> Shared<T> {
    pub fn new(inner: T) -> Self {
        Self(Rc::new(RefCell::new(inner)))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}

/// Polls with a waker that does nothing, until ready.
pub fn drive<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    for _ in 0..10_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("hangs")
}

/// So many seeds, from `FIBERBACK_SEED` on if that is set, or else always the same.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("FIBERBACK_SEED").ok();
    let first = first.map_or(0, |seed| seed.parse::<u64>().expect("FIBERBACK_SEED is a number"));
    (0..count).map(move |n| first.wrapping_add(n))
}

/// For k = 1, 2, ...: makes the future, polls it k times, drops it, and checks; until it is ready
/// within k polls. Returns how often it was cut off.
pub fn cut_off_everywhere<F: Future>(
    mut make: impl FnMut() -> F,
    mut check: impl FnMut(),
) -> usize {
    for k in 1..100_000 {
        let mut future = Box::pin(make());
        let ready = (0..k)
            .any(|_| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        // Where it went wrong, if one of these panics.
        let here = NoteOnPanic(k);
        drop(future);
        check();
        drop(here);
        if ready {
            return k - 1;
        }
    }
    panic!("never ready")
}

/// Says where a loop was when a panic ended it.
struct NoteOnPanic(usize);

impl Drop for NoteOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("cut off after {} polls", self.0);
        }
    }
}
