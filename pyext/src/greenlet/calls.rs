//! Switches on behalf of fibers, and waits on behalf of greenlets.
//!
//! Code on a fiber that switches to a greenlet has the switch done on the thread's own stack, in the
//! greenlet that is current all along: the *base* of that call. What switches to the base returns to
//! the fiber.
//!
//! Code in a greenlet that somebody on a portal (or in a callback of a loop) has switched to may call
//! `await_`, too. The awaitable is stepped there; but it is the base that can wait, the portal's fiber
//! or the callback's stack, since it is their task. So the greenlet switches to the base with a
//! [`Request`]; the base waits, in the middle of its own call of `switch`, and switches back with the
//! [`Answer`].
//!
//! # Invariant
//!
//! * `bases` are the calls that have not returned yet, in the order in which they were made. All code
//!   on the thread's own stack that is not in the greenlet of the last one was switched to by it,
//!   directly or not. A call that returns takes those made after it out: they return later, or never.
//! * A request is taken by the base for which it was made, at once; an answer by the greenlet that it is
//!   for. Between the two that greenlet is in `waiting`, and nobody else can switch to it.
//! * All of this is in the thread's record: frames of greenlets that do not run are no place for it.

use super::original;
use crate::await_::{self, Answer};
use crate::worker::{self, Mail, Worker};
use crate::{error, interp, names, portal};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// A call of greenlet's that has not returned.
struct Base {
    id: u64,
    /// The greenlet that has made it, owned.
    greenlet: *mut PyObject,
    /// The fiber on whose behalf it was made, or null.
    worker: *mut Worker,
    /// Whether the caller can wait for those whom it has switched to.
    can_wait: bool,
}

/// A greenlet cannot go on before its base has waited.
#[derive(Clone, Copy)]
struct Request {
    base: u64,
    /// Who asks; owned.
    greenlet: *mut PyObject,
    /// What is being stepped there, and what it has yielded; both the greenlet's.
    iterator: *mut PyObject,
    yielded: *mut PyObject,
}

/// A thread's part of all this.
pub(crate) struct Calls {
    bases: Vec<Base>,
    last_id: u64,
    request: Option<Request>,
    answer: Option<Answer>,
    /// Greenlets that wait for an answer; only compared.
    waiting: Vec<*mut PyObject>,
}

impl Calls {
    pub(crate) const fn new() -> Self {
        Self { bases: Vec::new(), last_id: 0, request: None, answer: None, waiting: Vec::new() }
    }

    fn of_this_thread() -> *mut Self {
        // SAFETY: the thread's own record.
        unsafe { &raw mut (*worker::thread()).greenlets }
    }

    /// Notes a call that begins. `greenlet` is owned.
    unsafe fn enter(
        this: *mut Self,
        greenlet: *mut PyObject,
        worker: *mut Worker,
        can_wait: bool,
    ) -> u64 {
        // SAFETY: the thread's own record, borrowed for no longer than this.
        let calls = unsafe { &mut *this };
        calls.last_id += 1;
        calls.bases.push(Base { id: calls.last_id, greenlet, worker, can_wait });
        calls.last_id
    }

    /// Notes that a call has returned.
    unsafe fn leave(this: *mut Self, id: u64) {
        // SAFETY: as in `enter`. Dropping greenlets can run any code, so they are taken out before.
        unsafe {
            let ended = {
                let calls = &mut *this;
                let Some(at) = calls.bases.iter().rposition(|base| base.id == id) else { return };
                calls.bases.split_off(at)
            };
            let pending = error::take();
            for base in ended {
                ffi::Py_DECREF(base.greenlet);
            }
            if !pending.is_null() {
                error::restore(pending);
            }
        }
    }

    unsafe fn waits_no_more(this: *mut Self, greenlet: *mut PyObject) {
        // SAFETY: as in `enter`.
        let calls = unsafe { &mut *this };
        calls.waiting.retain(|&other| other != greenlet);
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
            let answer = await_::wait_here(request.iterator, request.yielded);
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
            error::set_runtime(error::GREENLET_WAITS);
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
        if base.is_null() || worker.is_null() || (*worker).portal.is_null() {
            return;
        }
        let before = portal::change_base((*worker).portal, base);
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

/// Where code in a greenlet is that somebody has switched to.
pub(crate) struct Inside {
    base: u64,
    /// The current greenlet, owned.
    pub(crate) greenlet: *mut PyObject,
    /// The base's, borrowed from the record.
    base_greenlet: *mut PyObject,
    /// The fiber on whose behalf it was switched to, or null.
    pub(crate) worker: *mut Worker,
    can_wait: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: attached, as whoever asked; owned, and current, so that nothing ends with it.
        unsafe { ffi::Py_DECREF(self.greenlet) }
    }
}

/// Where this code is, if it is in a greenlet that the last of the calls has switched to.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn inside() -> Option<Inside> {
    // SAFETY: attached.
    unsafe {
        if !original::is_loaded() || !worker::current().is_null() { None } else { look_inside() }
    }
}

#[inline(never)]
unsafe fn look_inside() -> Option<Inside> {
    // SAFETY: attached; the thread's own record, borrowed while nothing else runs.
    unsafe {
        let calls = Calls::of_this_thread();
        let bases = &(*calls).bases;
        let last = bases.last()?;
        let (base, base_greenlet) = (last.id, last.greenlet);
        let (worker, can_wait) = (last.worker, last.can_wait);
        // An error may be set where this is asked, and greenlets of other threads may end in it.
        let mut greenlet = ptr::null_mut();
        error::keeping(|| greenlet = original::current());
        if greenlet.is_null() {
            return None;
        }
        if greenlet == base_greenlet {
            ffi::Py_DECREF(greenlet);
            return None;
        }
        Some(Inside { base, greenlet, base_greenlet, worker, can_wait })
    }
}

/// Whether the greenlet (borrowed) is not current, but may be again.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn is_away(greenlet: *mut PyObject) -> bool {
    // SAFETY: attached; an error that is set stays.
    unsafe {
        let mut is_away = false;
        error::keeping(|| {
            let now = original::current();
            is_away = now != greenlet && original::is_active(greenlet);
            ffi::Py_XDECREF(now);
        });
        is_away
    }
}

/// Whether the greenlet is one of SQLAlchemy's, whose parent awaits what it is switched to with.
///
/// # Safety
///
/// Attached, no error set. An error is set if that cannot be told.
pub(crate) unsafe fn is_provider(greenlet: *mut PyObject) -> bool {
    // SAFETY: attached.
    unsafe {
        let provider = names::attribute(greenlet, names::PROVIDER.get());
        let is_provider = !provider.is_null() && ffi::PyObject_IsTrue(provider) == 1;
        ffi::Py_XDECREF(provider);
        is_provider
    }
}

/// Has the base wait for what `iterator` has yielded (both borrowed).
///
/// # Safety
///
/// Attached, no error set, on the thread's own stack.
pub(crate) unsafe fn wait(
    inside: Inside,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> Answer {
    // SAFETY: attached. The base is in the middle of a call of ours, and takes the request at once. All
    // that is used after the switch back is this frame's, which is in place then.
    unsafe {
        if !inside.can_wait {
            error::set_runtime(error::GREENLET_ENDS);
            return Answer::Refuse(error::take());
        }
        let calls = Calls::of_this_thread();
        let greenlet = inside.greenlet;
        (*calls).waiting.push(greenlet);
        (*calls).request = Some(Request {
            base: inside.base,
            greenlet: ffi::Py_NewRef(greenlet),
            iterator,
            yielded,
        });
        let none = ptr::null_mut();
        let base = ffi::Py_NewRef(inside.base_greenlet);
        let result = original::api_switch(base, none, none);
        let exception = if result.is_null() { error::take() } else { none };
        ffi::Py_XDECREF(result);
        ffi::Py_DECREF(base);
        Calls::waits_no_more(calls, greenlet);
        if let Some(answer) = (*calls).answer.take() {
            ffi::Py_XDECREF(exception);
            return answer;
        }
        // The base was not there to be asked, or somebody has come to us around `switch`.
        if let Some(request) = (*calls).request.take_if(|request| request.greenlet == greenlet) {
            ffi::Py_DECREF(request.greenlet);
        }
        if exception.is_null() {
            error::set_runtime(error::GREENLET_WAITS);
            return Answer::Refuse(error::take());
        }
        Answer::Refuse(exception)
    }
}

/// Greenlets whose end had to wait until somebody was on the thread's own stack.
static DEFERRED: AtomicUsize = AtomicUsize::new(0);

/// How often the end of a greenlet had to be put off.
pub(crate) fn deferred() -> usize {
    DEFERRED.load(Ordering::Relaxed)
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
        if !leave_fiber(worker, kill, greenlet.cast()) {
            ffi::PyErr_Clear();
            put_off(greenlet);
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}

/// The part of [`dealloc`] that is done on the thread's own stack.
unsafe fn kill(greenlet: *mut c_void) {
    // SAFETY: attached, no error set. The greenlet's frames run now, and end in the current one: in
    // greenlet's own function, which would take a request for the end. So this call cannot wait; if it
    // is made inside another one, that one can, and its caller is not in greenlet's function.
    unsafe {
        if inside().is_some() {
            return original::dealloc(greenlet.cast());
        }
        let calls = Calls::of_this_thread();
        let base = original::current();
        if base.is_null() {
            return original::dealloc(greenlet.cast());
        }
        let id = Calls::enter(calls, base, ptr::null_mut(), false);
        original::dealloc(greenlet.cast());
        Calls::leave(calls, id);
    }
}

/// Has a greenlet that cannot be killed here killed later: it lives on until then.
unsafe fn put_off(greenlet: *mut PyObject) {
    // SAFETY: attached. As greenlet does where one is resurrected in the middle of its end
    // (`_green_dealloc_kill_started_non_main_greenlet`): it has one reference again, and the reference
    // to its class that `subtype_dealloc` drops is replaced.
    unsafe {
        DEFERRED.fetch_add(1, Ordering::Relaxed);
        ffi::Py_INCREF(greenlet);
        let class = ffi::Py_TYPE(greenlet);
        if ffi::PyType_HasFeature(class, ffi::Py_TPFLAGS_HEAPTYPE) != 0 {
            ffi::Py_INCREF(class.cast());
        }
        ffi::PyObject_GC_Track(greenlet.cast());
        // A thread's own mailbox is there as long as it runs code.
        let thread = worker::thread();
        let _ = worker::Thread::mailbox(thread).post(Mail::Drop(greenlet));
    }
}
