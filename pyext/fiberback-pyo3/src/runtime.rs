//! The tokio runtime that futures are polled in.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio::runtime::{EnterGuard, Handle, Runtime};

static CHOSEN: OnceLock<Handle> = OnceLock::new();
/// The crate's own runtime, and the process that has started it: its threads are not there in a forked
/// child.
static OWN: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// [`set_tokio_handle`] was called before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokioHandleIsSet(());

impl fmt::Display for TokioHandleIsSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the tokio runtime for run_on_loop() was set before: call set_tokio_handle() once",
        )
    }
}

impl std::error::Error for TokioHandleIsSet {}

/// Has [`run_on_loop`](crate::run_on_loop) poll futures in this runtime, unless the calling thread is in one.
///
/// The runtime must drive itself (multi-threaded, or a current-thread one that a thread blocks on), with
/// I/O and time enabled where futures need them, and live as long as the process.
///
/// # Errors
///
/// If it was called before.
pub fn set_tokio_handle(handle: Handle) -> Result<(), TokioHandleIsSet> {
    CHOSEN.set(handle).map_err(|_| TokioHandleIsSet(()))
}

/// Enters the runtime until the guard is dropped.
pub(crate) fn enter() -> Option<EnterGuard<'static>> {
    if Handle::try_current().is_ok() {
        return None;
    }
    Some(match CHOSEN.get() {
        Some(handle) => handle.enter(),
        None => own().enter(),
    })
}

fn own() -> &'static Runtime {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    match *own {
        Some((process, runtime)) if process == here => runtime,
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("fiberback-pyo3")
                .enable_all()
                .build()
                .expect(
                    "a tokio runtime for run_on_loop(): the system gives no thread or descriptor",
                );
            // For the life of the process: futures that are suspended refer to it.
            let runtime: &'static Runtime = Box::leak(Box::new(runtime));
            *own = Some((here, runtime));
            runtime
        }
    }
}
