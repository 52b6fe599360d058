//! What users set of fibers' stacks, take back of their memory, and are told of them.

use crate::barrier::barrier;
use crate::thread::Thread;
use crate::{error, fallbacks, greenlet, leaks, messages, stacks, step};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.set_stack_size(bytes)`.
pub(crate) unsafe extern "C" fn set_stack_size(
    _: *mut PyObject,
    bytes: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let bytes = ffi::PyLong_AsSize_t(bytes);
            if bytes == usize::MAX && !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            if bytes < stacks::LEAST_STACK_SIZE {
                let least = stacks::LEAST_STACK_SIZE;
                error::set(
                    ffi::PyExc_ValueError,
                    &messages::SMALL_STACK
                        .replace("{bytes}", &bytes.to_string())
                        .replace("{least}", &least.to_string()),
                );
                return ptr::null_mut();
            }
            if let Err(refused) = stacks::set_stack_size(bytes) {
                let refused = messages::STACK_REFUSED.replace("{error}", &refused.to_string());
                error::set(ffi::PyExc_ValueError, &refused);
                return ptr::null_mut();
            }
            Thread::trim(Thread::this());
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// `_fiberback.get_stack_size()`.
pub(crate) unsafe extern "C" fn get_stack_size(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached.
        unsafe { ffi::PyLong_FromSize_t(stacks::pool().stack_size()) }
    })
}

/// `_fiberback.trim()`.
pub(crate) unsafe extern "C" fn trim(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; this thread's record.
        unsafe {
            Thread::trim(Thread::this());
            step::forget();
            let fallback = stacks::fallback().map_or(0, |pool| pool.trim());
            ffi::PyLong_FromSize_t(stacks::pool().trim() + fallback)
        }
    })
}

/// `_fiberback.stats()`.
pub(crate) unsafe extern "C" fn stats(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let pool = stacks::pool().stats();
        // Made at once with the pool, hence of use only where that could get no more.
        let small = stacks::fallback().map(|pool| pool.stats());
        let sum = |count: fn(&fiberback::fiber::PoolStats) -> usize| {
            count(&pool) + small.as_ref().map_or(0, count)
        };
        // SAFETY: attached; this thread's record; fresh objects.
        unsafe {
            let [idle, suspended, shared] = Thread::counts(Thread::this());
            let entries = [
                (c"fibers_idle", idle),
                (c"fibers_suspended", suspended),
                (c"stack_size", pool.stack_size),
                (c"stacks_shared", shared),
                (c"stacks_in_use", sum(|pool| pool.in_use)),
                (c"stacks_warm", sum(|pool| pool.warm)),
                (c"stacks_cold", sum(|pool| pool.cold)),
                (c"stacks_high_water", sum(|pool| pool.high_water)),
                (c"stacks_leaked", leaks::stacks()),
                (c"stacks_small", fallbacks::SMALL_STACK.count()),
                (c"stacks_not_shared", fallbacks::OWN_STACK.count()),
                (c"wakes_put_off", fallbacks::WAKE_PUT_OFF.count()),
                (c"loops_not_passed_on", fallbacks::NO_RUNNER.count()),
                (c"reserved_bytes", sum(|pool| pool.reserved_bytes)),
                (c"greenlet_loaded", usize::from(greenlet::look())),
                (c"greenlet_replaced", usize::from(greenlet::is_replaced())),
            ];
            let dict = ffi::PyDict_New();
            if dict.is_null() {
                return dict;
            }
            for (name, value) in entries {
                let value = ffi::PyLong_FromSize_t(value);
                let failed =
                    value.is_null() || ffi::PyDict_SetItemString(dict, name.as_ptr(), value) < 0;
                ffi::Py_XDECREF(value);
                if failed {
                    ffi::Py_DECREF(dict);
                    return ptr::null_mut();
                }
            }
            dict
        }
    })
}
