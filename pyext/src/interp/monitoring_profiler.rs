//! The profiler among `sys.monitoring`'s tools (3.12 and later): the one with the id `PROFILER_ID`.
//!
//! It is told of switches (see `profiled.rs`) if it wants to know what generators do: its callback for PY_YIELD is
//! called for each frame that is suspended, and that for PY_RESUME where it goes on. Other tools are not told:
//! what they want events for is not the time that calls take.
//!
//! It is told of the C functions, too, that such a frame is in. `cProfile` has them on its own record (`lsprof.rs`).
//! For others they are noted from the first switch on (`c_calls.rs`); before that `await_` is known, and what runs
//! a callback of the loop.

use super::c_calls::{self, CCall};
use super::frames::Place;
use super::instrumentation::Instrumented;
use super::known_calls::{Owned, await_function, context_run_of};
use super::lsprof::{self, Call};
use crate::error;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::{CStr, c_long};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// `sys.monitoring.PROFILER_ID`.
const ID: c_long = 2;

/// The tool's callbacks: owned, null where there is none.
struct Tool {
    yields: Owned,
    resumes: Owned,
    calls: Owned,
    c_returns: Owned,
}

// SAFETY: references, that are only used while attached.
unsafe impl Send for Tool {}

/// Who was found when it was looked up last.
static FOUND: Mutex<Option<Tool>> = Mutex::new(None);
/// The version (of what is instrumented) at which it was; before the first tool there is none.
static VERSION: AtomicU32 = AtomicU32::new(0);
/// The last version at which there was none.
static NOBODY: AtomicU32 = AtomicU32::new(0);

/// What the tool was told of a stack that is suspended.
pub(super) enum Told {
    /// `cProfile`, by its address: what it was in, from the outermost call in.
    Lsprof(usize, Vec<Call>),
    /// Another one: the C functions that the frames were in, from the innermost out.
    Frames(Vec<Option<CCall>>),
}

/// Whether there may be such a tool.
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[inline(always)]
pub(super) unsafe fn may_be(ts: *mut PyThreadState) -> bool {
    // SAFETY: passed on.
    unsafe { Instrumented::now(ts).number() != NOBODY.load(Ordering::Relaxed) }
}

/// Right before a switch to a stack: the tool's calls of C functions are noted from here on.
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[cold]
#[inline(never)]
pub(super) unsafe fn look(ts: *mut PyThreadState) {
    // SAFETY: passed on, without an error.
    unsafe {
        if Instrumented::now(ts).number() != VERSION.load(Ordering::Relaxed) {
            error::keeping(|| drop(Tool::now(ts)));
        }
    }
}

impl Told {
    /// That these frames, from the innermost out, are suspended.
    ///
    /// # Safety
    ///
    /// Attached, with no error set; the frames are alive meanwhile.
    pub(super) unsafe fn leave(ts: *mut PyThreadState, frames: &[Place]) -> Option<Self> {
        // SAFETY: the contract; the callbacks are kept by `tool`.
        unsafe {
            let tool = Tool::now(ts)?;
            let code = frames.first()?.code();
            if let Some(profiler) = tool.lsprof() {
                let mut calls = lsprof::open(profiler, frames.len())?;
                for call in &calls {
                    match call {
                        Call::Code(code) => {
                            tool.tell(&tool.yields, &[*code, zero(), ffi::Py_None()])
                        }
                        Call::C(method) => tool.tell_of_c(&tool.c_returns, code, *method),
                    }
                }
                calls.reverse();
                return Some(Self::Lsprof(profiler.addr(), calls));
            }
            let mut calls = Vec::new();
            let mut known = None;
            if !tool.calls.0.is_null() && c_calls::is_empty() {
                known = CCall::of(await_function());
            }
            for place in frames {
                let call = c_calls::take(place).or_else(|| known.take());
                let call = call.or_else(|| CCall::of(context_run_of(place)?));
                if let Some(call) = &call {
                    tool.tell_of_call(&tool.c_returns, place.code(), call);
                }
                tool.tell(&tool.yields, &[place.code(), zero(), ffi::Py_None()]);
                calls.push(call);
            }
            Some(Self::Frames(calls))
        }
    }

    /// That they go on.
    ///
    /// # Safety
    ///
    /// As [`leave`](Self::leave), with the same frames.
    pub(super) unsafe fn enter(told: Option<Self>, ts: *mut PyThreadState, frames: &[Place]) {
        // SAFETY: as there. The code of the frames is alive, and the methods that they have called.
        unsafe {
            let (Some(tool), Some(innermost)) = (Tool::now(ts), frames.first()) else { return };
            let code = innermost.code();
            if let (Some(Self::Lsprof(of, calls)), Some(profiler)) = (&told, tool.lsprof()) {
                if *of == profiler.addr() {
                    for call in calls {
                        match call {
                            Call::Code(code) => tool.tell(&tool.resumes, &[*code, zero()]),
                            Call::C(method) => tool.tell_of_c(&tool.calls, code, *method),
                        }
                    }
                    return;
                }
            }
            let mut calls = match told {
                Some(Self::Frames(calls)) if tool.lsprof().is_none() => calls,
                _ => Vec::new(),
            };
            for place in frames.iter().rev() {
                tool.tell(&tool.resumes, &[place.code(), zero()]);
                if let Some(Some(call)) = calls.pop() {
                    tool.tell_of_call(&tool.calls, place.code(), &call);
                    c_calls::put(place, call);
                }
            }
        }
    }
}

/// An offset into code: nobody knows a better one for all of them.
unsafe fn zero() -> *mut PyObject {
    // SAFETY: attached. Small integers are immortal, or as good as that.
    unsafe {
        let zero = ffi::PyLong_FromLong(0);
        ffi::Py_DECREF(zero);
        zero
    }
}

impl Tool {
    /// The one that there is.
    unsafe fn now(ts: *mut PyThreadState) -> Option<Self> {
        // SAFETY: attached, no error set (all callers).
        unsafe {
            let version = Instrumented::now(ts).number();
            if version == NOBODY.load(Ordering::Relaxed) {
                return None;
            }
            if version != VERSION.load(Ordering::Relaxed) {
                let found = Self::look_up();
                ffi::PyErr_Clear();
                // It may have changed by what was run meanwhile (an audit hook): then it is looked up again.
                let (seen, nobody) = (version, found.is_none());
                let before = std::mem::replace(&mut *lock(), found);
                drop(before);
                VERSION.store(seen, Ordering::Relaxed);
                if nobody {
                    NOBODY.store(seen, Ordering::Relaxed);
                }
            }
            lock().as_ref().map(Self::again)
        }
    }

    /// The same, with references of its own.
    unsafe fn look_up() -> Option<Self> {
        // SAFETY: attached; new references are owned.
        unsafe {
            let monitoring = ffi::PySys_GetObject(c"monitoring".as_ptr());
            if monitoring.is_null() {
                return None;
            }
            let wanted = call(monitoring, c"get_events", &[integer(ID)])?;
            let wanted = ffi::PyLong_AsLong(wanted.0);
            let events = attribute(monitoring, c"events")?;
            let number = |name| attribute(events.0, name).map(|event| ffi::PyLong_AsLong(event.0));
            let (yields, resumes) = (number(c"PY_YIELD")?, number(c"PY_RESUME")?);
            if wanted == -1 || wanted & yields == 0 || wanted & resumes == 0 {
                return None;
            }
            let none = || Owned(ptr::null_mut());
            let mut tool = Self {
                yields: callback(monitoring, yields, |found| found)?,
                resumes: callback(monitoring, resumes, |found| found)?,
                calls: none(),
                c_returns: none(),
            };
            if tool.yields.0.is_null() || tool.resumes.0.is_null() {
                return None;
            }
            let is_lsprof = tool.lsprof().is_some();
            let noting = |noting: fn(Owned) -> Owned| {
                move |found| if is_lsprof { found } else { noting(found) }
            };
            let calls = callback(monitoring, number(c"CALL")?, noting(c_calls::noting_calls))?;
            tool.calls = c_calls::noted(calls);
            let ends = [c"C_RAISE", c"C_RETURN"];
            for end in ends {
                let end = callback(monitoring, number(end)?, noting(c_calls::noting_ends))?;
                tool.c_returns = c_calls::noted(end);
            }
            Some(tool)
        }
    }

    fn again(&self) -> Self {
        let again = |callback: &Owned| {
            // SAFETY: attached; alive.
            Owned(unsafe { ffi::Py_XNewRef(callback.0) })
        };
        Self {
            yields: again(&self.yields),
            resumes: again(&self.resumes),
            calls: again(&self.calls),
            c_returns: again(&self.c_returns),
        }
    }

    /// `cProfile`'s profiler, borrowed, if it is that, and its record can be read.
    unsafe fn lsprof(&self) -> Option<*mut PyObject> {
        // SAFETY: attached, no error set; a method keeps what it is bound to.
        unsafe {
            if ffi::PyCFunction_Check(self.yields.0) == 0 {
                return None;
            }
            let profiler = ffi::PyCFunction_GetSelf(self.yields.0);
            lsprof::can_be_read(profiler).then_some(profiler)
        }
    }

    unsafe fn tell(&self, callback: &Owned, arguments: &[*mut PyObject]) {
        // SAFETY: attached, no error set; valid objects.
        unsafe {
            if callback.0.is_null() {
                return;
            }
            let answer = Owned(ffi::PyObject_Vectorcall(
                callback.0,
                arguments.as_ptr(),
                arguments.len(),
                ptr::null_mut(),
            ));
            if answer.0.is_null() {
                ffi::PyErr_WriteUnraisable(callback.0);
            }
        }
    }

    /// Of a C function, of which only the method is known.
    unsafe fn tell_of_c(
        &self,
        callback: &Owned,
        code: *mut PyObject,
        method: *mut ffi::PyMethodDef,
    ) {
        // SAFETY: as above. The method is alive as long as it is called.
        unsafe {
            let function = Owned(lsprof::function_of(method));
            if function.0.is_null() {
                ffi::PyErr_Clear();
                return;
            }
            if let Some(call) = CCall::of(function) {
                self.tell_of_call(callback, code, &call);
            }
        }
    }

    unsafe fn tell_of_call(&self, callback: &Owned, code: *mut PyObject, call: &CCall) {
        // SAFETY: as above.
        unsafe { self.tell(callback, &[code, zero(), call.function.0, call.first.0]) }
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Tool>> {
    FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

unsafe fn integer(value: c_long) -> Owned {
    // SAFETY: attached.
    Owned(unsafe { ffi::PyLong_FromLong(value) })
}

unsafe fn attribute(object: *mut PyObject, name: &CStr) -> Option<Owned> {
    // SAFETY: attached; a valid object, or null.
    unsafe {
        if object.is_null() {
            return None;
        }
        let found = ffi::PyObject_GetAttrString(object, name.as_ptr());
        (!found.is_null()).then_some(Owned(found))
    }
}

unsafe fn call(object: *mut PyObject, name: &CStr, arguments: &[Owned]) -> Option<Owned> {
    // SAFETY: attached; valid objects.
    unsafe {
        let function = attribute(object, name)?;
        let lent: Vec<_> = arguments.iter().map(|argument| argument.0).collect();
        if lent.iter().any(|argument| argument.is_null()) {
            return None;
        }
        let arguments = lent.as_ptr();
        let result = ffi::PyObject_Vectorcall(function.0, arguments, lent.len(), ptr::null_mut());
        (!result.is_null()).then_some(Owned(result))
    }
}

/// The tool's callback for an event: whoever registers another one is told which it was. Null if there is none. `instead`
/// makes what is registered from then on of it.
unsafe fn callback(
    monitoring: *mut PyObject,
    event: c_long,
    instead: impl FnOnce(Owned) -> Owned,
) -> Option<Owned> {
    // SAFETY: attached. No event is missed: nothing is run in between.
    unsafe {
        let register = c"register_callback";
        let none = Owned(ffi::Py_NewRef(ffi::Py_None()));
        let found = call(monitoring, register, &[integer(ID), integer(event), none])?;
        if found.0 == ffi::Py_None() {
            return Some(Owned(ptr::null_mut()));
        }
        let instead = instead(Owned(ffi::Py_NewRef(found.0)));
        call(monitoring, register, &[integer(ID), integer(event), instead])?;
        Some(found)
    }
}
