//! Threads that the interpreter ends while it exits stay where they are: see `thread_exit.c`.

#![allow(unsafe_code)]

#[cfg(forced_unwinding)]
unsafe extern "C" {
    fn fiberback_exits_in_this_thread();
}

/// To be called by an exit handler: the interpreter exits in this thread.
pub(crate) fn exits_here() {
    #[cfg(forced_unwinding)]
    // SAFETY: a plain function, which stores the thread's name.
    unsafe {
        fiberback_exits_in_this_thread();
    }
}
