//! Futures and streams that blow their connection's fuse when they are cut off.

use super::fuse::{Fuse, UnderWay, Watch};
use ::diesel::QueryResult;
use futures_core::Stream;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project! {
    /// An operation of a guarded connection.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Watched<'a, F> {
        // Dropped first: the fuse blows when the operation is over.
        #[pin]
        operation: F,
        watch: Watch<'a>,
    }
}

impl<'a, F> Watched<'a, F> {
    pub(super) fn new(fuse: &'a Fuse, operation: F) -> Self {
        Self { operation, watch: Watch::new(fuse) }
    }
}

impl<T, F: Future<Output = QueryResult<T>>> Future for Watched<'_, F> {
    type Output = QueryResult<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.watch.begin()?;
        let output = ready!(this.operation.poll(context));
        this.watch.set(UnderWay::No);
        Poll::Ready(output)
    }
}

pin_project! {
    /// A query of a guarded connection, until the rows begin.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct WatchedLoad<'a, F> {
        #[pin]
        load: F,
        watch: Watch<'a>,
    }
}

impl<'a, F> WatchedLoad<'a, F> {
    pub(super) fn new(fuse: &'a Fuse, load: F) -> Self {
        Self { load, watch: Watch::new(fuse) }
    }
}

impl<'a, S, F: Future<Output = QueryResult<S>>> Future for WatchedLoad<'a, F> {
    type Output = QueryResult<WatchedRows<'a, S>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.watch.begin()?;
        let loaded = ready!(this.load.poll(context));
        this.watch.set(UnderWay::No);
        Poll::Ready(loaded.map(|rows| {
            let mut watch = this.watch.hand_over();
            watch.set(UnderWay::Rows);
            WatchedRows { rows, watch }
        }))
    }
}

pin_project! {
    /// The rows of a query of a guarded connection.
    #[must_use = "streams do nothing unless polled"]
    #[derive(Debug)]
    pub struct WatchedRows<'a, S> {
        #[pin]
        rows: S,
        watch: Watch<'a>,
    }
}

impl<T, S: Stream<Item = QueryResult<T>>> Stream for WatchedRows<'_, S> {
    type Item = QueryResult<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        this.watch.begin()?;
        let row = ready!(this.rows.poll_next(context));
        this.watch.set(if row.is_some() { UnderWay::Rows } else { UnderWay::No });
        Poll::Ready(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}
