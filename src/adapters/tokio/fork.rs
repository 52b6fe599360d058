//! Whether this process is a forked child of the one that it was.
//!
//! # Invariant
//!
//! What runs in the child between `fork` and its return is one atomic addition.

#![allow(unsafe_code)]

/// What changes with every fork, in the child, and is never 0. Only ever compared.
pub(super) type Generation = u32;

/// By a handler: asking the kernel who we are costs as much as all the rest of a `block_on` that is ready.
#[cfg(target_os = "linux")]
pub(super) fn generation() -> Generation {
    use std::sync::Once;
    use std::sync::atomic::{AtomicU32, Ordering};

    static FORKS: AtomicU32 = AtomicU32::new(1);
    static INSTALL: Once = Once::new();

    extern "C" fn in_the_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    INSTALL.call_once(|| {
        // SAFETY: `pthread_atfork` takes functions without preconditions; ours is async-signal-safe,
        // as it must be in the child of a process with threads (fork(2)). glibc removes it when the
        // shared library that it is in is unloaded. A failure (ENOMEM) leaves forks unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn generation() -> Generation {
    std::process::id()
}
