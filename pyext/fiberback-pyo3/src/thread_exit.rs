//! Calls of Python code that a thread may not come back from.
//!
//! # Invariant
//!
//! Up to 3.13 CPython ends a thread that wants the GIL while the interpreter exits by `pthread_exit` (`take_gil`
//! in Python/ceval_gil.c), and any Python code may give the GIL up and want it again. glibc unwinds
//! the thread's stack then, which must not get into a Rust frame: that would run destructors without the
//! GIL (PyO3's of an attachment ends the process, "`PyGILState_Release`: thread state … must be current when
//! releasing"), and `catch_unwind`, tokio's around a worker thread for one, aborts. So whatever calls Python
//! code here does it within [`stays`], by a pointer of [`unwinding!`]: the thread stays there for the rest of
//! the process's life, without the GIL, as CPython itself has it since 3.14 (`PyThread_hang_thread`) and
//! PyO3 where a thread attaches.

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::mem;

/// A function of the C API that may run Python code, as a pointer that the compiler takes for one to a
/// function that unwinds. It would leave no entry in the caller's unwind table for a plain call: PyO3
/// declares these functions `extern "C"`.
macro_rules! unwinding {
    ($function:path as fn($($argument:ty),*) $(-> $result:ty)?) => {{
        type Plain = unsafe extern "C" fn($($argument),*) $(-> $result)?;
        type Unwinding = unsafe extern "C-unwind" fn($($argument),*) $(-> $result)?;
        // SAFETY: the two ABIs are the same but for what an unwinding does
        // (https://rust-lang.github.io/rfcs/2945-c-unwind-abi.html).
        let function = unsafe { ::std::mem::transmute::<Plain, Unwinding>($function) };
        // So that nobody sees which function that is.
        ::std::hint::black_box(function)
    }};
}
pub(crate) use unwinding;

/// Makes a call of Python code, by a pointer of type `extern "C-unwind"`. `call` must not panic, and must hold
/// nothing that is to be dropped.
pub(crate) fn stays<T>(call: impl FnOnce() -> T) -> T {
    let stays = Stays;
    let result = call();
    mem::forget(stays);
    result
}

/// Whoever unwinds past this stays here.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        #[cfg(not(Py_3_14))] // where nothing unwinds
        loop {
            std::thread::park();
        }
    }
}

/// Calls a Python function without arguments.
///
/// # Errors
///
/// What it raises.
pub(crate) fn call0<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let object = function.as_ptr();
    let call = unwinding!(ffi::PyObject_CallNoArgs as fn(*mut PyObject) -> *mut PyObject);
    // SAFETY: attached; the caller's reference lasts for the call, which returns a new one, or null with an
    // exception set.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), stays(|| call(object))) }
}

/// Calls a Python function without arguments from any thread, attached or not. What it raises goes to
/// `sys.unraisablehook`.
///
/// While the interpreter exits, nothing is called, and the reference stays: there is nobody to give it back
/// to.
pub(crate) fn call0_from_any_thread(function: Py<PyAny>) {
    let function = function.into_ptr();
    // SAFETY: may be asked at any time.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        return;
    }
    #[cfg(Py_3_13)] // before, an interpreter that exits is no longer initialized
    // SAFETY: may be asked at any time.
    if unsafe { ffi::Py_IsFinalizing() } != 0 {
        return;
    }
    let call = unwinding!(ffi::PyObject_CallNoArgs as fn(*mut PyObject) -> *mut PyObject);
    let report = unwinding!(ffi::PyErr_WriteUnraisable as fn(*mut PyObject));
    let release = unwinding!(ffi::Py_DecRef as fn(*mut PyObject));
    let detach = unwinding!(ffi::PyGILState_Release as fn(ffi::PyGILState_STATE));
    // SAFETY: the interpreter is there; if it exits just now, the thread stays in the first call, which is
    // PyO3's and sees to that. After it the thread is attached until the last call, and the reference,
    // which is this function's, is given back in between. `Python::attach` would do the same, and drop other
    // threads' references besides, outside of `stays`.
    unsafe {
        let attached = ffi::PyGILState_Ensure();
        stays(|| {
            let result = call(function);
            if result.is_null() {
                report(function);
            } else {
                release(result);
            }
            release(function);
            detach(attached);
        });
    }
}
