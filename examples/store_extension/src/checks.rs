//! For the tests: what cannot be seen from Python.

use fiberback_pyo3::{call_in_python, run_on_loop};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::future::poll_fn;
use std::task::Poll;

// The native module's barrier against panics, as it is there.
#[path = "../../../pyext/src/barrier.rs"]
mod barrier;
#[path = "../../../pyext/src/messages.rs"]
#[allow(dead_code, reason = "the whole table")]
mod messages;
mod error {
    use pyo3::ffi;

    pub(crate) fn set(exception: *mut ffi::PyObject, message: &str) {
        let message = std::ffi::CString::new(message).expect("no zero bytes in the tests' texts");
        // SAFETY: the barrier is called attached; both arguments are valid.
        unsafe { ffi::PyErr_SetString(exception, message.as_ptr()) }
    }
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(panic_after_a_wait, module)?)?;
    module.add_function(wrap_pyfunction!(panic_at_the_barrier, module)?)?;
    module.add_function(wrap_pyfunction!(wake_itself, module)?)?;
    module.add_function(wrap_pyfunction!(call_plainly, module)?)?;
    module.add_function(wrap_pyfunction!(call_apart, module)?)?;
    module.add_function(wrap_pyfunction!(call_detached, module)?)?;
    Ok(())
}

#[pyfunction]
fn panic_after_a_wait(py: Python<'_>) -> PyResult<()> {
    run_on_loop(py, async {
        tokio::task::yield_now().await;
        panic!("on purpose");
    })
}

/// What the native module's functions do if they panic with `text`; without, with what is no text.
#[pyfunction]
#[pyo3(signature = (text=None))]
fn panic_at_the_barrier(py: Python<'_>, text: Option<String>) -> PyResult<()> {
    let returned = barrier::barrier(false, || match text {
        Some(text) if text.is_empty() => panic!("a literal"),
        Some(text) => panic!("{text}"),
        None => std::panic::panic_any(1),
    });
    if returned { Ok(()) } else { Err(PyErr::fetch(py)) }
}

/// Pending so many times, woken each time before it says so.
#[pyfunction]
fn wake_itself(py: Python<'_>, times: u32) -> PyResult<u32> {
    let mut polled = 0;
    let future = poll_fn(move |context| {
        polled += 1;
        if polled > times {
            return Poll::Ready(polled);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    run_on_loop(py, future)
}

/// A callback as extensions call one that know nothing of fiberback.
#[pyfunction]
fn call_plainly<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    function.call0()
}

#[pyfunction]
fn call_apart<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    call_in_python(function, &PyTuple::empty(function.py()), None)
}

/// From within an engine that runs detached, as polars does.
#[pyfunction]
fn call_detached(py: Python<'_>, function: Py<PyAny>) -> PyResult<Py<PyAny>> {
    py.detach(|| {
        Python::attach(|py| {
            call_in_python(function.bind(py), &PyTuple::empty(py), None).map(Bound::unbind)
        })
    })
}

/// To be called by `ctypes.CDLL`, detached: whether the thread is attached where PyO3 says so.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn store_extension_attaches() -> i32 {
    // SAFETY: no more than a look at the thread.
    Python::attach(|_| unsafe { ffi::PyGILState_Check() })
}
