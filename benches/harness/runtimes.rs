//! The runtimes that benches compare on.

use tokio::runtime::{Builder, Runtime};

/// One thread, like ours.
pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("no threads")
}

/// Two workers.
pub(crate) fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("two threads")
}
