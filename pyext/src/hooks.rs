//! What the Python layer has `await_` call, and lets it know of asyncio: set all at a time, by `set_hooks()`.

use crate::asyncio_future::{FUTURE, PURE_FUTURE, WAITERS};
use crate::barrier::barrier;
use crate::no_portal::NO_PORTAL;
use crate::{await_, awaitable, current_task, error, task_waits, usable_portal};
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What `set_hooks` sets, by the name of its keyword argument.
static HOOKS: [(&CStr, &AtomicPtr<PyObject>); 12] = [
    (c"no_portal", &NO_PORTAL),
    (c"is_usable", &usable_portal::IS_USABLE),
    (c"current_task", &current_task::CURRENT_TASK),
    (c"guard", &await_::GUARD),
    (c"not_awaitable", &awaitable::NOT_AWAITABLE),
    (c"awaited", &await_::AWAITED),
    (c"before_wait", &task_waits::BEFORE_WAIT),
    (c"after_wait", &task_waits::AFTER_WAIT),
    (c"future", &FUTURE),
    (c"pure_future", &PURE_FUTURE),
    (c"wait", &WAITERS[0]),
    (c"wait_for", &WAITERS[1]),
];

/// `_fiberback.set_hooks(**hooks)`: those that are not given are unset.
pub(crate) unsafe extern "C" fn set_hooks(
    _module: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: `METH_VARARGS | METH_KEYWORDS`: a tuple, and a dict with strings as keys or null.
        unsafe {
            let mut hooks = [ptr::null_mut::<PyObject>(); HOOKS.len()];
            let mut known = 0;
            for ((name, _), hook) in HOOKS.iter().zip(&mut hooks) {
                if !keywords.is_null() {
                    let value = ffi::PyDict_GetItemString(keywords, name.as_ptr());
                    known += isize::from(!value.is_null());
                    *hook = if value == ffi::Py_None() { ptr::null_mut() } else { value };
                }
            }
            let given = if keywords.is_null() { 0 } else { ffi::PyDict_Size(keywords) };
            if known != given || ffi::PyTuple_Size(arguments) != 0 {
                error::set_type("set_hooks() takes the hooks' names as keywords, and nothing else");
                return ptr::null_mut();
            }
            for ((name, place), hook) in HOOKS.iter().zip(hooks) {
                // `asyncio_future.rs` takes them for types.
                let is_type = ptr::eq(*place, &FUTURE) || ptr::eq(*place, &PURE_FUTURE);
                if is_type && !hook.is_null() && ffi::PyType_Check(hook) == 0 {
                    error::set_type(&format!("set_hooks(): {name:?} must be a type"));
                    return ptr::null_mut();
                }
            }
            for ((_, place), hook) in HOOKS.iter().zip(hooks) {
                ffi::Py_XINCREF(hook);
                let previous = place.swap(hook, Ordering::Relaxed);
                ffi::Py_XDECREF(previous);
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
