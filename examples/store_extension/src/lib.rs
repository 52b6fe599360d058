//! A store of objects far away, as extensions like obstore offer one: synchronous functions for Python
//! that wait for I/O in Rust, and for the user's `async def` callbacks, below any sync Python code,
//! while the event loop runs other tasks on the same thread.
//!
//! `tests/python/test_extension.py` builds it, and has 1,000 tasks overlap in it.

#[cfg(feature = "checks")]
mod checks;

use fiberback_pyo3::{await_in_python, call_in_python, run_on_loop, sync_pyfunction};
use pyo3::exceptions::{PyKeyError, PyPermissionError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A store that answers after `latency` seconds.
#[pyclass(frozen)]
struct Store {
    objects: Mutex<HashMap<String, Vec<u8>>>,
    /// An `async def` without arguments that returns a token, asked before each access.
    credentials: Py<PyAny>,
    latency: Duration,
    in_progress: AtomicUsize,
}

/// An access that is on its way. Dropped when it is done, or its caller is cancelled.
struct Access<'a>(&'a AtomicUsize);

impl<'a> Access<'a> {
    fn begin(in_progress: &'a AtomicUsize) -> Self {
        in_progress.fetch_add(1, Ordering::Relaxed);
        Self(in_progress)
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    fn authorize(&self, py: Python<'_>) -> PyResult<()> {
        let coroutine = self.credentials.bind(py).call0()?;
        let token: String = await_in_python(&coroutine)?.extract()?;
        if token.is_empty() {
            return Err(PyPermissionError::new_err("an empty token"));
        }
        Ok(())
    }

    async fn find(&self, path: &str) -> Option<Vec<u8>> {
        let _access = Access::begin(&self.in_progress);
        tokio::time::sleep(self.latency).await;
        // Locked for this expression only, never over an await.
        self.objects.lock().unwrap().get(path).cloned()
    }
}

#[pymethods]
impl Store {
    #[new]
    fn new(credentials: Py<PyAny>, latency: f64) -> Self {
        let latency = Duration::from_secs_f64(latency);
        Self { objects: Mutex::default(), credentials, latency, in_progress: AtomicUsize::new(0) }
    }

    /// How many accesses are on their way.
    #[getter]
    fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Puts an object there.
    fn put(&self, py: Python<'_>, path: String, content: Vec<u8>) -> PyResult<()> {
        self.authorize(py)?;
        run_on_loop(py, async {
            let _access = Access::begin(&self.in_progress);
            tokio::time::sleep(self.latency).await;
            self.objects.lock().unwrap().insert(path, content);
        })
    }

    /// The object's bytes; KeyError if there is none.
    fn get<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyBytes>> {
        self.authorize(py)?;
        match run_on_loop(py, self.find(path))? {
            Some(content) => Ok(PyBytes::new(py, &content)),
            None => Err(PyKeyError::new_err(path.to_owned())),
        }
    }

    /// Calls `each(path, content)`, which may wait as well, with every object; returns what it returned.
    fn map<'py>(
        &self,
        py: Python<'py>,
        each: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // A copy: other tasks may put objects while `each` waits.
        let mut objects: Vec<_> = self.objects.lock().unwrap().clone().into_iter().collect();
        objects.sort();
        let call = |(path, content): (String, Vec<u8>)| {
            let arguments = (path, PyBytes::new(py, &content)).into_pyobject(py)?;
            call_in_python(each, &arguments, None)
        };
        objects.into_iter().map(call).collect()
    }
}

sync_pyfunction! {
    /// Waits, and returns the name.
    #[pyo3(signature = (seconds, name = None))]
    async fn pause(seconds: f64, name: Option<String>) -> PyResult<String> {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        Ok(name.unwrap_or_else(|| "nobody".to_owned()))
    }
}

/// The same pause, for which a thread is blocked: what extensions do without fiberback.
#[pyfunction]
fn pause_blocking(py: Python<'_>, seconds: f64) {
    let pause = async { tokio::time::sleep(Duration::from_secs_f64(seconds)).await };
    py.detach(|| runtime().block_on(pause));
}

/// The same pause, as an awaitable.
#[cfg(feature = "peers")]
#[pyfunction]
fn pause_async(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
    pyo3_async_runtimes::tokio::future_into_py(py, async move {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        Ok(())
    })
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

#[pymodule(gil_used = true)]
fn store_extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Store>()?;
    module.add_function(wrap_pyfunction!(pause, module)?)?;
    module.add_function(wrap_pyfunction!(pause_blocking, module)?)?;
    #[cfg(feature = "checks")]
    checks::add_to(module)?;
    #[cfg(feature = "peers")]
    module.add_function(wrap_pyfunction!(pause_async, module)?)?;
    Ok(())
}
