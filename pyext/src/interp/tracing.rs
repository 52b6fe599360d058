//! Trace and profile functions, and callbacks of `sys.monitoring`'s tools, that wait.
//!
//! CPython counts `tstate->tracing` up while one of them runs, and as long as the count is not zero none
//! is called: a thread's tracers are off within a tracer. The count is the thread's, but what it counts
//! is on a C stack. So a stack that goes away in the middle of such a function (the prompt of a debugger
//! at which somebody waits) takes its part of the count along, and all others are traced as usual.
//!
//! A debugger's prompt (pdb's, and whatever else stands on `bdb`) is an exception: what it is about, and
//! where it stops next, is one for the process, so that to be called again would have it stop in the
//! event loop's own code. There the count stays, and nothing is traced until the prompt goes on.
//!
//! With the count goes the event that the function was called for, which decides whether a debugger's
//! `jump` is possible (`frame_setlineno` in Objects/frameobject.c).

use super::facts::{self, field};
use super::frames::Place;
use crate::{error, modules, names};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr;

/// The event where nothing is being traced (`init_threadstate` in Python/pystate.c).
const NO_EVENT: c_int = if cfg!(cpython = "3.11") { 0 } else { -1 };

/// How many trace functions the thread is in.
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[inline(always)]
pub(crate) unsafe fn depth(ts: *mut PyThreadState) -> c_int {
    // SAFETY: the contract.
    unsafe { *field::<_, c_int>(ts, facts::TS_TRACING) }
}

/// The part of the count that belongs to a stack which is not on.
#[derive(Clone, Copy)]
pub(crate) struct Hidden {
    depth: c_int,
    event: c_int,
}

impl Hidden {
    /// Takes out of the count what is beyond `below`, before the stack goes.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn hide(ts: *mut PyThreadState, below: c_int) -> Self {
        // SAFETY: passed on.
        unsafe {
            let now = depth(ts);
            if now <= below {
                return Self { depth: 0, event: NO_EVENT };
            }
            Self::hide_some(ts, now - below, below == 0)
        }
    }

    #[cold]
    unsafe fn hide_some(ts: *mut PyThreadState, depth: c_int, was_untraced: bool) -> Self {
        // SAFETY: attached. On 3.11 leaving also sets whether the running code is traced.
        unsafe {
            if is_at_prompt(ts) {
                return Self { depth: 0, event: NO_EVENT };
            }
            for _ in 0..depth {
                ffi::PyThreadState_LeaveTracing(ts);
            }
            let event = field::<_, c_int>(ts, facts::TS_TRACED_EVENT);
            let hidden = Self { depth, event: *event };
            if was_untraced {
                *event = NO_EVENT;
            }
            hidden
        }
    }

    /// Puts it back, when the stack goes on.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn show(self, ts: *mut PyThreadState) {
        if self.depth > 0 {
            // SAFETY: passed on.
            unsafe { self.show_some(ts) }
        }
    }

    #[cold]
    unsafe fn show_some(self, ts: *mut PyThreadState) {
        // SAFETY: attached.
        unsafe {
            for _ in 0..self.depth {
                ffi::PyThreadState_EnterTracing(ts);
            }
            *field::<_, c_int>(ts, facts::TS_TRACED_EVENT) = self.event;
        }
    }
}

/// Calls `function` on another stack for code that is in `of` trace functions: as untraced as if it were called
/// there.
///
/// # Safety
///
/// `ts` must be the attached thread state.
pub(crate) unsafe fn as_deep(ts: *mut PyThreadState, of: c_int, function: impl FnOnce()) {
    // SAFETY: passed on; as often left as entered.
    unsafe {
        let more = of - depth(ts);
        for _ in 0..more {
            ffi::PyThreadState_EnterTracing(ts);
        }
        function();
        for _ in 0..more {
            ffi::PyThreadState_LeaveTracing(ts);
        }
    }
}

/// The modules whose functions evaluate what somebody types at a prompt: `bdb` with all that stand on it
/// (pdb, IPython's, pudb), and pydevd (debugpy, PyCharm), which asks this one of its modules.
const PROMPTS: [&CStr; 2] = [c"bdb", c"_pydevd_bundle.pydevd_vars"];

/// Whether a debugger's prompt is on the running stack, or on one that this stack waits for. An error that is
/// set stays.
///
/// # Safety
///
/// `ts` must be the attached thread state.
pub(crate) unsafe fn is_at_prompt(ts: *mut PyThreadState) -> bool {
    // SAFETY: passed on.
    ELSEWHERE.get() > 0
        || unsafe { beside_the_error(|| PROMPTS.iter().any(|module| is_within(ts, module))) }
}

thread_local! {
    /// Prompts in greenlets that have another stack wait on their behalf. Their part of the count stays.
    static ELSEWHERE: Cell<u32> = const { Cell::new(0) };
}

/// Another stack of the thread waits on behalf of this one, until it is dropped: if there is a prompt on this
/// one, that one is at it, too.
pub(crate) struct OnBehalf {
    is_at_prompt: bool,
}

impl OnBehalf {
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    pub(crate) unsafe fn begin(ts: *mut PyThreadState) -> Self {
        // SAFETY: passed on.
        let is_at_prompt = unsafe { depth(ts) > 0 && is_at_prompt(ts) };
        ELSEWHERE.set(ELSEWHERE.get() + u32::from(is_at_prompt));
        Self { is_at_prompt }
    }
}

impl Drop for OnBehalf {
    fn drop(&mut self) {
        ELSEWHERE.set(ELSEWHERE.get() - u32::from(self.is_at_prompt));
    }
}

/// What `look` finds, which sets and clears errors of its own, and needs that none is set.
unsafe fn beside_the_error<T>(look: impl FnOnce() -> T) -> T {
    // SAFETY: attached (all callers); what was taken is put back.
    unsafe {
        let pending = error::take();
        let found = look();
        if !pending.is_null() {
            error::restore(pending);
        }
        found
    }
}

/// Whether a function of a module is on the running stack.
unsafe fn is_within(ts: *mut PyThreadState, module: &CStr) -> bool {
    // SAFETY: attached, no error set; reading a code object's file name runs no Python code, so that no
    // frame ends meanwhile. New references are dropped.
    unsafe {
        let module = ffi::PyDict_GetItemString(modules::get(), module.as_ptr());
        if module.is_null() {
            return false;
        }
        let file = ffi::PyObject_GetAttrString(module, c"__file__".as_ptr());
        let found = !file.is_null()
            && ffi::PyUnicode_Check(file) != 0
            && Place::frames(ts).any(|frame| {
                let code = frame.code();
                if code.is_null() || ffi::PyCode_Check(code) == 0 {
                    return false;
                }
                let name = ffi::PyObject_GetAttrString(code, c"co_filename".as_ptr());
                let is_same = !name.is_null()
                    && ffi::PyUnicode_Check(name) != 0
                    && ffi::PyUnicode_Compare(name, file) == 0;
                ffi::Py_XDECREF(name);
                is_same
            });
        ffi::Py_XDECREF(file);
        ffi::PyErr_Clear();
        found
    }
}

/// The count at `place`, further down the running stack.
///
/// Trace functions are not called within each other, so they are all above it or all below: below only
/// if the code at `place` was itself begun in one, as with `asyncio.run()` at a debugger's prompt.
///
/// # Safety
///
/// `ts` must be the attached thread state, with no error set, and `place` be on the running stack.
pub(crate) unsafe fn depth_at(ts: *mut PyThreadState, place: &Place) -> c_int {
    // SAFETY: attached; frames are only compared, while none ends. The functions' code is borrowed, and
    // alive as long as the interpreter calls the functions.
    unsafe {
        let now = depth(ts);
        if now == 0 || Place::current(ts).is_at(place) {
            return now;
        }
        let tracers =
            beside_the_error(|| [code_of_tracer(c"gettrace"), code_of_tracer(c"getprofile")]);
        let mut is_below = false;
        for frame in Place::frames(ts) {
            is_below |= frame.is_at(place);
            let code = frame.code();
            if !code.is_null() && tracers.contains(&code) {
                return if is_below { now } else { 0 };
            }
        }
        0
    }
}

/// The code of what `sys.gettrace()` or `sys.getprofile()` returns, if it is a Python function or method;
/// only to be compared.
unsafe fn code_of_tracer(get: &CStr) -> *mut PyObject {
    // SAFETY: attached, no error set; new references are dropped.
    unsafe {
        let get = ffi::PySys_GetObject(get.as_ptr());
        let tracer = if get.is_null() { get } else { ffi::PyObject_CallNoArgs(get) };
        if tracer.is_null() {
            ffi::PyErr_Clear();
            return ptr::null_mut();
        }
        let mut code = names::attribute(tracer, names::CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            let function = names::attribute(tracer, names::FUNCTION.get());
            if !function.is_null() {
                code = names::attribute(function, names::CODE.get());
                ffi::Py_DECREF(function);
            }
            ffi::PyErr_Clear();
        }
        ffi::Py_DECREF(tracer);
        ffi::Py_XDECREF(code);
        code
    }
}
