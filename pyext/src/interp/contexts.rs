//! The `contextvars` contexts that the running stack has entered.

use super::facts::{self, field};
use pyo3::ffi::{self, PyObject, PyThreadState};

/// Contexts that a parked stack has left, innermost first. Owned. Mostly it is one, the task's, for which
/// nothing is to be allocated.
pub(crate) struct Left {
    first: *mut PyObject,
    others: Vec<*mut PyObject>,
}

/// The current context, borrowed; null before the thread has one.
///
/// # Safety
///
/// `ts` must be the attached thread state.
pub(crate) unsafe fn current(ts: *mut PyThreadState) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe { *field::<_, *mut PyObject>(ts, facts::TS_CONTEXT) }
}

/// The context that was current when `context` was entered, borrowed.
///
/// # Safety
///
/// `context` must be a `contextvars.Context` that is entered.
pub(crate) unsafe fn below(context: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe { *field::<_, *mut PyObject>(context, facts::CONTEXT_PREVIOUS) }
}

/// Whether `context` is one of those entered now.
///
/// # Safety
///
/// `ts` must be the attached thread state.
pub(crate) unsafe fn is_entered(ts: *mut PyThreadState, context: *mut PyObject) -> bool {
    // SAFETY: the entered contexts are linked, and kept alive by those who entered them.
    unsafe {
        let mut now = current(ts);
        while !now.is_null() {
            if now == context {
                return true;
            }
            now = below(now);
        }
        false
    }
}

impl Left {
    pub(crate) const fn new() -> Self {
        Self { first: std::ptr::null_mut(), others: Vec::new() }
    }

    fn push(&mut self, context: *mut PyObject) {
        if self.first.is_null() {
            self.first = context;
        } else {
            self.others.push(context);
        }
    }

    /// The one that was left last; null if there are no more.
    fn pop(&mut self) -> *mut PyObject {
        self.others
            .pop()
            .unwrap_or_else(|| std::mem::replace(&mut self.first, std::ptr::null_mut()))
    }

    /// Exits contexts until `base` is current, so that others can enter them.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state; `base` must be below the current context, or be it.
    pub(crate) unsafe fn leave(&mut self, ts: *mut PyThreadState, base: *mut PyObject) {
        // SAFETY: the contract. What we exit is current and entered, which is all that
        // `PyContext_Exit` checks.
        unsafe {
            let mut now = current(ts);
            while now != base && !now.is_null() {
                self.push(ffi::Py_NewRef(now));
                if ffi::PyContext_Exit(now) < 0 {
                    ffi::PyErr_Clear();
                    ffi::Py_XDECREF(self.pop());
                    return;
                }
                now = current(ts);
            }
        }
    }

    /// Whether all of them can be entered again: nobody else is in one.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn are_free(&self) -> bool {
        // SAFETY: owned.
        let is_free = |context: *mut PyObject| unsafe {
            *field::<_, std::ffi::c_int>(context, facts::CONTEXT_ENTERED) == 0
        };
        (self.first.is_null() || is_free(self.first))
            && self.others.iter().all(|&context| is_free(context))
    }

    /// Enters them again.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state; [`are_free`](Self::are_free).
    pub(crate) unsafe fn enter(&mut self) {
        loop {
            let context = self.pop();
            if context.is_null() {
                return;
            }
            // SAFETY: owned; free, so that it can be entered.
            unsafe {
                if ffi::PyContext_Enter(context) < 0 {
                    ffi::PyErr_WriteUnraisable(context);
                }
                ffi::Py_DECREF(context);
            }
        }
    }
}

/// All contexts of a thread that waits for somebody else to run code in them, innermost first.
pub(crate) struct Lent {
    entered: Left,
    /// The thread's own context, that of code outside every `Context.run()`. Owned, or null.
    base: *mut PyObject,
}

impl Lent {
    /// Takes all contexts off the thread, so that anybody can enter them.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    pub(crate) unsafe fn take(ts: *mut PyThreadState) -> Self {
        let mut entered = Left::new();
        // SAFETY: the contract. A thread state owns a reference to its context, or has none yet:
        // `context_get()` (Python/context.c) then makes one. What cannot be exited, because nobody
        // has entered it, is the one that it has made.
        unsafe {
            entered.leave(ts, std::ptr::null_mut());
            Self { entered, base: set_current(ts, std::ptr::null_mut()) }
        }
    }

    /// Whether all of them can be entered again.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn are_free(&self) -> bool {
        // SAFETY: the contract.
        unsafe { self.entered.are_free() }
    }

    /// Puts them back. Those that are not free are not entered; what enters after them is. But a thread whose
    /// first context is not free goes on in a copy, so that it keeps its variables.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state that they were taken off, with nothing entered.
    pub(crate) unsafe fn put_back(mut self, ts: *mut PyThreadState) {
        // SAFETY: the contract. The reference that the thread state owns is ours, and what it had
        // meanwhile is not entered by anybody.
        unsafe {
            self.copy_first();
            let meanwhile = set_current(ts, self.base);
            self.entered.enter();
            ffi::Py_XDECREF(meanwhile);
        }
    }
}

impl Lent {
    /// From 3.14 on `threading` runs a thread's code in a context from its start to its end. If it is not free, a
    /// copy is to be the thread's context.
    ///
    /// (Not in place of a later one: whoever has entered that will not get out of it, so that a copy would still
    /// be there for the thread's next job, with this one's variables.)
    ///
    /// # Safety
    ///
    /// Attached, no error set; not put back.
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    unsafe fn copy_first(&mut self) {
        // SAFETY: owned.
        unsafe {
            if self.base.is_null() && self.entered.others.is_empty() && !self.are_free() {
                let first = self.entered.pop();
                self.base = ffi::PyContext_Copy(first);
                if self.base.is_null() {
                    ffi::PyErr_WriteUnraisable(first);
                }
                ffi::Py_DECREF(first);
            }
        }
    }

    #[cfg(not(any(cpython = "3.14", cpython = "3.15")))]
    unsafe fn copy_first(&mut self) {}
}

/// Makes `context` (owned) the current one; returns what was (owned).
///
/// # Safety
///
/// `ts` must be the attached thread state. Nobody else may rely on what was current.
pub(crate) unsafe fn set_current(ts: *mut PyThreadState, context: *mut PyObject) -> *mut PyObject {
    // SAFETY: `ts` is the attached thread state. With the version, the values that `ContextVar`s
    // remember for this thread are out of date (`_PyContext_Enter` does the same).
    unsafe {
        let version = field::<_, u64>(ts, facts::TS_CONTEXT_VER);
        *version = (*version).wrapping_add(1);
        field::<_, *mut PyObject>(ts, facts::TS_CONTEXT).replace(context)
    }
}
