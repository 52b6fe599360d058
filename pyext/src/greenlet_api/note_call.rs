//! Notes for the collector what the caller of `switch` keeps for the time of the call, where the interpreter does not
//! tell (up to 3.13).

use super::layout::Greenlet;
use crate::interp;
use crate::switch_call::SwitchCall;
use crate::worker;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The method `switch` as the class has it, borrowed.
static METHOD: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Sets it (borrowed, kept for ever).
pub(super) fn set_method(method: *mut PyObject) {
    METHOD.store(method, Ordering::Relaxed);
}

/// While it lives, the collector is shown what `switch` was called with.
pub(super) struct NotedCall {
    place: *mut SwitchCall,
    before: SwitchCall,
}

impl NotedCall {
    /// None if that need not be, or cannot be told.
    ///
    /// # Safety
    ///
    /// Attached; `arguments` are those of the call of `this`' method, so many with the named ones.
    #[inline(always)]
    pub(super) unsafe fn by_caller(
        ts: *mut PyThreadState,
        this: *mut PyObject,
        arguments: *const *mut PyObject,
        count: usize,
    ) -> Option<Self> {
        if cfg!(any(cpython = "3.14", cpython = "3.15")) {
            return None;
        }
        // SAFETY: attached; the worker is current, and with it its greenlet or its owner alive, as long as its code
        // makes the call.
        unsafe {
            let worker = worker::current();
            if worker.is_null() {
                return None;
            }
            let place = if !(*worker).guest.is_null() {
                &raw mut (*(*(*worker).guest.cast::<Greenlet>()).inner).switch_call
            } else if !(*worker).owner.is_null() {
                &raw mut (*(*worker).owner).switch_call
            } else {
                return None;
            };
            // `self` is below the arguments where the function is the class's, and in the function that is its own.
            let is_own = |function: *mut PyObject| {
                ffi::PyCFunction_Check(function) != 0
                    && ptr::eq(ffi::PyCFunction_GET_SELF(function), this)
            };
            let is_class = |function: *mut PyObject, first: *mut PyObject| {
                ptr::eq(function, METHOD.load(Ordering::Relaxed)) && first == this
            };
            let below = interp::caller_owns_arguments(ts, arguments, is_own, is_class)?;
            let call = SwitchCall::new(arguments.sub(below), count + below);
            Some(Self { place, before: place.replace(call) })
        }
    }
}

impl Drop for NotedCall {
    fn drop(&mut self) {
        // SAFETY: the code that was called runs on the worker again, or still.
        unsafe { self.place.write(self.before) }
    }
}
