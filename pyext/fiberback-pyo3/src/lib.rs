//! Waiting in [PyO3] extensions, below synchronous Python code, while the event loop goes on.
//!
//! A function of an extension that Python code calls (Python → Rust), and that must wait for something,
//! has had two ways: to block the thread, and with it the event loop and all its tasks, or to be an
//! `async def` for Python, and with it all its callers. With the Python package [fiberback] installed
//! there is a third: the stack of the caller, Rust frames included, is suspended until the thing is
//! done, and the event loop runs other tasks on the same thread.
//!
//! | to wait for | call |
//! |---|---|
//! | a Python awaitable: a coroutine, future, task | [`await_in_python`] |
//! | a Rust future, tokio's included | [`run_on_loop`], or the whole function in [`sync_pyfunction!`] |
//! | a Python callback that may wait itself | [`call_in_python`] |
//!
//! ```ignore
//! use fiberback_pyo3::{await_in_python, run_on_loop};
//! use pyo3::prelude::*;
//!
//! /// A sync function for Python; no thread waits while it waits.
//! #[pyfunction]
//! fn fetch(py: Python<'_>, url: String, credentials: &Bound<'_, PyAny>) -> PyResult<String> {
//!     // `credentials` is an `async def` of the user's.
//!     let token: String = await_in_python(&credentials.call0()?)?.extract()?;
//!     run_on_loop(py, client().get(url, token))?
//! }
//! ```
//!
//! # Where it works
//!
//! Wherever Python's `fiberback.await_` does, as it is what is called: in a portal, in any task of an
//! `asyncio` loop, in threads of executors, without a loop. Where that raises, so does this, with the
//! same words.
//!
//! # What holds while a call is suspended
//!
//! Other code of the same thread runs, this function perhaps, for another task. So:
//!
//! - No lock may be held over the call, and no `RefCell` borrowed: the other code would wait for it on
//!   the same thread, for ever, or panic. A `#[pyclass]` method with `&mut self` holds such a borrow.
//! - Thread-local variables are shared with the code that runs meanwhile.
//! - PyO3 counts for each thread how deep in calls from Python it is, and [`Python::detach`](pyo3::Python::detach) puts an
//!   absolute count back. Calls that overlap on one thread would mix these counts up. The functions
//!   here take the calling function's count out of it while it is suspended (they detach, and attach
//!   below PyO3's notice), so none of it is left behind. Plain `call0()` of a Python function that waits
//!   does not: use [`call_in_python`] for callbacks of the user's.
//! - A program that embeds Python runs its loop in [`run_loop`], for the same reason.
//!
//! # Cancellation
//!
//! What cancels the task (or closes the portal) is raised by the call, as `Err`: return it, with `?`. Locals
//! are dropped on the way, and a Rust future that was waited for is dropped with them.
//!
//! # Panics
//!
//! A panic of a future passes through `run_on_loop` as through any call. What a Python callback
//! raises out of a panic of another extension function (`PanicException`) goes on as a panic.
//!
//! [PyO3]: https://pyo3.rs
//! [fiberback]: https://pypi.org/project/fiberback/

mod apart;
mod api;
mod future;
#[cfg(feature = "tokio")]
mod runtime;
mod sync_pyfunction;
mod thread_exit;

pub use apart::{await_in_python, call_in_python, run_loop};
pub use future::run_on_loop;
#[cfg(feature = "tokio")]
pub use runtime::{TokioHandleIsSet, set_tokio_handle};

#[doc(hidden)]
pub use pyo3 as __pyo3;
