//! The runtime for connections that are used where none is running.

use ::tokio::runtime::{Builder, Handle};
use std::sync::OnceLock;
use std::{future, thread};

static BACKGROUND: OnceLock<Handle> = OnceLock::new();

/// The process's own runtime, on a thread of its own; started at the first call.
///
/// One for all threads, and always running: connections move between threads (r2d2 establishes them
/// on its own), and their tasks must make progress wherever, or whether, somebody blocks.
pub(super) fn runtime() -> &'static Handle {
    BACKGROUND.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has the resources for a current-thread runtime");
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("fiberback-diesel".to_owned())
            .spawn(move || runtime.block_on(future::pending::<()>()))
            .expect("the system has the resources for a thread");
        handle
    })
}

/// Runs `task` in the runtime that is running here, or else in the background if that has started;
/// it may be dropped if the runtime shuts down.
#[cfg_attr(not(any(feature = "diesel-postgres", feature = "diesel-mysql")), allow(dead_code))]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Some(handle) = Handle::try_current().ok().or_else(|| BACKGROUND.get().cloned()) {
        handle.spawn(task);
    }
}
