//! For the tests: what cannot be seen from Python.

use fiberback_pyo3::{call_in_python, run_on_loop};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::future::poll_fn;
use std::task::Poll;

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(panic_after_a_wait, module)?)?;
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
