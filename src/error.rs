//! The crate's errors: opaque, asked by predicates, and saying what to do next.

use std::{fmt, io, process};

/// Why no stack could be had.
pub struct StackError(Box<StackErrorKind>);

#[derive(Debug)]
enum StackErrorKind {
    BadSize {
        setting: &'static str,
        least: usize,
        most: usize,
    },
    PoolExhausted {
        max_stacks: usize,
    },
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    OutOfMappings {
        budget: usize,
    },
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Unguarded,
    OutOfMemory(io::Error),
}

impl StackError {
    pub(crate) fn bad_size(setting: &'static str, least: usize, most: usize) -> Self {
        Self(Box::new(StackErrorKind::BadSize { setting, least, most }))
    }

    pub(crate) fn pool_exhausted(max_stacks: usize) -> Self {
        Self(Box::new(StackErrorKind::PoolExhausted { max_stacks }))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn out_of_mappings(budget: usize) -> Self {
        Self(Box::new(StackErrorKind::OutOfMappings { budget }))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn unguarded() -> Self {
        Self(Box::new(StackErrorKind::Unguarded))
    }

    pub(crate) fn out_of_memory(error: io::Error) -> Self {
        Self(Box::new(StackErrorKind::OutOfMemory(error)))
    }

    /// A setting is out of range; retrying is pointless.
    pub fn is_bad_size(&self) -> bool {
        matches!(*self.0, StackErrorKind::BadSize { .. })
    }

    /// The pool, the process or the system has no more stacks for now.
    pub fn is_exhausted(&self) -> bool {
        !self.is_bad_size()
    }
}

impl fmt::Debug for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            StackErrorKind::BadSize { setting, least, most } => {
                write!(f, "{setting} is out of range: give between {least} and {most} bytes")
            }
            StackErrorKind::PoolExhausted { max_stacks } => write!(
                f,
                "all {max_stacks} stacks of the pool are in use: raise \
                 `StackPool::builder().max_stacks(..)`, or wait until some are back"
            ),
            StackErrorKind::OutOfMappings { budget } => write!(
                f,
                "{budget} stacks are guarded by mprotect, the most that vm.max_map_count leaves \
                 room for: raise it (`sysctl vm.max_map_count=...`), or use Linux 6.13 or later, \
                 where guards need no mappings"
            ),
            StackErrorKind::Unguarded => f.write_str(
                "this system guards no memory: neither `MADV_GUARD_INSTALL` nor `mprotect` makes a \
                 page fault, although they say so. Fibers need an emulator or sandbox in which one \
                 of them works",
            ),
            StackErrorKind::OutOfMemory(error) => {
                write!(f, "the system has no memory for another fiber stack: {error}")
            }
        }
    }
}

impl std::error::Error for StackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            StackErrorKind::OutOfMemory(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StackError> for io::Error {
    fn from(error: StackError) -> Self {
        let kind = match &*error.0 {
            StackErrorKind::BadSize { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}

/// Why [`try_await`](crate::try_await) could not wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AwaitError(AwaitErrorKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AwaitErrorKind {
    OffFiber,
    InRuntime,
    NoRuntime(io::ErrorKind),
    Cancelled,
    CancelledUnwinding,
    Unwinding,
    OnLoopsThread,
    RemoteCancelled,
    RemoteEnded,
    LoopBlocked,
    #[cfg_attr(not(windows), allow(dead_code))]
    LoaderLock,
    #[cfg_attr(not(feature = "tracing"), allow(dead_code))]
    InSubscriber,
}

impl AwaitError {
    pub(crate) const OFF_FIBER: Self = Self(AwaitErrorKind::OffFiber);
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) const IN_RUNTIME: Self = Self(AwaitErrorKind::InRuntime);
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn no_runtime(kind: io::ErrorKind) -> Self {
        Self(AwaitErrorKind::NoRuntime(kind))
    }
    pub(crate) const CANCELLED: Self = Self(AwaitErrorKind::Cancelled);
    pub(crate) const CANCELLED_UNWINDING: Self = Self(AwaitErrorKind::CancelledUnwinding);
    pub(crate) const UNWINDING: Self = Self(AwaitErrorKind::Unwinding);
    pub(crate) const ON_LOOPS_THREAD: Self = Self(AwaitErrorKind::OnLoopsThread);
    pub(crate) const REMOTE_CANCELLED: Self = Self(AwaitErrorKind::RemoteCancelled);
    pub(crate) const REMOTE_ENDED: Self = Self(AwaitErrorKind::RemoteEnded);
    pub(crate) const LOOP_BLOCKED: Self = Self(AwaitErrorKind::LoopBlocked);
    #[cfg_attr(not(windows), allow(dead_code))]
    pub(crate) const LOADER_LOCK: Self = Self(AwaitErrorKind::LoaderLock);
    #[cfg_attr(not(feature = "tracing"), allow(dead_code))]
    pub(crate) const IN_SUBSCRIBER: Self = Self(AwaitErrorKind::InSubscriber);

    /// The caller is not below [`run`](crate::run), and is where it could not wait otherwise.
    pub fn is_off_fiber(&self) -> bool {
        matches!(
            self.0,
            AwaitErrorKind::OffFiber
                | AwaitErrorKind::InRuntime
                | AwaitErrorKind::OnLoopsThread
                | AwaitErrorKind::LoaderLock
        )
    }

    /// The caller is not below [`run`](crate::run), and on a thread that drives a runtime:
    /// [`try_block_on`](crate::try_block_on) and [`Remote::try_await`](crate::Remote::try_await) must not
    /// block it.
    pub fn is_in_runtime(&self) -> bool {
        matches!(self.0, AwaitErrorKind::InRuntime | AwaitErrorKind::OnLoopsThread)
    }

    /// The system has no thread or no descriptors left for the background runtime that
    /// [`try_block_on`](crate::try_block_on) needs here.
    pub fn is_no_runtime(&self) -> bool {
        matches!(self.0, AwaitErrorKind::NoRuntime(_))
    }

    /// The [`Run`](crate::Run) that the caller is below, or works for by a [`Remote`](crate::Remote), was
    /// dropped: clean up and return.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self.0,
            AwaitErrorKind::Cancelled
                | AwaitErrorKind::CancelledUnwinding
                | AwaitErrorKind::RemoteCancelled
        )
    }

    /// The code that the [`Remote`](crate::Remote) was made in has returned or panicked, so that nobody drives
    /// the future.
    pub fn is_remote_ended(&self) -> bool {
        matches!(self.0, AwaitErrorKind::RemoteEnded)
    }

    /// The thread of the loop that the [`Remote`](crate::Remote) leads to has slept in one place for the
    /// [`blocked_limit`](crate::Remote::blocked_limit), in a call that blocks it: perhaps until the caller is
    /// done.
    pub fn is_loop_blocked(&self) -> bool {
        matches!(self.0, AwaitErrorKind::LoopBlocked)
    }

    /// The caller is a `tracing` subscriber that is being told of an event or a span, so the fiber cannot suspend,
    /// and the future was not ready. (Known with the feature `tracing`.)
    pub fn is_in_subscriber(&self) -> bool {
        matches!(self.0, AwaitErrorKind::InSubscriber)
    }

    /// A panic, or a cancellation, is unwinding the fiber, so it cannot suspend, and the future was
    /// not ready.
    pub fn is_unwinding(&self) -> bool {
        matches!(self.0, AwaitErrorKind::Unwinding | AwaitErrorKind::CancelledUnwinding)
    }
}

impl fmt::Debug for AwaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AwaitError").field(&self.0).finish()
    }
}

impl fmt::Display for AwaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            AwaitErrorKind::NoRuntime(kind) => {
                return write!(
                    f,
                    "fiberback: the background runtime could not be started: {kind}. It takes one \
                     thread and a few descriptors (`ulimit -n`) for the whole process: start it \
                     while there are some, by `fiberback::tokio::background::handle()`, or call \
                     `block_on` inside a runtime of your own (`Handle::enter`)"
                );
            }
            AwaitErrorKind::OffFiber => {
                "fiberback: not on a fiber, so there is nothing to suspend. Call the synchronous \
                 code through `fiberback::run(|| ...).await`, or, where no runtime is running, use \
                 `fiberback::block_on(future)`"
            }
            AwaitErrorKind::InRuntime => {
                "fiberback: not on a fiber, but inside a tokio runtime, which blocking here would \
                 bring to a halt. Call the synchronous code through `fiberback::run(|| ...).await`, \
                 `fiberback::tokio::PinnedPool::spawn`, or `tokio::task::spawn_blocking`"
            }
            AwaitErrorKind::OnLoopsThread => {
                "fiberback: this is the very thread that the `Remote`'s fiber runs on, and not on a fiber: to \
                 block it here would wait for ever. Write `remote.await_(future)` on other threads, and \
                 `.await`, or `fiberback::await_` below `fiberback::run`, on this one"
            }
            AwaitErrorKind::RemoteCancelled => {
                "fiberback: the fiber that this `Remote` belongs to was cancelled: its `Run` was dropped"
            }
            AwaitErrorKind::RemoteEnded => {
                "fiberback: the code that this `Remote` was made in has ended, so that nobody drives the \
                 future. Let that code wait until the threads that work for it are done: \
                 `fiberback::await_(tokio::task::spawn_blocking(|| ...))`"
            }
            AwaitErrorKind::LoopBlocked => {
                "fiberback: the event loop that this `Remote` leads to does not come round, and its thread sleeps \
                 in a call that blocks it. If that waits for this thread (`JoinHandle::join`, `std::thread::scope`, \
                 rayon's `install`), neither would ever go on: let the fiber wait without blocking, \
                 `fiberback::await_(tokio::task::spawn_blocking(|| ...))`. If it may take its time, make the \
                 handle by `fiberback::remote().blocked_limit(..)`"
            }
            AwaitErrorKind::LoaderLock => {
                "fiberback: `block_on` in the destructor of a thread-local value, at the end of a thread (or in \
                 `DllMain`): Windows holds the loader's lock there, without which no thread can begin or end, so \
                 that waiting for one would never end. Wait before the thread ends: take the value out \
                 (`RefCell::take`) as the last thing that the thread does"
            }
            AwaitErrorKind::InSubscriber => {
                "fiberback: a tracing subscriber waits while it is told of an event or a span. `tracing` keeps the \
                 thread's subscriber borrowed meanwhile, so that this fiber cannot suspend: everybody else on the \
                 thread would find none, or panic. Give what it has to send to a task, by a channel \
                 (`tokio::sync::mpsc::UnboundedSender::send` does not wait)"
            }
            AwaitErrorKind::Cancelled => {
                "fiberback: the fiber was cancelled: its `Run` was dropped while it waited"
            }
            AwaitErrorKind::Unwinding | AwaitErrorKind::CancelledUnwinding => {
                "fiberback: a panic or a cancellation is unwinding this fiber, which therefore cannot suspend, and \
                 the awaited future is not ready. In a destructor, use `fiberback::try_await`, or \
                 skip waiting when `std::thread::panicking()`"
            }
        })
    }
}

impl std::error::Error for AwaitError {}

impl From<AwaitError> for io::Error {
    /// Kinds: [`Interrupted`](io::ErrorKind::Interrupted) is *not* used for cancellation, since
    /// readers retry it.
    fn from(error: AwaitError) -> Self {
        Self::other(error)
    }
}

/// What is said when a thread or a fiber waits by a `Remote` for a loop that does not come round.
pub(crate) const LOOP_IS_HELD_UP: &str = "fiberback: a thread or a fiber waits in `Remote::await_` for the event \
     loop of a fiber, which has not come round for seconds. If that fiber blocks its loop's thread until the \
     other one is done (`JoinHandle::join`, `std::thread::scope`, rayon's `install`), neither will ever go on: \
     let it wait without blocking, `fiberback::await_(tokio::task::spawn_blocking(|| ...))`";

/// Ends the process because a cancelled fiber will not end by itself.
#[cold]
pub(crate) fn abort_for_uncancellable(fiber: &str, refusals: u32) -> ! {
    eprintln!(
        "fiberback: the fiber '{fiber}' was cancelled, but tried to wait {refusals} times more: it \
         seems to catch the cancellation (`catch_unwind`), or to ignore the error, in a loop, and \
         would never end. Let the unwinding pass, or return when `try_await` says \
         `is_cancelled()`. Aborting."
    );
    process::abort()
}
