//! What the crate itself reports through `tracing`. Nothing without the feature.
//!
//! An overflown stack is reported on standard error only ([`crate::fiber`]'s fault handler): a
//! subscriber takes locks, which a signal handler must not.

use crate::error::{LOOP_IS_HELD_UP, StackError};
use std::io;
use std::sync::Once;

/// One line at the given level, if the feature is on.
macro_rules! event {
    ($level:ident, $($rest:tt)*) => {
        #[cfg(feature = "tracing")]
        ::tracing::$level!(target: "fiberback", $($rest)*);
    };
}

/// A fiber was made for `run`.
#[inline]
pub(crate) fn fiber_created(name: Option<&str>) {
    let _ = name;
    event!(trace, name, "fiber created");
}

/// A pool reserved more address space.
pub(crate) fn pool_grew(stacks: usize, bytes: usize) {
    let _ = (stacks, bytes);
    event!(debug, stacks, bytes, "stack pool grew");
}

/// A pool gave pages of idle stacks back.
pub(crate) fn pool_trimmed(bytes: usize) {
    // An idle `PinnedPool` worker finds nothing most of the time.
    if bytes > 0 {
        event!(debug, bytes, "stack pool trimmed");
    }
}

/// A pool could not make another stack.
pub(crate) fn pool_exhausted(error: &StackError) {
    let _ = error;
    event!(warn, %error, "no more stacks");
}

/// A fiber keeps its thread while others are suspended.
#[cfg(feature = "dump")]
#[cold]
pub(crate) fn thread_blocked(blocked: &impl std::fmt::Display) {
    let _ = blocked;
    event!(warn, %blocked, "a fiber keeps its thread from others");
}

/// A thread or fiber waits for a loop that does not come round.
#[cold]
pub(crate) fn loop_is_held_up() {
    static SAID: Once = Once::new();
    event!(warn, "somebody waits by a `Remote` for a loop that does not come round");
    SAID.call_once(|| eprintln!("{LOOP_IS_HELD_UP}"));
}

/// A fiber waits for another thread's loop, and nothing would wake it if that is blocked for ever.
#[cold]
pub(crate) fn nobody_watches(error: &io::Error) {
    static SAID: Once = Once::new();
    event!(warn, %error, "no thread to wake fibers that wait for a loop which is blocked");
    SAID.call_once(|| {
        eprintln!(
            "fiberback: a fiber waits in `Remote::await_` for the event loop of another thread, and the system \
             has no thread that would look now and then whether that loop is blocked ({error}): if it is, the \
             fiber waits without a word"
        );
    });
}

/// A suspended fiber was given up, since its `Run` was dropped at the end of the thread.
#[cfg(panic = "unwind")]
pub(crate) fn fiber_leaked_at_thread_end() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        // Not a subscriber: its thread-locals may be gone.
        eprintln!(
            "fiberback: a suspended `Run` was dropped by the destructor of a thread-local value, at the end \
             of its thread. It cannot be unwound there, since the thread-locals that it uses may be gone: \
             its stack was leaked, and its destructors did not run. Drop it before the thread ends."
        );
    });
}

/// A suspended fiber was given up, since a program with `panic = "abort"` cannot unwind it.
#[cfg(not(panic = "unwind"))]
pub(crate) fn fiber_leaked() {
    event!(warn, "a suspended fiber was leaked: with panic = \"abort\" it cannot be unwound");
}
