//! Rust futures, polled where they are waited for; in between the event loop runs.

#[cfg(feature = "tokio")]
use crate::runtime;
use crate::thread_exit::{call0, call0_from_any_thread, stays};
use crate::{apart, api};
use pyo3::prelude::*;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Runs a Rust future to its end, while the event loop runs other tasks on this thread.
///
/// The future is polled here, in the calling function, detached from the interpreter; it may borrow
/// from the caller, and needs no executor; `Send` keeps Python references out of it. While it is pending the caller's stack is suspended, as by
/// [`await_in_python`](crate::await_in_python); its waker, which any thread may call, has the
/// event loop resume it. With the feature `tokio` (on by default) it is polled within a tokio runtime, so that
/// tokio's timers, sockets and `spawn` work in it: the runtime that the thread is in, or what
/// [`set_tokio_handle`](crate::set_tokio_handle) was given, or a runtime of the crate's own, with one
/// worker thread, started when it is first needed and kept for the life of the process.
///
/// # Errors
///
/// What cancels the caller, and where there is no way to wait, RuntimeError. The future is dropped then.
///
/// # Panics
///
/// If the future does, or if tokio's runtime cannot be started.
pub fn run_on_loop<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let api = api::get(py)?;
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    let mut future = pin!(future);
    loop {
        alarm.is_woken.store(false, Ordering::Release);
        let polled = py.detach(|| {
            // For this poll only: what it sets is the thread's, and other tasks run in between.
            #[cfg(feature = "tokio")]
            let _entered = runtime::enter();
            future.as_mut().poll(&mut Context::from_waker(&waker))
        });
        if let Poll::Ready(output) = polled {
            return Ok(output);
        }
        // SAFETY: attached; a new reference, or null with an exception set.
        let event = unsafe { Bound::from_owned_ptr_or_err(py, stays(|| (api.event)()))? };
        let set = event.getattr("set")?;
        if alarm.arm(set.clone().unbind()) {
            // Woken already. The loop has its turn nevertheless: a future that wakes itself wants that.
            call0(&set)?;
        }
        let waited = apart::await_in_python(&call0(&event.getattr("wait")?)?);
        alarm.disarm(py);
        waited?;
    }
}

/// What a waker sets off: it calls `set()` of the event that the caller waits for.
#[derive(Default)]
struct Alarm {
    is_woken: AtomicBool,
    set: Mutex<Option<Py<PyAny>>>,
}

impl Alarm {
    /// From here on a wake calls this. True if there was one since the poll began: then no
    /// other may come.
    fn arm(&self, set: Py<PyAny>) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        // After the function is there: a wake that has not seen it is seen here.
        self.is_woken.load(Ordering::Acquire)
    }

    fn disarm(&self, py: Python<'_>) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(set) = set {
            set.drop_ref(py);
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        // Taken out, so that the lock is not held while this thread waits for the interpreter.
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(set) = set {
            call0_from_any_thread(set);
        }
    }
}
