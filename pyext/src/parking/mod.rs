//! Waiting with the whole stack, where no portal is.
//!
//! Inside a running stock asyncio loop, code that no portal runs can wait, too: its stack stays as
//! it is, *parked*, and the loop goes on, on another stack. When what the code waits for is there,
//! its stack goes on, and with it, once the code has returned, the loop on that stack. So there is
//! always one stack more than there are parked ones, and any of them can drive the loop; callers
//! can be done in any order.
//!
//! | file | owns |
//! |---|---|
//! | `driver.rs` | everything about one loop that callers are parked on |
//! | `stock.rs` | which loops callers can park on |
//! | `below.rs` | what drives the loop below a caller, and whether it can park there |
//! | `change.rs` | the change from one stack that drives a loop to the next |
//! | `turns.rs` | the loop's callbacks, run one by one |
//! | `handle.rs` | what a callback's handle calls, and the call |
//! | `next_wake.rs` | the next callback, where all that it does is to wake a caller |
//! | `fetch.rs` | what the next caller needs, fetched by the processor beforehand |
//! | `turn.rs` | a callback in progress: what tells it from all others, and debug mode |
//! | `current_turn.rs` | which callback runs now, for those who want to know |
//! | `wait.rs` | what a task does with what its coroutine yields, done here for a caller |
//! | `waker.rs` | the callback that ends a wait, as an object |
//! | `wake.rs` | what that callback does |
//! | `hosted.rs` | a loop that runs all its callbacks on runners |
//! | `look.rs` | who is parked, in all threads, for those who want to see it |
//! | `close.rs` | the end of callers that outlive a run of their loop |
//! | `task.rs` | two fields of asyncio's tasks that no method sets |
//! | `hooks.rs` | what the Python layer does for us |
//!
//! # Two kinds of stacks
//!
//! * The **host** is the stack on which the stock loop runs: `run_forever` and `_run_once` are on
//!   it, and when the first caller parks, so is that. The loop can end only there.
//! * **Runners** are workers that the host resumes, one after the other. They run callbacks, and
//!   stock `_run_once` is not on them: nothing but callbacks is lost or left behind when one of them
//!   is parked, or is not needed any more.
//!
//! # Invariant
//!
//! * All runners of a driver are resumed by its host, from `change::switch_from_host`, and from nowhere
//!   else. So they are all on the same level, and the host's native frame is alive while one runs.
//! * What a stack has entered (contexts, the current task) it leaves before another goes on, and
//!   enters again after. Between two stacks the thread is as it is between two callbacks.
//! * A `Parked` is in the waker that its caller has made and keeps as long as it waits. The waker forgets
//!   who waits before the caller's native frame ends.
//! * Switches of greenlets are done on the thread's own stack (see `greenlet`), where the host is, or
//!   what resumed it. While other greenlets run there, no runner does.

mod below;
mod change;
mod close;
mod current_turn;
mod driver;
mod fetch;
mod handle;
mod hooks;
mod hosted;
mod look;
mod next_wake;
mod stock;
mod task;
mod turn;
mod turns;
mod wait;
mod wake;
mod waker;

pub(crate) use close::{close_all, close_parked, parked_on};
pub(crate) use current_turn::{current_turn, is_in_turn};
pub(crate) use hooks::set_parking;
pub(crate) use hosted::{end_hosted, run_hosted};
pub(crate) use look::parked;
pub(crate) use task::context_of;
pub(crate) use wait::{can_wait_here, runs_on, try_park, wait_here};

use pyo3::ffi::PyObject;

/// To be called once, at import. False with an error set on failure.
///
/// # Safety
///
/// Attached; `module` is the module being initialised.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe { waker::init(module) }
}
