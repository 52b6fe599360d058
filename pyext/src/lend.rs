//! What a thread that waits lends to those who work for it: its contexts, and its async generators.
//!
//! Where `await_()` waits for an event loop that is not on its own stack, code runs in the waiter's
//! `contextvars` context meanwhile, in this thread or in another one. A context is entered once at a
//! time, so the waiter leaves it for as long as it waits.

use crate::barrier::barrier;
use crate::interp::contexts::{self, Lent};
use crate::interp::facts::{self, field};
use crate::{arguments, error};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::time::{Duration, Instant};

/// How long a waiter that goes on waits for its contexts, if somebody is in one of them.
const PATIENCE: Duration = Duration::from_millis(200);

/// `_fiberback.lend_context(function)`: `function(context)` with the caller's contexts left, so that
/// the innermost one, `context`, can be entered by anybody.
pub(crate) unsafe extern "C" fn lend_context(
    _: *mut PyObject,
    function: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached, no error set; `function` is lent.
        unsafe {
            let ts = ffi::PyThreadState_Get();
            if contexts::current(ts).is_null() {
                // Copying makes a context where the thread has none.
                let copy = ffi::PyContext_CopyCurrent();
                if copy.is_null() {
                    return copy;
                }
                ffi::Py_DECREF(copy);
            }
            let context = ffi::Py_NewRef(contexts::current(ts));
            let lent = Lent::take(ts);
            let result = ffi::PyObject_CallOneArg(function, context);
            let pending = error::take();
            wait_for(&lent);
            if !lent.are_free() && !pending.is_null() {
                // A `Context.run()` further out will fail, for its context is another's, and hide
                // what we have to say.
                error::restore(ffi::Py_NewRef(pending));
                ffi::PyErr_WriteUnraisable(function);
            }
            lent.put_back(ts);
            ffi::Py_DECREF(context);
            if !pending.is_null() {
                error::restore(pending);
            }
            result
        }
    })
}

/// Somebody may be in a context of ours still, if the caller has given up before it was answered.
unsafe fn wait_for(lent: &Lent) {
    let until = Instant::now() + PATIENCE;
    // SAFETY: attached; while others run, nobody uses what is on our stack.
    unsafe {
        while !lent.are_free() && Instant::now() < until {
            nap();
        }
    }
}

/// Lets other threads run for a moment.
unsafe fn nap() {
    // SAFETY: the caller's: attached.
    unsafe {
        let saved = ffi::PyEval_SaveThread();
        libc::usleep(1000);
        ffi::PyEval_RestoreThread(saved);
    }
}

/// `_fiberback.set_finalizer(generator, finalizer)`: what is called with an async generator that
/// nobody has told its event loop of, before it is destroyed. False if it has one, or is none.
pub(crate) unsafe extern "C" fn set_finalizer(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: two borrowed objects. The type is checked before the
        // field is touched, which owns its reference or is null (`async_gen_init_hooks` in
        // Objects/genobject.c).
        unsafe {
            let usage = "set_finalizer() takes two arguments";
            let Some([generator, finalizer]) =
                arguments::exactly(arguments, count, usage, |_| true)
            else {
                return ptr::null_mut();
            };
            let mut is_set = false;
            if ffi::Py_TYPE(generator) == &raw mut ffi::PyAsyncGen_Type {
                let slot = field::<_, *mut PyObject>(generator, facts::GEN_FINALIZER);
                if (*slot).is_null() {
                    *slot = ffi::Py_NewRef(finalizer);
                    is_set = true;
                }
            }
            ffi::Py_NewRef(if is_set { ffi::Py_True() } else { ffi::Py_False() })
        }
    })
}
