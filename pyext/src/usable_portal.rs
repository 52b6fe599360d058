//! Whether this code is on a portal, and may suspend it.

use crate::greenlet;
use crate::worker::{self, Worker};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants asked whether the current portal is the current task's.
pub(crate) static IS_USABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Whether the current portal is one of the task that runs now.
///
/// Something on the portal may be driving a task of its own right now: an eager task that begins
/// in its creator's step, another event loop run to its end. To suspend the portal then would leave
/// that task current for everybody else. All drivers of tasks enter the task's context, so the
/// question comes up only inside a `Context.run` that began on the fiber; and only the Python layer
/// can answer it.
///
/// # Safety
///
/// Attached. An error is set if it could not be found out.
#[cold]
pub(crate) unsafe fn is_usable() -> bool {
    let hook = IS_USABLE.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = ffi::PyObject_CallNoArgs(hook);
        ffi::Py_DECREF(hook);
        let usable = !answer.is_null() && ffi::PyObject_IsTrue(answer) == 1;
        ffi::Py_XDECREF(answer);
        usable
    }
}

/// Whether this code runs on a portal of the task that runs now. False with an error set if that
/// cannot be told.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(crate) unsafe fn is_on_usable_portal() -> bool {
    // SAFETY: passed on.
    unsafe { !unmasked_worker_here().is_null() && is_usable() }
}

/// [`worker_here`], if this code may suspend it; or null.
///
/// # Safety
///
/// Attached, no error set.
#[inline(always)]
pub(crate) unsafe fn unmasked_worker_here() -> *mut Worker {
    // SAFETY: attached; a worker that runs, or waits for a greenlet, is alive.
    unsafe {
        let worker = worker_here();
        if worker.is_null() || Worker::is_masked(worker) || Worker::is_barred(worker::current()) {
            return ptr::null_mut();
        }
        worker
    }
}

/// The worker that this code belongs to: the current one, or the one whose code has switched to the
/// greenlet (of either kind) that this code is in. Null if there is none.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(crate) unsafe fn worker_here() -> *mut Worker {
    // SAFETY: attached; a worker that runs is alive.
    unsafe {
        let worker = Worker::host_of(worker::current());
        if !worker.is_null() {
            return worker;
        }
        greenlet::inside().map_or(worker, |inside| inside.worker)
    }
}
