//! Profilers are told of switches, as they are of a generator's.
//!
//! A profiler that is told when a call begins and when it returns keeps a stack of the calls that it has not seen
//! return. Where a C stack goes away in the middle of its calls and others go on, that would have calls of others in
//! it; and what others take would be counted as that stack's. A generator's frame returns for a profiler when it
//! yields, and is called when it goes on. So here, for all frames of a stack: when it is suspended they return, the
//! innermost first, and when it goes on they are called, the outermost first. As with a generator, a call that was
//! suspended twice is counted three times.
//!
//! Profilers are:
//!
//! * what is set by `sys.setprofile`, or `PyEval_SetProfile` (on 3.11 `cProfile` and others are that);
//! * from 3.12 on, the tool that has the id `sys.monitoring.PROFILER_ID`: `cProfile`, which is told exactly what it
//!   has on its stack (`lsprof.rs`), or another one, if it wants to know what generators do.
//!
//! C functions have calls, too, and which of them a stack is in cannot be told from its frames. For what is set by
//! `sys.setprofile` they are noted as they are called ([`record`]), from the first switch on.
//!
//! What a profile function raises about a switch cannot be raised in the code that waits: it is reported as
//! unraisable. A profile function must not wait meanwhile (see [`is_telling`]).
//!
//! # Invariant
//!
//! `tstate->c_profilefunc` is only ever replaced by [`record`], which calls what was there with the same arguments;
//! `c_profileobj` stays as it is. Frames are only looked at while none ends; of those noted the address is compared.

use super::facts::{self, field};
use super::frames::Place;
use super::known_calls::{Owned, await_function, context_run_of};
#[cfg(not(cpython = "3.11"))]
use super::monitoring_profiler as tool;
use super::shared::Frame;
use crate::error;
use pyo3::ffi::{self, PyFrameObject, PyObject, PyThreadState};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

/// What a profiler has been told of a stack that is suspended; nothing where there is none.
#[derive(Default)]
pub(crate) struct Profiled(Option<Box<Told>>);

#[derive(Default)]
struct Told {
    /// Calls of C functions that have not returned, for each frame from the outermost in: of the one set by
    /// `sys.setprofile`, whose object's address is kept to be compared.
    calls: Option<(usize, Vec<Vec<Owned>>)>,
    #[cfg(not(cpython = "3.11"))]
    tool: Option<tool::Told>,
}

/// A call that has not returned.
enum Open {
    /// Of a Python function: its frame, only to be compared.
    Frame(usize),
    /// Of a C function.
    C(Owned),
}

thread_local! {
    /// What was set before [`record`].
    static RECORDED: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
    /// The calls that it has been told of, the innermost last. Not borrowed while anything else is called. What is left
    /// when the thread ends, without the GIL, is let go of without its references being dropped.
    static OPEN: RefCell<ManuallyDrop<Vec<Open>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// A profiler is being told of a switch.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is called by a profiler that is being told of a switch.
pub(super) fn is_telling() -> bool {
    TELLING.get()
}

impl Profiled {
    pub(crate) const NOTHING: Self = Self(None);

    /// Before the stack goes: its frames, down to and not including `until`, return.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, and `until` one of its frames.
    #[inline(always)]
    pub(super) unsafe fn leave(ts: *mut PyThreadState, until: *mut Frame) -> Self {
        // SAFETY: passed on.
        unsafe { if is_any(ts) { Self::leave_slowly(ts, until) } else { Self::NOTHING } }
    }

    /// When it goes on: they are called.
    ///
    /// # Safety
    ///
    /// As [`leave`](Self::leave); the frames are those that were there then.
    #[inline(always)]
    pub(super) unsafe fn enter(self, ts: *mut PyThreadState, until: *mut Frame) {
        // SAFETY: passed on.
        unsafe {
            if self.0.is_some() || is_any(ts) {
                self.enter_slowly(ts, until);
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn leave_slowly(ts: *mut PyThreadState, until: *mut Frame) -> Self {
        let mut told = Told::default();
        // SAFETY: attached; frames do not end while those that are called by us run.
        unsafe {
            telling(ts, || {
                if !function(ts).is_null() {
                    if notice(ts) {
                        // Nothing of this stack is on the record. What waits is `await_`, most likely.
                        let function = await_function();
                        if !function.0.is_null() {
                            OPEN.with_borrow_mut(|open| open.push(Open::C(function)));
                        }
                    }
                    told.calls = Some((object(ts).addr(), return_all(ts, until)));
                }
                #[cfg(not(cpython = "3.11"))]
                {
                    told.tool = tool::Told::leave(ts, &frames(ts, until));
                }
            });
        }
        Self(Some(Box::new(told)))
    }

    #[cold]
    #[inline(never)]
    unsafe fn enter_slowly(self, ts: *mut PyThreadState, until: *mut Frame) {
        let told = self.0.map_or_else(Told::default, |told| *told);
        // SAFETY: as above.
        unsafe {
            telling(ts, || {
                if !function(ts).is_null() {
                    notice(ts);
                    let object = object(ts).addr();
                    let calls = told.calls.filter(|(of, _)| *of == object);
                    call_all(ts, until, calls.map(|(_, calls)| calls).unwrap_or_default());
                }
                #[cfg(not(cpython = "3.11"))]
                tool::Told::enter(told.tool, ts, &frames(ts, until));
            });
        }
    }
}

/// Right before a switch to a stack: calls of C functions on it are noted from here on.
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[inline(always)]
pub(super) unsafe fn look(ts: *mut PyThreadState) {
    // SAFETY: passed on.
    unsafe {
        #[cfg(not(cpython = "3.11"))]
        if tool::may_be(ts) {
            tool::look(ts);
        }
        if !function(ts).is_null() {
            notice(ts);
        }
    }
}

/// Whether there is a profiler.
#[inline(always)]
unsafe fn is_any(ts: *mut PyThreadState) -> bool {
    // SAFETY: `ts` is the attached thread state (all callers).
    unsafe {
        #[cfg(not(cpython = "3.11"))]
        if tool::may_be(ts) {
            return true;
        }
        !function(ts).is_null()
    }
}

/// Calls `tell` with the error that is set out of its way, as trace functions are called; not at all from within one.
unsafe fn telling(ts: *mut PyThreadState, tell: impl FnOnce()) {
    // SAFETY: attached (all callers).
    unsafe {
        if super::tracing::depth(ts) > 0 {
            return;
        }
        error::keeping(|| {
            ffi::PyThreadState_EnterTracing(ts);
            let before = TELLING.replace(true);
            tell();
            TELLING.set(before);
            ffi::PyThreadState_LeaveTracing(ts);
        });
    }
}

/// The thread's frames that execute code, from the current one down to and not including `until`.
unsafe fn frames(ts: *mut PyThreadState, until: *mut Frame) -> Vec<Place> {
    // SAFETY: attached (all callers); no frame ends while it is looked at.
    unsafe {
        let of_stack = Place::frames(ts).take_while(|place| place.frame != until);
        of_stack.filter(|place| !place.code().is_null()).collect()
    }
}

unsafe fn function(ts: *mut PyThreadState) -> *mut c_void {
    // SAFETY: `ts` is the attached thread state (all callers).
    unsafe { *field::<_, *mut c_void>(ts, facts::TS_PROFILE_FUNCTION) }
}

/// Borrowed; or null.
unsafe fn object(ts: *mut PyThreadState) -> *mut PyObject {
    // SAFETY: as above.
    unsafe { *field::<_, *mut PyObject>(ts, facts::TS_PROFILE_OBJECT) }
}

/// The address of [`record`].
fn recorder() -> *mut c_void {
    record as *mut c_void
}

/// Puts [`record`] before the thread's profile function, if there is another one than was; whether there is.
unsafe fn notice(ts: *mut PyThreadState) -> bool {
    // SAFETY: attached, and there is a function (all callers).
    unsafe {
        let found = function(ts);
        if found == recorder() {
            return false;
        }
        RECORDED.set(found);
        *field::<_, *mut c_void>(ts, facts::TS_PROFILE_FUNCTION) = recorder();
        drop(OPEN.with(|open| std::mem::take(&mut **open.borrow_mut())));
        true
    }
}

/// The thread's profile function, which notes what it is told of and goes on to what was set.
unsafe extern "C" fn record(
    object: *mut PyObject,
    frame: *mut PyFrameObject,
    what: c_int,
    argument: *mut PyObject,
) -> c_int {
    let recorded = RECORDED.try_with(Cell::get).unwrap_or(ptr::null_mut());
    if recorded.is_null() {
        return 0; // The thread ends.
    }
    // What was noted is dropped when it is borrowed no more: that may run any code.
    let ended = OPEN.try_with(|open| {
        let mut open = open.borrow_mut();
        match what {
            ffi::PyTrace_CALL => open.push(Open::Frame(frame.addr())),
            ffi::PyTrace_C_CALL => {
                // SAFETY: attached; the function that is called, lent to us.
                open.push(Open::C(Owned(unsafe { ffi::Py_NewRef(argument) })));
            }
            ffi::PyTrace_RETURN => {
                let at = |each: &Open| matches!(each, Open::Frame(at) if *at == frame.addr());
                if let Some(at) = open.iter().rposition(at) {
                    return open.split_off(at);
                }
            }
            ffi::PyTrace_C_RETURN | ffi::PyTrace_C_EXCEPTION => {
                if matches!(open.last(), Some(Open::C(_))) {
                    return open.pop().into_iter().collect();
                }
            }
            _ => {}
        }
        Vec::new()
    });
    // SAFETY: what was set as a profile function of this type; called as the interpreter would.
    let result = unsafe {
        let recorded = std::mem::transmute::<*mut c_void, ffi::Py_tracefunc>(recorded);
        recorded(object, frame, what, argument)
    };
    drop(ended);
    result
}

/// Tells the thread's profile function, as long as there is one.
unsafe fn tell(ts: *mut PyThreadState, frame: *mut PyObject, what: c_int, argument: *mut PyObject) {
    // SAFETY: attached, no error set (all callers); a frame, and what belongs to the event.
    unsafe {
        let function = function(ts);
        if function.is_null() {
            return;
        }
        let function = std::mem::transmute::<*mut c_void, ffi::Py_tracefunc>(function);
        let of = Owned(object(ts));
        ffi::Py_XINCREF(of.0);
        if function(of.0, frame.cast(), what, argument) != 0 {
            ffi::PyErr_WriteUnraisable(of.0);
        }
    }
}

/// Returns from all of the frames, and the C functions that they are in; those, from the outermost frame in.
unsafe fn return_all(ts: *mut PyThreadState, until: *mut Frame) -> Vec<Vec<Owned>> {
    // SAFETY: attached, no error set.
    unsafe {
        let mut calls = Vec::new();
        for place in frames(ts, until) {
            let frame = Owned(place.frame_object(ts));
            if frame.0.is_null() {
                ffi::PyErr_Clear();
                break;
            }
            let mut called = Vec::new();
            while let Some((function, outer)) = innermost_call(frame.0) {
                tell(ts, frame.0, ffi::PyTrace_C_RETURN, function.0);
                // `record` has taken it off, unless somebody has set another function, or none, meanwhile.
                drop(off_the_record(outer));
                called.push(function);
            }
            if called.is_empty() && !is_on_record(frame.0) {
                if let Some(function) = context_run_of(&place) {
                    tell(ts, frame.0, ffi::PyTrace_C_RETURN, function.0);
                    called.push(function);
                }
            }
            called.reverse();
            tell(ts, frame.0, ffi::PyTrace_RETURN, ffi::Py_None());
            calls.push(called);
        }
        calls.reverse();
        calls
    }
}

fn is_on_record(frame: *mut PyObject) -> bool {
    OPEN.with_borrow(|open| {
        open.iter().rev().any(|each| matches!(each, Open::Frame(at) if *at == frame.addr()))
    })
}

/// Takes all but the outermost `outer` calls off the record, to be dropped while it is not borrowed.
fn off_the_record(outer: usize) -> Vec<Open> {
    OPEN.with_borrow_mut(|open| {
        let outer = outer.min(open.len());
        open.split_off(outer)
    })
}

/// The C function called last by the code in the frame, as far as is known, if it has not returned, and how many
/// calls are on the record before it; the frame's call is on the record, too, or was there before.
unsafe fn innermost_call(frame: *mut PyObject) -> Option<(Owned, usize)> {
    OPEN.with_borrow(|open| {
        let Some(Open::C(function)) = open.last() else { return None };
        let below = open.iter().rev().find(|each| matches!(each, Open::Frame(_)));
        match below {
            Some(Open::Frame(at)) if *at != frame.addr() => None,
            // SAFETY: attached; noted, hence alive.
            _ => Some((Owned(unsafe { ffi::Py_NewRef(function.0) }), open.len() - 1)),
        }
    })
}

/// Calls all of the frames, and what they had called.
unsafe fn call_all(ts: *mut PyThreadState, until: *mut Frame, calls: Vec<Vec<Owned>>) {
    // SAFETY: as above.
    unsafe {
        let mut calls = calls.into_iter();
        for place in frames(ts, until).into_iter().rev() {
            let frame = Owned(place.frame_object(ts));
            if frame.0.is_null() {
                ffi::PyErr_Clear();
                return;
            }
            tell(ts, frame.0, ffi::PyTrace_CALL, ffi::Py_None());
            for function in calls.next().unwrap_or_default() {
                tell(ts, frame.0, ffi::PyTrace_C_CALL, function.0);
            }
        }
    }
}
