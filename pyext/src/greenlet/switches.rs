//! Switches on behalf of fibers.
//!
//! Code on a fiber that switches to a greenlet has the switch done on the thread's own stack, in the
//! greenlet that is current all along: the *base* of that call. What switches to the base returns to
//! the fiber.
//!
//! # Invariant
//!
//! greenlet's own functions are called here only, and in `calls.rs` by code that is on the thread's own stack:
//! after `leave_fiber`, or where no fiber is current.

use super::answer::Answer;
use super::calls::{Calls, Request, inside};
use super::original;
use crate::interp::tracing;
use crate::wait_here::wait_here;
use crate::worker::{self, Worker};
use crate::{error, interp, messages, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::ptr;

/// What is to be done with a greenlet. All borrowed, but for what is said to be owned.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Switch {
        greenlet: *mut PyObject,
        arguments: *mut PyObject,
        keywords: *mut PyObject,
    },
    Throw {
        greenlet: *mut PyObject,
        arguments: *mut PyObject,
    },
    ApiSwitch {
        greenlet: *mut PyObject,
        arguments: *mut PyObject,
        keywords: *mut PyObject,
    },
    ApiThrow {
        greenlet: *mut PyObject,
        exception: [*mut PyObject; 3],
    },
    /// The greenlet (owned) gets what it waited for (owned).
    Answer {
        greenlet: *mut PyObject,
        answer: Answer,
    },
}

impl Action {
    fn target(&self) -> *mut PyObject {
        match *self {
            Self::Switch { greenlet, .. }
            | Self::Throw { greenlet, .. }
            | Self::ApiSwitch { greenlet, .. }
            | Self::ApiThrow { greenlet, .. }
            | Self::Answer { greenlet, .. } => greenlet,
        }
    }
}

/// One call of somebody's; on the caller's stack, be that a fiber's or the thread's own.
struct Call {
    action: Action,
    /// The fiber that the caller is on, or null.
    worker: *mut Worker,
    /// The call's result, or the exception that it raised; owned.
    result: *mut PyObject,
    exception: *mut PyObject,
    /// Or else what is to be waited for before the call can go on.
    request: Option<Request>,
}

/// Does what `switch`, `throw` and their like do, wherever it is called.
///
/// # Safety
///
/// Attached, no error set; what the action names must be valid.
pub(super) unsafe fn perform(action: Action) -> *mut PyObject {
    let mut call = Call {
        action,
        worker: ptr::null_mut(),
        result: ptr::null_mut(),
        exception: ptr::null_mut(),
        request: None,
    };
    // SAFETY: attached. `call` stays where it is until we return: on a fiber's stack nobody moves it,
    // and on the thread's own it is in place whenever our greenlet is current.
    unsafe {
        loop {
            call.worker = worker::current();
            if !leave_fiber(call.worker, on_thread_stack, (&raw mut call).cast()) {
                call.exception = error::take();
                if let Action::Answer { greenlet, answer } = call.action {
                    answer.drop();
                    Calls::waits_no_more(Calls::of_this_thread(), greenlet);
                }
            }
            if let Action::Answer { greenlet, .. } = call.action {
                ffi::Py_DECREF(greenlet);
            }
            let Some(request) = call.request.take() else { break };
            let answer = wait_here(request.iterator, request.yielded);
            call.action = Action::Answer { greenlet: request.greenlet, answer };
        }
        if !call.exception.is_null() {
            error::restore(call.exception);
        }
        call.result
    }
}

/// Has `function` called on the thread's own stack. False with an error set if this stack cannot be
/// left.
unsafe fn leave_fiber(
    worker: *mut Worker,
    function: unsafe fn(*mut c_void),
    argument: *mut c_void,
) -> bool {
    // SAFETY: attached; the worker is current.
    unsafe {
        if worker.is_null() {
            function(argument);
            return true;
        }
        if let Some(message) = interp::refusal(ffi::PyThreadState_Get()) {
            error::set_runtime(message);
            return false;
        }
        Worker::call_out(worker, function, argument);
        true
    }
}

/// The part of [`perform`] that is done on the thread's own stack.
unsafe fn on_thread_stack(call: *mut c_void) {
    let call: *mut Call = call.cast();
    // SAFETY: attached, no error set. While another greenlet is current nothing of this frame is used.
    unsafe {
        let calls = Calls::of_this_thread();
        let target = (*call).action.target();
        let is_answer = matches!((*call).action, Action::Answer { .. });
        if !is_answer && (*calls).waiting.contains(&target) {
            error::set_runtime(messages::GREENLET_WAITS);
            (*call).exception = error::take();
            return;
        }
        let base = original::current();
        follow_base(call, base);
        let mut id = 0;
        if base.is_null() {
            // The interpreter exits.
        } else if !(*call).worker.is_null() || (*calls).bases.is_empty() || is_answer {
            id = Calls::enter(calls, base, (*call).worker, true);
        } else {
            ffi::Py_DECREF(base);
        }
        let result = match (*call).action {
            Action::Switch { greenlet, arguments, keywords } => {
                original::switch(greenlet, arguments, keywords)
            }
            Action::Throw { greenlet, arguments } => original::throw(greenlet, arguments),
            Action::ApiSwitch { greenlet, arguments, keywords } => {
                original::api_switch(greenlet, arguments, keywords)
            }
            Action::ApiThrow { greenlet, exception } => original::api_throw(greenlet, exception),
            Action::Answer { greenlet, answer } => {
                (*calls).answer = Some(answer);
                original::api_switch(greenlet, ptr::null_mut(), ptr::null_mut())
            }
        };
        let request = (*calls).request.take_if(|request| request.base == id);
        if id != 0 {
            Calls::leave(calls, id);
        }
        // The greenlet has taken the answer, unless it could not be switched to.
        if let Some(answer) = if is_answer { (*calls).answer.take() } else { None } {
            error::keeping(|| answer.drop());
            Calls::waits_no_more(calls, target);
        }
        if request.is_some() {
            if result.is_null() {
                ffi::PyErr_Clear();
            }
            ffi::Py_XDECREF(result);
            (*call).request = request;
        } else {
            (*call).result = result;
            (*call).exception = if result.is_null() { error::take() } else { ptr::null_mut() };
        }
    }
}

/// Portals' code may be resumed in one greenlet now and in another one later. To the greenlets that it
/// has begun it is the same: those whose parent is where it was have it where it is.
unsafe fn follow_base(call: *mut Call, base: *mut PyObject) {
    // SAFETY: attached, no error set; a worker that waits for us is alive, and so is its portal. Each
    // step owns the reference that it looks at.
    unsafe {
        let worker = (*call).worker;
        if base.is_null() || worker.is_null() || (*worker).owner.is_null() {
            return;
        }
        let owner = (*worker).owner;
        if (*owner).base_greenlet == base {
            return;
        }
        let before = std::mem::replace(&mut (*owner).base_greenlet, ffi::Py_NewRef(base));
        if before.is_null() {
            return;
        }
        let mut child = ffi::Py_NewRef((*call).action.target());
        loop {
            let parent = ffi::PyObject_GetAttr(child, names::PARENT.get());
            if parent.is_null() || parent == ffi::Py_None() || parent == base {
                ffi::Py_XDECREF(parent);
                break;
            }
            if parent == before {
                // It fails where `base` is a descendant of `child`: then there is no such order.
                ffi::PyObject_SetAttr(child, names::PARENT.get(), base);
                ffi::Py_DECREF(parent);
                break;
            }
            ffi::Py_DECREF(child);
            child = parent;
        }
        ffi::PyErr_Clear();
        ffi::Py_DECREF(child);
        ffi::Py_DECREF(before);
    }
}

/// `tp_dealloc` of greenlets. One that is under way gets GreenletExit, which is a switch.
pub(super) unsafe fn dealloc(greenlet: *mut PyObject) {
    // SAFETY: attached; the last reference is gone. An error that is set belongs to whoever dropped it.
    unsafe {
        let worker = worker::current();
        if !original::is_under_way(greenlet) {
            return original::dealloc(greenlet);
        }
        // Out of the collector's sight: it must not meet an object without references.
        ffi::PyObject_GC_UnTrack(greenlet.cast());
        let pending = error::take();
        // Which nothing is in the way of, as no error is set any more.
        if worker.is_null() {
            kill(greenlet);
        } else {
            let tracing = tracing::depth(ffi::PyThreadState_Get());
            let mut end = End { greenlet, tracing };
            Worker::call_out(worker, kill_for_fiber, (&raw mut end).cast());
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}

/// A greenlet that code on a fiber has dropped, in so many trace functions.
struct End {
    greenlet: *mut PyObject,
    tracing: c_int,
}

/// The part of [`dealloc`] that is done on the thread's own stack, for code on a fiber.
unsafe fn kill_for_fiber(end: *mut c_void) {
    // SAFETY: attached, no error set; in the frame of `dealloc`, on the fiber that waits for us.
    unsafe {
        let End { greenlet, tracing } = *end.cast::<End>();
        tracing::as_deep(ffi::PyThreadState_Get(), tracing, || kill(greenlet));
    }
}

unsafe fn kill(greenlet: *mut PyObject) {
    // SAFETY: attached, no error set. The greenlet's frames run now, and end in the current one: in
    // greenlet's own function, which would take a request for the end. So this call cannot wait; if it
    // is made inside another one, that one can, and its caller is not in greenlet's function.
    unsafe {
        if inside().is_some() {
            return original::dealloc(greenlet);
        }
        let calls = Calls::of_this_thread();
        let base = original::current();
        if base.is_null() {
            return original::dealloc(greenlet);
        }
        let id = Calls::enter(calls, base, ptr::null_mut(), false);
        original::dealloc(greenlet);
        Calls::leave(calls, id);
    }
}
