//! Waits of one task for another, of which the Python layer is told: it finds circles of them.

use crate::asyncio_future::is_for_task;
use crate::error;
use crate::step::{self, ask};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants called before a task is suspended for another one to finish.
pub(crate) static BEFORE_WAIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants called when such a wait has ended.
pub(crate) static AFTER_WAIT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Whether the Python layer has nothing against waiting for what `iterator` has yielded; it is asked
/// only where that may be a task. If it has, false with the error set. If not, `watched` may be made
/// an object (owned) that [`wait_has_ended`] is to be given after the wait.
///
/// # Safety
///
/// Attached, no error set; both valid and borrowed.
#[inline(always)]
pub(crate) unsafe fn may_wait_for(
    yielded: *mut PyObject,
    iterator: *mut PyObject,
    watched: &mut *mut PyObject,
) -> bool {
    // SAFETY: the contract.
    unsafe { !is_for_task(yielded, iterator) || may_wait(yielded, watched) }
}

#[inline(never)]
unsafe fn may_wait(future: *mut PyObject, watched: &mut *mut PyObject) -> bool {
    let hook = BEFORE_WAIT.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; `future` is valid and borrowed, the hook kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = step::call(hook, future);
        ffi::Py_DECREF(hook);
        if answer == ffi::Py_None() {
            ffi::Py_DECREF(answer);
        } else {
            *watched = answer;
        }
        !answer.is_null()
    }
}

/// Tells the Python layer that a wait has ended which [`may_wait_for`] has told it of. Takes
/// `watched` over. What is to be raised at the place of the wait (owned), or null.
///
/// # Safety
///
/// Attached, no error set.
#[inline(never)]
pub(crate) unsafe fn wait_has_ended(watched: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let told = ask(&AFTER_WAIT, watched);
        ffi::Py_DECREF(watched);
        if told {
            return ptr::null_mut();
        }
        let exception = error::take();
        // Ctrl-C came in the middle of it: for the program. Anything else would be our mistake, as
        // in an interpreter that has taken our modules apart.
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_Exception) == 0 {
            return exception;
        }
        error::restore(exception);
        ffi::PyErr_WriteUnraisable(ptr::null_mut());
        ptr::null_mut()
    }
}
