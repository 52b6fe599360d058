//! Driving a future by blocking the thread.

use crate::error::AwaitError;
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// What one call parks on: others on the same thread, further up or down the stack, have their own.
struct Parker {
    thread: Thread,
    /// The thread's own token will not do: whatever parks within a poll (a channel, a nested call)
    /// may use it up.
    woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// Kept for the next call. A waker left over from this one then costs that one a poll at most.
    static KEPT: Cell<Option<(Arc<Parker>, Waker)>> = const { Cell::new(None) };
}

/// Refuses where a thread that parks would keep others from beginning and ending.
pub(super) fn may_park() -> Result<(), AwaitError> {
    #[cfg(windows)]
    if super::loader_lock::is_held() {
        return Err(AwaitError::LOADER_LOCK);
    }
    Ok(())
}

/// Drives `future` on this thread, parking it while the future is pending. Others must do what it waits
/// for.
pub(super) fn park_until_ready<F: Future>(future: F) -> F::Output {
    park_within(pin!(future), None).expect("there is no limit")
}

/// [`park_until_ready`], but no longer than `limit`.
pub(super) fn park_within<F: Future>(
    mut future: Pin<&mut F>,
    limit: Option<Duration>,
) -> Option<F::Output> {
    let kept = KEPT.try_with(Cell::take).ok().flatten();
    let (parker, waker) = kept.unwrap_or_else(|| {
        let parker = Arc::new(Parker { thread: thread::current(), woken: AtomicBool::new(false) });
        (Arc::clone(&parker), Waker::from(parker))
    });
    let deadline = limit.map(|limit| Instant::now() + limit);
    let output = 'ready: loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            break Some(output);
        }
        while !parker.woken.swap(false, Ordering::Acquire) {
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break 'ready None;
            }
            thread::park_timeout(left);
        }
    };
    let _ = KEPT.try_with(|kept| kept.set(Some((parker, waker))));
    output
}
