//! Switches: from guest to guest through their host, and back to the host.
//!
//! Whoever is outside of all greenlets and switches to one is its *host* for the time of that call
//! ([`host`]): it resumes the greenlet's worker, its guest, and when that goes away, the next one, until
//! somebody switches to the greenlet that the host's own code runs in.
//!
//! # Invariant
//!
//! * A greenlet that `is_away` is suspended in [`leave`], with nobody on top of it or below it, so any code of
//!   its thread can resume it. One that `is_fresh` has its worker and was not resumed yet.
//! * Whoever has found where to switch to ([`resolve`]) does so at once. Where finalizers may run in between
//!   (when a greenlet has ended), the host looks again.
//! * A [`Transit`] is in one place and owned by it. Guests put it into their greenlet's `outbox`, right before
//!   they suspend, and the host takes it right after; the host puts it where the guest's `inbox` points, in the
//!   frame of its `leave`, right before it resumes it. No other code can run in between: that of `State::leave`
//!   for guests, which have contexts of their own, is none.
//! * The host owns a reference to its guest as long as that is not away.

use super::layout::{Greenlet, Parcel, Phase, Record, Transit, drop_ref, new_ref};
use super::thread::{current, quiet_record};
use super::{exceptions, names, trace};
use crate::thread::Thread;
use crate::worker::{self, Input, Output, Worker};
use crate::{error, interp, messages, parking};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;

/// Switches to `target` with `parcel` (owned): what somebody switches back with, as a new reference, or null
/// with the error set that somebody has thrown, or that says why not.
///
/// # Safety
///
/// Attached, no error set; the calling thread's record; a greenlet.
pub(super) unsafe fn switch(
    record: *mut Record,
    target: *mut Greenlet,
    parcel: Parcel,
) -> *mut PyObject {
    // SAFETY: the contract. Nothing can run between `resolve` and what comes next.
    unsafe {
        let target = resolve(record, target);
        if target.is_null() {
            parcel.drop();
            return ptr::null_mut();
        }
        let worker = worker::current();
        let me = current(record);
        let transit = Transit { target, origin: new_ref(me), parcel };
        if target == me {
            arrive(record, transit)
        } else if !worker.is_null() && ptr::eq((*worker).guest, me.cast()) {
            let transit = leave(me, transit);
            if matches!(transit.parcel, Parcel::Hosting) {
                host(record, me, transit)
            } else {
                arrive(record, transit)
            }
        } else {
            host(record, me, transit)
        }
    }
}

/// The greenlet that a switch to `target` gets to: the first of it and its parents that is not dead. If that
/// was new, it has a worker now, and is to be resumed. A new reference, or null with an error set.
unsafe fn resolve(record: *mut Record, target: *mut Greenlet) -> *mut Greenlet {
    // SAFETY: attached, no error set. References are owned while other code can run.
    unsafe {
        if !is_allowed(record, target) {
            return ptr::null_mut();
        }
        let mut at = new_ref(target);
        loop {
            let inner = (*at).inner;
            match (*inner).phase {
                Phase::Active => {
                    if is_reachable(at)
                        && may_switch(at, c"Failed to switch stacks into a running greenlet.")
                    {
                        (*inner).is_condemned = false;
                        return at;
                    }
                    break;
                }
                Phase::New => {
                    // This may run any code.
                    let run = ffi::PyObject_GetAttr(at.cast(), names::run());
                    if run.is_null() {
                        break;
                    }
                    if !is_allowed(record, at) {
                        drop_object(run);
                        break;
                    }
                    if (*inner).phase != Phase::New {
                        drop_object(run);
                        continue;
                    }
                    if !begin(record, at, run) {
                        break;
                    }
                    return at;
                }
                Phase::Dead => {
                    let parent = new_ref((*inner).parent);
                    drop_ref(at);
                    if parent.is_null() {
                        exceptions::set_error(COLLECTED);
                        return parent;
                    }
                    at = parent;
                }
            }
        }
        drop_ref(at);
        ptr::null_mut()
    }
}

const COLLECTED: &str = "cannot switch to a garbage collected greenlet";

unsafe fn drop_object(object: *mut PyObject) {
    // SAFETY: attached; owned.
    unsafe { error::keeping(|| ffi::Py_DECREF(object)) }
}

/// Gives a new greenlet what it needs to begin with `run` (owned). False with an error set if there is no stack.
unsafe fn begin(record: *mut Record, greenlet: *mut Greenlet, run: *mut PyObject) -> bool {
    // SAFETY: attached. Nothing here runs other code, but for the drop in the end of a failure.
    unsafe {
        let inner = (*greenlet).inner;
        if !may_switch(greenlet, c"Failed to switch stacks into a greenlet for the first time.") {
            drop_object(run);
            return false;
        }
        let worker = Thread::take_worker();
        if worker.is_null() {
            drop_object(run);
            return false;
        }
        let context = std::mem::replace(&mut (*inner).context, ptr::null_mut());
        Worker::make_guest(worker, greenlet.cast(), context);
        (*inner).worker = worker;
        (*inner).found_run = run;
        (*inner).main = new_ref((*record).main);
        (*inner).phase = Phase::Active;
        (*inner).is_fresh = true;
        true
    }
}

/// For tests of what happens when a switch fails. False with an error set.
unsafe fn may_switch(greenlet: *mut Greenlet, message: &std::ffi::CStr) -> bool {
    // SAFETY: attached; alive.
    unsafe {
        if (*(*greenlet).inner).is_unswitchable {
            ffi::PyErr_SetString(ffi::PyExc_SystemError, message.as_ptr());
        }
        !(*(*greenlet).inner).is_unswitchable
    }
}

/// The main greenlet of the thread that a greenlet belongs to, borrowed; null if its parents are gone.
///
/// # Safety
///
/// Attached; a greenlet.
pub(super) unsafe fn main_of(mut greenlet: *mut Greenlet) -> *mut Greenlet {
    // SAFETY: parents are owned by their children, and form no circle.
    unsafe {
        while !greenlet.is_null() {
            let inner = (*greenlet).inner;
            if (*inner).is_main {
                return greenlet;
            }
            if (*inner).phase != Phase::New && !(*inner).main.is_null() {
                return (*inner).main;
            }
            greenlet = (*inner).parent;
        }
        greenlet
    }
}

/// Whether the greenlet is one of the calling thread. False with an error set if not.
unsafe fn is_allowed(record: *mut Record, greenlet: *mut Greenlet) -> bool {
    // SAFETY: attached; alive.
    unsafe {
        let main = main_of(greenlet);
        if main == (*record).main {
            return true;
        }
        if main.is_null() {
            exceptions::set_error(COLLECTED);
        } else if (*(*main).inner).record.is_null() {
            exceptions::set_error(
                "cannot switch to a different thread (which happens to have exited)",
            );
        } else {
            ffi::PyErr_Format(
                exceptions::error(),
                c"Cannot switch to a different thread\n\tCurrent:  %R\n\tExpected: %R".as_ptr(),
                (*record).main,
                main,
            );
        }
        false
    }
}

/// Whether an active greenlet of this thread can go on. False with an error set if not: it waits in `await_`, or
/// is below an event loop's code that waits.
unsafe fn is_reachable(greenlet: *mut Greenlet) -> bool {
    // SAFETY: attached; running workers are alive.
    unsafe {
        let inner = (*greenlet).inner;
        if (*inner).is_away || (*inner).is_fresh || (*inner).is_main || is_running(greenlet) {
            return true;
        }
        exceptions::set_error(messages::GREENLET_WAITS);
        false
    }
}

/// Whether the greenlet's code is on the running stack.
///
/// # Safety
///
/// Attached; a greenlet that is no main greenlet.
pub(super) unsafe fn is_running(greenlet: *mut Greenlet) -> bool {
    // SAFETY: running workers are alive.
    unsafe {
        let mut worker = worker::current();
        while !worker.is_null() && !ptr::eq((*worker).guest, greenlet.cast()) {
            worker = Worker::outer(worker);
        }
        !worker.is_null()
    }
}

/// Gets what was sent to the current greenlet: tells the trace function, and lets go of where it came from.
unsafe fn arrive(record: *mut Record, transit: Transit) -> *mut PyObject {
    // SAFETY: attached, no error set; owned.
    unsafe {
        let Transit { target, origin, parcel } = transit;
        let mut result = ptr::null_mut();
        match parcel {
            Parcel::One(value) => result = value,
            Parcel::Value { arguments, keywords } => result = value_of(arguments, keywords),
            Parcel::Exception(exception) => error::restore(exception),
            Parcel::Nothing | Parcel::Hosting => {
                exceptions::set_nothing();
            }
        }
        if !(*record).trace.is_null() && !trace::call(record, !result.is_null(), origin, target) {
            if !result.is_null() {
                drop_object(result);
            }
            result = ptr::null_mut();
        }
        drop_ref(origin);
        drop_ref(target);
        result
    }
}

/// What `switch` returns for such arguments (owned): the argument, if it is one; a tuple of them; the dict of
/// keyword arguments; or a tuple of both.
unsafe fn value_of(arguments: *mut PyObject, keywords: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; owned, a tuple and a dict or null (a C extension may have called with anything).
    unsafe {
        if keywords.is_null() || ffi::PyDict_Size(keywords) == 0 {
            if !keywords.is_null() {
                drop_object(keywords);
            }
            if ffi::PyTuple_Check(arguments) == 0 || ffi::PyTuple_GET_SIZE(arguments) != 1 {
                return arguments;
            }
            let value = ffi::Py_NewRef(ffi::PyTuple_GET_ITEM(arguments, 0));
            drop_object(arguments);
            return value;
        }
        let result = match ffi::PyObject_Length(arguments) {
            -1 => ptr::null_mut(),
            0 => ffi::Py_NewRef(keywords),
            _ => ffi::PyTuple_Pack(2, arguments, keywords),
        };
        drop_object(arguments);
        drop_object(keywords);
        result
    }
}

/// Suspends the current greenlet, a guest, for its host to go on with `transit`, until somebody switches to it.
unsafe fn leave(greenlet: *mut Greenlet, transit: Transit) -> Transit {
    // SAFETY: attached, no error set; the greenlet's worker is current. Who resumes it has filled in `received`,
    // which is in place while this stack is suspended.
    unsafe {
        let inner = (*greenlet).inner;
        let mut received = Transit::NONE;
        let before = std::mem::replace(&mut (*inner).inbox, &raw mut received);
        (*inner).outbox = transit;
        (*inner).is_away = true;
        Worker::go_away((*inner).worker);
        (*inner).inbox = before;
        (&raw const received).read_volatile()
    }
}

/// Hosts greenlets until somebody switches to `me`, which the caller's code runs in.
unsafe fn host(record: *mut Record, me: *mut Greenlet, mut transit: Transit) -> *mut PyObject {
    // SAFETY: attached, no error set. `me` runs, hence is owned by its host, or by the record.
    unsafe {
        loop {
            if transit.target == me {
                if !matches!(transit.parcel, Parcel::Hosting) {
                    return arrive(record, transit);
                }
                drop_ref(transit.target);
                transit = Transit {
                    target: transit.origin,
                    origin: new_ref(me),
                    parcel: Parcel::Nothing,
                };
            }
            let inner = (*transit.target).inner;
            transit = if (*inner).is_away || (*inner).is_fresh {
                resume(record, transit)
            } else if (*inner).is_active() && ((*inner).is_main || is_running(transit.target)) {
                pass_outward(transit)
            } else {
                redirect(record, me, transit)
            };
        }
    }
}

/// Where to go on if the target has ended, or waits, since it was found: a finalizer has run in between.
#[cold]
unsafe fn redirect(record: *mut Record, me: *mut Greenlet, transit: Transit) -> Transit {
    // SAFETY: attached, no error set; owned.
    unsafe {
        let Transit { target: before, origin, mut parcel } = transit;
        let mut target = resolve(record, before);
        if target.is_null() {
            let exception = error::take();
            parcel.drop();
            parcel = Parcel::Exception(exception);
            target = new_ref(me);
        }
        drop_ref(before);
        Transit { target, origin, parcel }
    }
}

/// Resumes a greenlet until it goes away or ends: what it has done that with.
unsafe fn resume(record: *mut Record, transit: Transit) -> Transit {
    // SAFETY: attached, no error set. The greenlet is away or fresh, and its worker this thread's. It is owned
    // while it runs.
    unsafe {
        let greenlet = new_ref(transit.target);
        let inner = (*greenlet).inner;
        let worker = (*inner).worker;
        let ts = (*record).thread_state;
        let input = if (*inner).is_fresh {
            (*inner).is_fresh = false;
            (*inner).outbox = transit;
            Input::Run(run, greenlet.cast())
        } else {
            (*inner).is_away = false;
            *(*inner).inbox = transit;
            Input::Go
        };
        let output = Worker::resume(worker, ts, input);
        let mut next = std::mem::replace(&mut (*inner).outbox, Transit::NONE);
        if let Output::Away = output {
            if !(*worker).mid_step {
                Thread::begin_suspension(worker, ts);
            }
        } else {
            if next.target.is_null() {
                next = panicked(record, greenlet);
            }
            (*inner).worker = ptr::null_mut();
            (*inner).context = Worker::end_guest(worker);
            if (*worker).mid_step {
                Thread::end_suspension(worker);
            }
            // This may run any code; all that is on its way is ours.
            Thread::give_back(worker);
        }
        drop_ref(greenlet);
        next
    }
}

/// What goes on after a mistake of ours in a greenlet: its thread's main greenlet gets the error that is set.
#[cold]
unsafe fn panicked(record: *mut Record, greenlet: *mut Greenlet) -> Transit {
    // SAFETY: attached, an error set.
    unsafe {
        (*(*greenlet).inner).phase = Phase::Dead;
        Transit {
            target: new_ref((*record).main),
            origin: new_ref(greenlet),
            parcel: Parcel::Exception(error::take()),
        }
    }
}

/// Has a greenlet that runs further out go on: all stacks down to that of a guest suspend. Comes back when
/// somebody switches to the greenlet that the caller's code runs in.
unsafe fn pass_outward(transit: Transit) -> Transit {
    // SAFETY: attached, no error set; the frame stays where it is meanwhile. `host` has seen the target on the
    // running stack, below a guest.
    unsafe {
        let worker = worker::current();
        if !(*worker).guest.is_null() {
            return leave((*worker).guest.cast(), transit);
        }
        let mut transit = transit;
        Worker::call_on_host(worker, outward, (&raw mut transit).cast());
        (&raw const transit).read_volatile()
    }
}

unsafe fn outward(transit: *mut c_void) {
    let transit: *mut Transit = transit.cast();
    // SAFETY: as in `pass_outward`; on the stack below.
    unsafe { *transit = pass_outward(*transit) }
}

/// Has the current guest be hosted by the greenlet in whose frames the running event loop is, if that is one
/// that has switched away: there somebody can wait.
///
/// # Safety
///
/// Attached, no error set; the worker is current, and a guest.
pub(super) unsafe fn move_to_loop(worker: *mut Worker) -> bool {
    // SAFETY: the contract. Workers in the thread's list are alive, and so are the greenlets that have them.
    unsafe {
        let me: *mut Greenlet = (*worker).guest.cast();
        let record = quiet_record();
        let mut at = Thread::first_suspended(Thread::this());
        while !at.is_null() && !is_with_loop(at, me, record) {
            at = Thread::next(at);
        }
        if at.is_null() {
            return false;
        }
        let target = new_ref((*at).guest.cast());
        let transit = Transit { target, origin: new_ref(me), parcel: Parcel::Hosting };
        let Transit { target, origin, parcel } = leave(me, transit);
        let is_hosted = matches!(parcel, Parcel::Nothing);
        parcel.drop();
        drop_ref(origin);
        drop_ref(target);
        is_hosted
    }
}

unsafe fn is_with_loop(worker: *mut Worker, except: *mut Greenlet, record: *mut Record) -> bool {
    // SAFETY: a worker of the thread's list; away, hence suspended.
    unsafe {
        let greenlet: *mut Greenlet = (*worker).guest.cast();
        if greenlet.is_null() || greenlet == except {
            return false;
        }
        let inner = (*greenlet).inner;
        (*inner).is_away && (*inner).main == (*record).main && parking::runs_on(worker)
    }
}

/// What a greenlet's worker runs: its function, and then the way to its parent.
unsafe fn run(greenlet: *mut c_void) {
    let greenlet: *mut Greenlet = greenlet.cast();
    // SAFETY: attached, no error set, on the greenlet's worker. `resume` owns the greenlet.
    unsafe {
        let record = quiet_record();
        let inner = (*greenlet).inner;
        let Transit { target, origin, parcel } =
            std::mem::replace(&mut (*inner).outbox, Transit::NONE);
        // What was given to the constructor may be another one, if `run` was found elsewhere.
        let function = std::mem::replace(&mut (*inner).found_run, ptr::null_mut());
        let given = std::mem::replace(&mut (*inner).run, function);
        ffi::Py_XDECREF(given);
        let mut parcel = parcel;
        if !(*record).trace.is_null() {
            let is_value = matches!(parcel, Parcel::One(_) | Parcel::Value { .. });
            if !trace::call_with(record, is_value, origin, target) {
                parcel.drop();
                parcel = Parcel::Exception(error::take());
            }
        }
        drop_ref(origin);
        // Whoever resumes it owns it.
        drop_ref(target);
        let result = match parcel {
            Parcel::One(argument) => {
                // In the greenlet, for the collector to see.
                (*inner).arguments = argument;
                let arguments = [ptr::null_mut(), argument];
                let one = 1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
                let first = arguments.as_ptr().add(1);
                ffi::PyObject_Vectorcall(function, first, one, ptr::null_mut())
            }
            Parcel::Value { arguments, keywords } => {
                (*inner).arguments = arguments;
                (*inner).keywords = keywords;
                ffi::PyObject_Call(function, arguments, keywords)
            }
            Parcel::Exception(exception) => {
                error::restore(exception);
                ptr::null_mut()
            }
            Parcel::Nothing | Parcel::Hosting => {
                exceptions::set_nothing();
                ptr::null_mut()
            }
        };
        for object in [&mut (*inner).arguments, &mut (*inner).keywords, &mut (*inner).run] {
            let object = std::mem::replace(object, ptr::null_mut());
            if !object.is_null() {
                drop_object(object);
            }
        }
        let parcel = if result.is_null() {
            exceptions::exit_as_value(error::take())
        } else {
            Parcel::One(result)
        };
        end(record, greenlet, parcel);
    }
}

/// Finds who gets what a greenlet has ended with: its parent, or that one's, if it cannot go on. Of several
/// errors the last one counts.
unsafe fn end(record: *mut Record, greenlet: *mut Greenlet, parcel: Parcel) {
    // SAFETY: attached, no error set, on the greenlet's worker. Parents are owned while other code can run.
    unsafe {
        let inner = (*greenlet).inner;
        (*inner).is_ending = true;
        let mut parcel = parcel;
        let mut parent = new_ref((*inner).parent);
        let target = loop {
            if parent.is_null() {
                break new_ref((*record).main);
            }
            let target = resolve(record, parent);
            if !target.is_null() {
                break target;
            }
            let exception = error::take();
            parcel.drop();
            parcel = Parcel::Exception(exception);
            let next = new_ref((*(*parent).inner).parent);
            drop_ref(parent);
            parent = next;
        };
        // This may run any code; the host looks again where the target is.
        drop_ref(parent);
        (*inner).is_ending = false;
        (*inner).phase = Phase::Dead;
        (*inner).outbox = Transit { target, origin: new_ref(greenlet), parcel };
    }
}

/// Raises `exception` (owned) in a greenlet. In a dead one GreenletExit is what the switch returns.
///
/// # Safety
///
/// As [`switch`].
pub(super) unsafe fn throw(
    record: *mut Record,
    target: *mut Greenlet,
    exception: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let parcel = if (*(*target).inner).phase == Phase::Dead {
            exceptions::exit_as_value(exception)
        } else {
            Parcel::Exception(exception)
        };
        switch(record, target, parcel)
    }
}

/// Raises GreenletExit in a greenlet that nobody refers to any more. It ends in the current one.
///
/// # Safety
///
/// Attached, no error set; the calling thread's record; a greenlet that is away, with one reference at least.
pub(super) unsafe fn kill(record: *mut Record, greenlet: *mut Greenlet) {
    // SAFETY: the contract. What was its parent is its parent again if it lives on. Parents form no circle: not
    // now, if somebody has found it again, nor later, by what its code has done meanwhile.
    unsafe {
        let exception = exceptions::killing();
        if exception.is_null() {
            return ffi::PyErr_WriteUnraisable(greenlet.cast());
        }
        let inner = (*greenlet).inner;
        let here = current(record);
        let temporary = if is_descendant(here, greenlet) { (*inner).parent } else { here };
        let parent = std::mem::replace(&mut (*inner).parent, new_ref(temporary));
        let result = switch(record, greenlet, Parcel::Exception(exception));
        if result.is_null() {
            ffi::PyErr_WriteUnraisable(greenlet.cast());
        } else {
            ffi::Py_DECREF(result);
        }
        let other = if is_descendant(parent, greenlet) {
            parent
        } else {
            std::mem::replace(&mut (*inner).parent, parent)
        };
        drop_ref(other);
    }
}

/// Whether `greenlet` is `ancestor`, or one of those whose parents lead there.
unsafe fn is_descendant(mut greenlet: *mut Greenlet, ancestor: *mut Greenlet) -> bool {
    // SAFETY: attached; alive, or null. Parents are owned by their children, and form no circle.
    unsafe {
        while !greenlet.is_null() && greenlet != ancestor {
            greenlet = (*(*greenlet).inner).parent;
        }
        !greenlet.is_null()
    }
}

/// The context of a greenlet that runs, borrowed; or null.
///
/// # Safety
///
/// Attached; the calling thread's record; the greenlet [runs](is_running), or is the thread's main greenlet.
pub(super) unsafe fn running_context(
    record: *mut Record,
    greenlet: *mut Greenlet,
) -> *mut PyObject {
    // SAFETY: running workers are alive.
    unsafe {
        let mut above = ptr::null_mut();
        let mut worker = worker::current();
        if greenlet != current(record) {
            while !worker.is_null() && !ptr::eq((*worker).guest, greenlet.cast()) {
                above = worker;
                worker = Worker::outer(worker);
            }
        }
        if above.is_null() {
            interp::contexts::current((*record).thread_state)
        } else {
            Worker::inherited_context(above)
        }
    }
}
