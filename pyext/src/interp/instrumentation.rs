//! Tracers, profilers and `sys.monitoring`'s tools that come or go while frames are out of sight.
//!
//! From 3.12 on all of them work by instrumented code. When what they want changes, CPython counts a
//! version up and brings the code of all frames up to date that are on a thread's chain
//! (`instrument_all_executing_code_objects` in Python/instrumentation.c). All other code is brought
//! up to date where it begins, or goes on as a generator: at its RESUME. The frames of a suspended
//! or parked stack are on no thread's chain, and go on in the middle of a call. So they are
//! brought up to date here, when their stack goes on, if the version is another one than it was.
//!
//! Without that tools would miss what is left of those calls; and on 3.15 the process would die:
//! there RAISE and its like are events of single code objects, and to see who wants one, CPython
//! looks into the code's instrumentation data (`_co_monitoring`), which code has from the first time
//! that it is brought up to date.
//!
//! No function does that for one code object and nothing else. What comes next is
//! `sys.monitoring.set_local_events`, which does it if the events that a tool wants of the code
//! change: we are that tool for a moment, want an event that nobody is told of, and take it back.

use super::facts::{self, field};
use super::frames::untagged;
use super::shared::Frame;
use super::version::Version;
use crate::error;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::{CStr, c_int, c_long};
use std::ptr;
#[cfg(not(cpython = "3.12"))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The version of all that is instrumented: what to compare after frames were out of sight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Instrumented(u32);

/// Versions from this one on differ in nothing but tools of ours that have come and gone...
static FIRST_ALIKE: AtomicU32 = AtomicU32::new(0);
/// ...up to this one. Both are written with the GIL held.
static LAST_ALIKE: AtomicU32 = AtomicU32::new(0);

impl Instrumented {
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn now(ts: *mut PyThreadState) -> Self {
        #[cfg(cpython = "3.12")]
        // SAFETY: the contract; written with the GIL held only.
        unsafe {
            let interpreter = *field::<_, *mut ffi::PyInterpreterState>(ts, facts::TS_INTERP);
            Self(*field::<_, u64>(interpreter, facts::INTERP_MONITORING_VERSION) as u32)
        }
        #[cfg(not(cpython = "3.12"))]
        // SAFETY: the contract; the word is atomic in C, too. Other threads write to its lowest bits,
        // which are something else.
        unsafe {
            let place = field::<_, usize>(ts, facts::TS_EVAL_BREAKER);
            let word = AtomicUsize::from_ptr(place).load(Ordering::Relaxed);
            Self((word & !(facts::EVAL_EVENTS_MASK as usize)) as u32)
        }
    }

    /// It, only to be compared with others.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Whether a tracer or a tool has ever been there, or a tool has ever asked about `code` alone: then somebody
    /// may be told when it runs.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state; a code object.
    #[inline(always)]
    pub(crate) unsafe fn may_be_told(ts: *mut PyThreadState, code: *mut PyObject) -> bool {
        // SAFETY: the contract.
        unsafe {
            Self::now(ts) != Self(0)
                || !(*field::<_, *mut u8>(code, facts::CODE_MONITORING)).is_null()
        }
    }

    /// The version that `code` is up to date with.
    ///
    /// # Safety
    ///
    /// A code object.
    pub(super) unsafe fn of_code(code: *mut PyObject) -> Self {
        // SAFETY: the contract.
        Self(unsafe { *field::<_, u64>(code, facts::CODE_INSTRUMENTATION_VERSION) } as u32)
    }

    /// Brings the thread's frames up to date, from the current one down to, not including, `until`.
    /// They were so at this version, and out of sight since. An error that is set stays.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, and `until` one of its frames.
    #[inline(always)]
    pub(super) unsafe fn catch_up(self, ts: *mut PyThreadState, until: *mut Frame) {
        // SAFETY: passed on.
        unsafe {
            if self != Self::now(ts) {
                self.catch_up_slowly(ts, until);
            }
        }
    }

    #[cold]
    unsafe fn catch_up_slowly(self, ts: *mut PyThreadState, until: *mut Frame) {
        // SAFETY: the thread's frames are linked down to `until`. What is called before all is done
        // runs no Python code and does not let other threads run: no frame ends, and nobody sees
        // the tool or has a chance to change anything else.
        unsafe {
            let Self(now) = Self::now(ts);
            if LAST_ALIKE.swap(now, Ordering::Relaxed) != now {
                FIRST_ALIKE.store(now, Ordering::Relaxed);
            }
            let first = FIRST_ALIKE.load(Ordering::Relaxed);
            if self.0 >= first {
                return;
            }
            let pending = error::take();
            let mut tool = None;
            let mut failed = (ptr::null_mut(), ptr::null_mut());
            let mut frame = Version::current_frame(ts);
            while !frame.is_null() && frame != until {
                let code = code_of(frame);
                if !code.is_null() && is_instrumentable(code) && Self::of_code(code).0 < first {
                    let tool = tool.get_or_insert_with(|| Tool::take());
                    if !tool.as_ref().is_some_and(|tool| tool.touch(code)) {
                        // For want of memory; for the rest there would be none either.
                        failed = (code, error::take());
                        break;
                    }
                }
                frame = *field(frame, facts::FRAME_PREVIOUS);
            }
            if let Some(Some(tool)) = tool {
                tool.release();
                LAST_ALIKE.store(Self::now(ts).0, Ordering::Relaxed);
            }
            let (code, reason) = failed;
            if !reason.is_null() {
                error::restore(reason);
                ffi::PyErr_WriteUnraisable(code);
            }
            if !pending.is_null() {
                error::restore(pending);
            }
        }
    }
}

/// The code that the frame executes, borrowed; null if it is one that executes none.
unsafe fn code_of(frame: *mut Frame) -> *mut PyObject {
    // SAFETY: a live frame; the slot of one with these owners holds an object.
    unsafe {
        let owner = isize::from(*field::<_, i8>(frame, facts::FRAME_OWNER));
        if owner != facts::FRAME_OWNED_BY_THREAD && owner != facts::FRAME_OWNED_BY_GENERATOR {
            return ptr::null_mut();
        }
        let code = untagged(*field::<_, usize>(frame, facts::FRAME_CODE));
        if ffi::PyCode_Check(code) == 0 { ptr::null_mut() } else { code }
    }
}

/// Whether the code is a function's or a module's, not one of the interpreter's own for entering and
/// leaving those (`_PyMonitoring_SetLocalEvents` raises SystemError for them).
///
/// # Safety
///
/// A code object.
#[allow(clippy::bad_bit_mask)] // 3.12 has no such flag: 0.
pub(super) unsafe fn is_instrumentable(code: *mut PyObject) -> bool {
    // SAFETY: a code object.
    unsafe {
        let flags = *field::<_, c_int>(code, facts::CODE_FLAGS) as isize;
        let first = *field::<_, c_int>(code, facts::CODE_FIRST_TRACEABLE) as ffi::Py_ssize_t;
        flags & facts::CODE_NO_MONITORING_EVENTS == 0 && first < ffi::Py_SIZE(code)
    }
}

/// A function of `sys.monitoring`, owned for ever after [`init`].
struct Function {
    name: &'static CStr,
    object: AtomicPtr<PyObject>,
}

impl Function {
    const fn new(name: &'static CStr) -> Self {
        Self { name, object: AtomicPtr::new(ptr::null_mut()) }
    }

    /// What it returns, as a new reference; null with an error set.
    unsafe fn call<const N: usize>(&self, arguments: [*mut PyObject; N]) -> *mut PyObject {
        let function = self.object.load(Ordering::Relaxed);
        // SAFETY: attached, no error set; valid objects, borrowed.
        unsafe { ffi::PyObject_Vectorcall(function, arguments.as_ptr(), N, ptr::null_mut()) }
    }
}

static GET_TOOL: Function = Function::new(c"get_tool");
static USE_TOOL_ID: Function = Function::new(c"use_tool_id");
static FREE_TOOL_ID: Function = Function::new(c"free_tool_id");
static GET_LOCAL_EVENTS: Function = Function::new(c"get_local_events");
static SET_LOCAL_EVENTS: Function = Function::new(c"set_local_events");
static FUNCTIONS: [&Function; 5] =
    [&GET_TOOL, &USE_TOOL_ID, &FREE_TOOL_ID, &GET_LOCAL_EVENTS, &SET_LOCAL_EVENTS];

/// The tool's name, should anybody get to see it.
static NAME: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// To be called once, at import. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn init() -> bool {
    // SAFETY: attached; new references, which the statics keep.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(c"fiberback".as_ptr());
        let module = ffi::PySys_GetObject(c"monitoring".as_ptr());
        if name.is_null() || module.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                super::unlike::set("it has no sys.monitoring");
            }
            return false;
        }
        NAME.store(name, Ordering::Relaxed);
        FUNCTIONS.iter().all(|function| {
            let found = ffi::PyObject_GetAttrString(module, function.name.as_ptr());
            function.object.store(found, Ordering::Relaxed);
            !found.is_null()
        })
    }
}

/// The ids that tools can have (0 to 5); those first that the documentation assigns to nobody.
const IDS: [c_long; 6] = [4, 3, 5, 2, 1, 0];

/// Events of single code objects, as `sys.monitoring.events` numbers them. On 3.15 the ones at the
/// beginning have no instructions of their own. Before, branches are what neither tracers nor
/// profilers look at: code is laid out differently for events that several tools want.
const EVENTS: &[c_long] = if cfg!(cpython = "3.15") {
    // RERAISE, EXCEPTION_HANDLED, BRANCH_LEFT, ...
    &[1 << 15, 1 << 12, 1 << 8, 1 << 9, 1 << 7, 1 << 1, 1]
} else {
    // BRANCH (BRANCH_LEFT on 3.14), STOP_ITERATION (BRANCH_RIGHT), JUMP, PY_RESUME, PY_START
    &[1 << 8, 1 << 9, 1 << 7, 1 << 1, 1]
};

/// A tool that is ours for a moment.
struct Tool {
    id: *mut PyObject,
    /// There was no free one: it is somebody else's.
    is_borrowed: bool,
}

impl Tool {
    /// None with an error set.
    unsafe fn take() -> Option<Self> {
        // SAFETY: attached, no error set; new references are handed on or dropped.
        unsafe {
            for number in IDS {
                let id = ffi::PyLong_FromLong(number);
                if id.is_null() {
                    return None;
                }
                let owner = GET_TOOL.call([id]);
                if owner == ffi::Py_None() {
                    let done = USE_TOOL_ID.call([id, NAME.load(Ordering::Relaxed)]);
                    ffi::Py_DECREF(owner);
                    if done.is_null() {
                        ffi::Py_DECREF(id);
                        return None;
                    }
                    ffi::Py_DECREF(done);
                    return Some(Self { id, is_borrowed: false });
                }
                ffi::Py_DECREF(id);
                if owner.is_null() {
                    return None;
                }
                ffi::Py_DECREF(owner);
            }
            let id = ffi::PyLong_FromLong(IDS[0]);
            if id.is_null() { None } else { Some(Self { id, is_borrowed: true }) }
        }
    }

    /// Has `code` brought up to date. False with an error set.
    ///
    /// What the id wanted of the code before stays. (Before 3.14 that outlives the tool. Since then
    /// it does not, though it may still be told.)
    unsafe fn touch(&self, code: *mut PyObject) -> bool {
        // SAFETY: attached, no error set; `code` is alive.
        unsafe {
            let outlives = cfg!(any(cpython = "3.12", cpython = "3.13"));
            let before = if self.is_borrowed || outlives {
                let events = GET_LOCAL_EVENTS.call([self.id, code]);
                let number = if events.is_null() { -1 } else { ffi::PyLong_AsLong(events) };
                ffi::Py_XDECREF(events);
                if number < 0 {
                    return false;
                }
                number
            } else {
                0
            };
            // Of those that the owner wants, as he has it, some places may be switched off.
            let other = EVENTS.iter().find(|&&event| before & event == 0);
            let event = other.or(EVENTS.last()).copied().unwrap_or_default();
            self.set(code, before ^ event) && self.set(code, before)
        }
    }

    unsafe fn set(&self, code: *mut PyObject, events: c_long) -> bool {
        // SAFETY: as in `touch`.
        unsafe {
            let events = ffi::PyLong_FromLong(events);
            if events.is_null() {
                return false;
            }
            let done = SET_LOCAL_EVENTS.call([self.id, code, events]);
            ffi::Py_DECREF(events);
            ffi::Py_XDECREF(done);
            !done.is_null()
        }
    }

    /// Gives the tool up. Since 3.14 that counts the version up, for what the tool may have wanted.
    unsafe fn release(self) {
        // SAFETY: as in `touch`; the reference is ours.
        unsafe {
            if !self.is_borrowed {
                let done = FREE_TOOL_ID.call([self.id]);
                if done.is_null() {
                    ffi::PyErr_Clear();
                }
                ffi::Py_XDECREF(done);
            }
            ffi::Py_DECREF(self.id);
        }
    }
}
