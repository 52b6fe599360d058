//! Calls that may suspend, made apart from PyO3's records of the thread.
//!
//! # Invariant
//!
//! While a call that is made here runs, PyO3's count of attachments of this thread is zero from the
//! caller's part, and when it has returned it is what it was before. The count is private to PyO3, but
//! [`Python::detach`] sets it to zero and puts back what it was (`SuspendAttach` in PyO3's
//! src/internal/state.rs). In between the thread is attached again by the C API, which the count
//! does not notice. Fibers whose calls overlap so find zero, leave zero, and restore each its own.

use crate::api;
use crate::thread_exit::{stays, unwinding};
use pyo3::ffi::{self, PyObject, PyThreadState};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Waits for a Python awaitable (a coroutine, future, task, whatever `await` takes), and returns its result.
///
/// What `fiberback.await_(awaitable)` does in Python, called from Rust. Meanwhile the event loop
/// runs other tasks on this thread. See the [crate's page](crate) for what must not be held then.
///
/// # Errors
///
/// What the awaitable raises; what cancels the caller; RuntimeError with the cure where there is no
/// way to wait; ImportError if the package fiberback is not installed.
pub fn await_in_python<'py>(awaitable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = awaitable.py();
    let api = api::get(py)?;
    let awaitable = awaitable.as_ptr();
    // SAFETY: the caller's reference lasts for the call, which is made attached.
    unsafe { apart(py, || (api.await_)(awaitable)) }
}

/// Calls a Python function that may wait by `fiberback.await_`, directly or below: a callback of the
/// user's.
///
/// Any call may be made so; it costs a release and an acquisition of the GIL more than `call()`.
///
/// # Errors
///
/// What the function raises.
pub fn call_in_python<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let function_ptr = function.as_ptr();
    let arguments = arguments.as_ptr();
    let keywords = keywords.map_or(std::ptr::null_mut(), Bound::as_ptr);
    type Object = *mut PyObject;
    let call = unwinding!(ffi::PyObject_Call as fn(Object, Object, Object) -> Object);
    // SAFETY: the caller's references last for the call, which is made attached.
    unsafe { apart(function.py(), || call(function_ptr, arguments, keywords)) }
}

/// Calls a Python function that runs an event loop (`asyncio.run`), from a program that embeds Python.
///
/// The program's own attachment (`Python::attach`) is below everything that the loop runs. Made
/// through here, the call takes it out of PyO3's count, so that functions of this binary that the loop's
/// tasks call, and that are suspended in turns, all count from zero.
///
/// # Errors
///
/// What the function raises.
pub fn run_loop<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    call_in_python(function, arguments, None)
}

/// Makes a call of the C API as described above.
///
/// # Safety
///
/// `call` must return a new reference, or null with an exception set, must be sound to call
/// attached on this thread, and must be what [`stays`] asks for.
unsafe fn apart<'py>(
    py: Python<'py>,
    call: impl FnOnce() -> *mut PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    struct OnThisThread<T>(T);
    // SAFETY: `detach` asks for `Send` to keep things that belong to an attached thread from being used
    // detached. The closure below attaches again before it touches them, and runs on this thread.
    unsafe impl<T> Send for OnThisThread<T> {}
    impl<T> OnThisThread<T> {
        fn into_inner(self) -> T {
            self.0
        }
    }

    // SAFETY: attached.
    let thread_state: *mut PyThreadState = unsafe { ffi::PyThreadState_Get() };
    let arguments = OnThisThread((call, thread_state));
    let outcome = py.detach(move || {
        let (call, thread_state) = arguments.into_inner();
        // SAFETY: `detach` has just released this thread's state, which stays the thread's: a suspended
        // fiber is resumed with the state that it was suspended with. The exception is taken before the state
        // is released: what `detach` does next may run destructors. Nothing here panics, so that
        // the state is released in any case before `detach` takes it again.
        unsafe {
            ffi::PyEval_RestoreThread(thread_state);
            let result = stays(call);
            let exception = if result.is_null() { take_exception() } else { std::ptr::null_mut() };
            ffi::PyEval_SaveThread();
            OnThisThread((result, exception))
        }
    });
    let (result, exception) = outcome.into_inner();
    // SAFETY: attached again; both are new references or null. Set again, the exception is met by PyO3
    // as that of any call, so that a panic of an extension below goes on as a panic.
    unsafe {
        if result.is_null() {
            set_exception(exception);
        }
        Bound::from_owned_ptr_or_err(py, result)
    }
}

/// The exception that is set, as a new reference; none is set then.
unsafe fn take_exception() -> *mut PyObject {
    // SAFETY: attached.
    #[cfg(Py_3_12)]
    unsafe {
        ffi::PyErr_GetRaisedException()
    }
    // SAFETY: attached; normalized, the value is an exception with its own type and traceback.
    #[cfg(not(Py_3_12))]
    unsafe {
        let (mut kind, mut value, mut traceback) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        ffi::PyErr_Fetch(&mut kind, &mut value, &mut traceback);
        ffi::PyErr_NormalizeException(&mut kind, &mut value, &mut traceback);
        if !traceback.is_null() {
            ffi::PyException_SetTraceback(value, traceback);
            ffi::Py_DECREF(traceback);
        }
        ffi::Py_XDECREF(kind);
        value
    }
}

/// Sets an exception, whose reference is handed over.
unsafe fn set_exception(exception: *mut PyObject) {
    // SAFETY: attached.
    #[cfg(Py_3_12)]
    unsafe {
        ffi::PyErr_SetRaisedException(exception);
    }
    // SAFETY: attached; an exception's type is its kind.
    #[cfg(not(Py_3_12))]
    unsafe {
        let kind = ffi::Py_TYPE(exception).cast::<PyObject>();
        ffi::Py_INCREF(kind);
        ffi::PyErr_Restore(kind, exception, ffi::PyException_GetTraceback(exception));
    }
}
