//! `async fn` in Rust, a synchronous function in Python.

/// Exposes a Rust `async fn` as a *synchronous* Python function that suspends its caller while it waits.
///
/// What is written as
///
/// ```ignore
/// fiberback_pyo3::sync_pyfunction! {
///     /// The page at a URL.
///     pub async fn get(url: String, retries: u32) -> PyResult<String> {
///         client().get(&url).retry(retries).await.map_err(to_python)
///     }
/// }
/// ```
///
/// is a `#[pyfunction]` `get(url, retries)`, whose body runs by [`run_on_loop`](crate::run_on_loop).
/// Attributes (`#[pyo3(signature = (url, retries = 3))]`) go before the `async`. Arguments are owned types
/// that may leave the interpreter (`String`, `Vec<u8>`, `Py<T>`): the body runs detached. The result
/// must be a `Result` whose error can be made from a `PyErr`.
#[macro_export]
macro_rules! sync_pyfunction {
    (
        $(#[$attribute:meta])*
        $visibility:vis async fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty $body:block
    ) => {
        #[$crate::__pyo3::pyfunction]
        $(#[$attribute])*
        $visibility fn $name(py: $crate::__pyo3::Python<'_>, $($argument: $type),*) -> $result {
            $crate::run_on_loop(py, async move $body)?
        }
    };
}
