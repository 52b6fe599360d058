//! Where code on a portal must not suspend it: below `call_masked()`, in a forked child, in regions of
//! `no_await`.

use crate::barrier::barrier;
use crate::error;
use crate::usable_portal::worker_here;
use crate::worker;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.call_masked(fn, *args, **kwargs)`.
pub(crate) unsafe extern "C" fn call_masked(
    _: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        if count < 1 {
            error::set_type("call_masked() needs a callable");
            return ptr::null_mut();
        }
        // SAFETY: `METH_FASTCALL | METH_KEYWORDS`; the first value is the callable. A masked worker
        // does not suspend, and a guest is still on its own when the call returns. Greenlets that the call
        // switches between may have changed the worker that we are here for, and the one before be no more.
        unsafe {
            let call = || {
                let rest = (count - 1) as usize;
                ffi::PyObject_Vectorcall(*arguments, arguments.add(1), rest, keywords)
            };
            let guest = worker::current();
            if !guest.is_null() && !(*guest).guest.is_null() {
                let was_barred = std::mem::replace(&mut (*guest).barred, true);
                let result = call();
                (*guest).barred = was_barred;
                return result;
            }
            let worker = worker_here();
            let was_masked = worker.is_null() || std::mem::replace(&mut (*worker).masked, true);
            let result = call();
            if !was_masked && ptr::eq(worker, worker_here()) {
                // Not in a child that the call has forked.
                (*worker).masked = !(*worker).forked_on.is_null();
            }
            result
        }
    })
}

/// `_fiberback.note_fork(loop)`.
pub(crate) unsafe extern "C" fn note_fork(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; lent. The caller is a function that `os.register_at_fork` was given.
    unsafe {
        worker::note_fork(event_loop);
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// `_fiberback.set_guarded(guarded)`.
pub(crate) unsafe extern "C" fn set_guarded(
    _: *mut PyObject,
    guarded: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; lent.
    unsafe {
        match ffi::PyObject_IsTrue(guarded) {
            -1 => ptr::null_mut(),
            truth => {
                worker::set_guarded(truth != 0);
                ffi::Py_NewRef(ffi::Py_None())
            }
        }
    }
}
