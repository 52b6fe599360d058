//! Waiting on behalf of a task.
//!
//! What a task does with what its coroutine yields (`Task.__step` and `__wakeup` in
//! Lib/asyncio/tasks.py) is done here for a caller in the middle of a step of that task: the future
//! gets a callback, the task knows what it waits for, and a cancellation is raised in the caller.

use super::below::{Below, can_park, is_here};
use super::change::give_way;
use super::driver::Driver;
use super::stock::{is_stock, may_be_stock};
use super::wake::for_wait;
use super::waker::WakerObject;
use super::{hooks, task};
use crate::awaitable::iterator_of;
use crate::current_loop::{RUNNING_LOOP, running_loop};
use crate::hook::Hook;
use crate::interp::contexts;
use crate::interp::tracing;
use crate::no_portal::no_portal;
use crate::step::Stepper;
use crate::task_waits::{may_wait_for, wait_has_ended};
use crate::worker::{self, Worker};
use crate::{delegate, error, greenlet, guest, interp, modules, names};
use pyo3::ffi::PySendResult::PYGEN_NEXT;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicIsize, Ordering};

/// What the awaitable gets next.
enum Answer {
    Send,
    /// This exception; owned.
    Throw(*mut PyObject),
    /// Nothing: it cannot be waited for here. An error is set.
    Refused,
}

impl Answer {
    /// What somebody else has answered. (What a task sends is None.)
    unsafe fn of(answer: greenlet::Answer) -> Self {
        match answer {
            greenlet::Answer::Send(value) => {
                // SAFETY: attached; owned.
                unsafe { ffi::Py_DECREF(value) };
                Self::Send
            }
            greenlet::Answer::Throw(exception) => Self::Throw(exception),
            greenlet::Answer::Refuse(exception) => {
                // SAFETY: attached; owned.
                unsafe { error::restore(exception) };
                Self::Refused
            }
        }
    }
}

/// Waits with this stack for what `iterator` has yielded in a greenlet (both owned there).
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn wait_here(
    iterator: *mut PyObject,
    yielded: *mut PyObject,
) -> greenlet::Answer {
    // SAFETY: attached; owned references are dropped where they are not handed on.
    unsafe {
        let event_loop = running_loop();
        let possible =
            !event_loop.is_null() && is_stock(event_loop) && is_trio_running() == Ok(false);
        let mut answer = Answer::Refused;
        if possible && task::prepare() {
            let driver = Driver::of(event_loop);
            if !driver.is_null() {
                answer = wait_for(driver, iterator, yielded);
                Driver::release(driver);
            }
        }
        ffi::Py_XDECREF(event_loop);
        match answer {
            Answer::Send => greenlet::Answer::Send(ffi::Py_NewRef(ffi::Py_None())),
            Answer::Throw(exception) => greenlet::Answer::Throw(exception),
            Answer::Refused => {
                if ffi::PyErr_Occurred().is_null() {
                    error::set_foreign_greenlet();
                }
                greenlet::Answer::Refuse(error::take())
            }
        }
    }
}

/// Whether code on this stack could wait for a guest of it. (Also true where that is refused for another reason
/// than that the loop runs elsewhere.)
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn can_wait_here() -> bool {
    // SAFETY: attached; owned references are dropped. Errors are met again by who waits.
    unsafe {
        with_running_driver(|driver| {
            let ts = ffi::PyThreadState_Get();
            Driver::is_driven(driver) || is_here(driver, ts)
        })
        .unwrap_or(true)
    }
}

/// Whether the loop that runs in this thread runs in the frames of a suspended worker.
///
/// # Safety
///
/// Attached, no error set; the worker is suspended.
pub(crate) unsafe fn runs_on(worker: *mut Worker) -> bool {
    // SAFETY: the contract.
    unsafe {
        with_running_driver(|driver| {
            Worker::has_frame(worker, hooks::RUN_ONCE.get(), (*driver).event_loop)
        })
        .unwrap_or(false)
    }
}

/// Calls `question` with the driver of the loop that runs in this thread, if callers can park there.
unsafe fn with_running_driver(question: impl FnOnce(*mut Driver) -> bool) -> Option<bool> {
    // SAFETY: attached, no error set; owned references are dropped.
    unsafe {
        if RUNNING_LOOP.get().is_null() {
            return None;
        }
        let event_loop = running_loop();
        let mut answer = None;
        if !event_loop.is_null() && is_stock(event_loop) {
            let driver = Driver::of(event_loop);
            if !driver.is_null() {
                answer = Some(question(driver));
                Driver::release(driver);
            }
        }
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(event_loop);
        answer
    }
}

/// Waits for `awaitable` with the whole stack, if a loop runs on which that can be done; `None` if
/// not. With `yielded` (borrowed, or null), the awaitable is an iterator that has yielded that.
///
/// # Safety
///
/// Attached, no error set; `worker` is the current one, or null; valid objects.
pub(crate) unsafe fn try_park(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    yielded: *mut PyObject,
) -> Option<*mut PyObject> {
    // SAFETY: the contract.
    unsafe {
        if RUNNING_LOOP.get().is_null() {
            return None;
        }
        let event_loop = running_loop();
        if event_loop.is_null() {
            return Some(event_loop);
        }
        // Whether the loop is stock indeed is asked again by whoever waits: not by those who need not.
        let result = if !may_be_stock(event_loop) {
            None
        } else {
            match is_trio_running() {
                Ok(true) => None,
                Ok(false) => Some(park(worker, event_loop, awaitable, yielded)),
                Err(()) => Some(ptr::null_mut()),
            }
        };
        ffi::Py_DECREF(event_loop);
        result
    }
}

/// The length of `sys.modules` when Trio was last looked for in vain. Imports make it longer, Trio by more
/// than a hundred modules. (To miss it, exactly as many had to be removed since, without a wait in between.)
static WITHOUT_TRIO: AtomicIsize = AtomicIsize::new(-1);

/// Whether Trio runs this code, inside a callback of the loop. `Err` with an error set if that cannot be
/// found out.
#[inline]
unsafe fn is_trio_running() -> Result<bool, ()> {
    // SAFETY: attached.
    unsafe {
        if modules::length() == WITHOUT_TRIO.load(Ordering::Relaxed) {
            return Ok(false);
        }
        ask_for_trio()
    }
}

#[cold]
unsafe fn ask_for_trio() -> Result<bool, ()> {
    // SAFETY: attached; the answer is only compared.
    unsafe {
        let length = modules::length();
        if modules::find(names::TRIO.get()).is_null() {
            WITHOUT_TRIO.store(length, Ordering::Relaxed);
            return Ok(false);
        }
        let running = hooks::IS_TRIO_RUNNING.call(&[]);
        ffi::Py_XDECREF(running);
        if running.is_null() { Err(()) } else { Ok(running == ffi::Py_True()) }
    }
}

unsafe fn park(
    worker: *mut Worker,
    event_loop: *mut PyObject,
    awaitable: *mut PyObject,
    yielded: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; owned references are dropped where they are not handed on.
    unsafe {
        if !yielded.is_null() {
            let stepper = Stepper::of(worker, awaitable);
            return go_on(event_loop, awaitable, stepper, ffi::Py_NewRef(yielded));
        }
        let Ok(waited_for) = with_task(event_loop, awaitable) else { return ptr::null_mut() };
        let result = wait_from_the_start(worker, event_loop, waited_for);
        if result.is_null() && waited_for != awaitable {
            abandon(waited_for);
        }
        ffi::Py_DECREF(waited_for);
        result
    }
}

unsafe fn wait_from_the_start(
    worker: *mut Worker,
    event_loop: *mut PyObject,
    awaitable: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; owned references are dropped where they are not handed on.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return ptr::null_mut();
        }
        let stepper = Stepper::of(worker, awaitable);
        let (status, mut result) = stepper.send(iterator, ffi::Py_None());
        if status == PYGEN_NEXT {
            result = go_on(event_loop, iterator, stepper, result);
        }
        ffi::Py_DECREF(iterator);
        result
    }
}

/// Cancels the task that `with_task` has made if it is not done: its caller waits no longer, or was
/// refused, and what `await_` was given must not go on without him. The error that is set stays.
unsafe fn abandon(task: *mut PyObject) {
    // SAFETY: attached, an error is set.
    unsafe {
        let reason = error::take();
        let cancelled = names::call_none(task, names::CANCEL.get());
        if cancelled.is_null() {
            ffi::PyErr_WriteUnraisable(task);
        }
        ffi::Py_XDECREF(cancelled);
        error::restore(reason);
    }
}

/// What to wait for, as a new reference. In a task that is the awaitable. Outside of one it gets a
/// task of its own, unless it is a future: without a task neither timeouts nor task groups work.
unsafe fn with_task(
    event_loop: *mut PyObject,
    awaitable: *mut PyObject,
) -> Result<*mut PyObject, ()> {
    // SAFETY: attached.
    unsafe {
        let (task, _) = current_task(event_loop)?;
        if !task.is_null() {
            ffi::Py_DECREF(task);
            return Ok(ffi::Py_NewRef(awaitable));
        }
        let is_future = hooks::IS_FUTURE.call(&[awaitable]);
        if is_future.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(is_future);
        if is_future == ffi::Py_True() {
            return Ok(ffi::Py_NewRef(awaitable));
        }
        // A task costs the loop a callback, for which a trace function is called again, and so on.
        if !may_begin_task(event_loop) {
            delegate::discard(awaitable);
            return Err(());
        }
        // The task shares our context, which we leave while we wait; but a portal's worker does not.
        let worker = worker::current();
        let context = if worker.is_null() || !(*worker).runs.is_null() {
            contexts::current(ffi::PyThreadState_Get())
        } else {
            ptr::null_mut()
        };
        let context = if context.is_null() { ffi::Py_None() } else { context };
        let task = hooks::TASK_FOR.call(&[event_loop, awaitable, context]);
        if task.is_null() { Err(()) } else { Ok(task) }
    }
}

/// Whether this code could wait for a task: known beforehand only of code in a trace function. False with
/// an error set.
unsafe fn may_begin_task(event_loop: *mut PyObject) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        if tracing::depth(ts) == 0 {
            return true;
        }
        if greenlet::inside().is_some() && tracing::is_at_prompt(ts) {
            return true; // whoever has switched to this greenlet will wait
        }
        let driver = Driver::of(event_loop);
        if driver.is_null() {
            return false;
        }
        let may = can_park(driver, ts).is_some();
        Driver::release(driver);
        may
    }
}

/// Goes on with an iterator that has yielded `yielded` (owned).
unsafe fn go_on(
    event_loop: *mut PyObject,
    iterator: *mut PyObject,
    stepper: Stepper,
    mut yielded: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; references are owned as said.
    unsafe {
        if !is_stock(event_loop) {
            ffi::Py_DECREF(yielded);
            return no_portal(iterator);
        }
        let driver = Driver::of(event_loop);
        if driver.is_null() || !task::prepare() {
            if !driver.is_null() {
                Driver::release(driver);
            }
            ffi::Py_DECREF(yielded);
            return refused(iterator);
        }
        loop {
            let answer = wait_for(driver, iterator, yielded);
            ffi::Py_DECREF(yielded);
            let (status, result) = match answer {
                Answer::Send => stepper.send(iterator, ffi::Py_None()),
                Answer::Throw(exception) => stepper.throw(iterator, exception),
                Answer::Refused => {
                    Driver::release(driver);
                    return refused(iterator);
                }
            };
            if status != PYGEN_NEXT {
                Driver::release(driver);
                return result;
            }
            yielded = result;
        }
    }
}

/// Ends an iterator that cannot be waited for; the error that is set stays.
unsafe fn refused(iterator: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, an error is set.
    unsafe {
        let reason = error::take();
        if !delegate::close(iterator) {
            ffi::PyErr_WriteUnraisable(iterator);
        }
        error::restore(reason);
        ptr::null_mut()
    }
}

/// Waits for what an awaitable's iterator has yielded (both borrowed).
unsafe fn wait_for(driver: *mut Driver, iterator: *mut PyObject, yielded: *mut PyObject) -> Answer {
    // SAFETY: attached; the caller has the driver in use.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        if let Some(message) = interp::refusal(ts) {
            error::set_runtime(message);
            return Answer::Refused;
        }
        let worker = worker::current();
        if !worker.is_null()
            && !(*worker).guest.is_null()
            && (Driver::is_driven(driver) || !is_here(driver, ts))
        {
            // The loop is not in the frames of this greenlet: who has switched to it waits.
            return Answer::of(guest::wait_on_host(worker, iterator, ffi::Py_NewRef(yielded)));
        }
        if let Some(inside) = greenlet::inside() {
            // A greenlet in whose frames the loop is not: who has switched to it waits.
            if Driver::is_driven(driver) || !is_here(driver, ts) {
                return Answer::of(greenlet::wait(inside, iterator, yielded));
            }
        }
        let Some(below) = can_park(driver, ts) else { return Answer::Refused };
        let before = Driver::begin_change(driver);
        let answer = subscribe_and_wait(driver, iterator, yielded, &below);
        Driver::end_change(driver, before);
        answer
    }
}

/// [`wait_for`], where the caller can park.
unsafe fn subscribe_and_wait(
    driver: *mut Driver,
    iterator: *mut PyObject,
    yielded: *mut PyObject,
    below: &Below,
) -> Answer {
    // SAFETY: attached. The task, the future and the waker are kept until the wait is over.
    unsafe {
        if !Driver::watch_close(driver) || !Driver::prepare_runner(driver) {
            return Answer::Refused;
        }
        let Ok((task, is_pure)) = current_task((*driver).event_loop) else {
            return Answer::Refused;
        };
        let is_future = match future_to_wait_for(driver, task, yielded) {
            Ok(is_future) => is_future,
            Err(exception) => {
                ffi::Py_XDECREF(task);
                return if exception.is_null() {
                    Answer::Refused
                } else {
                    Answer::Throw(exception)
                };
            }
        };
        let mut watched = ptr::null_mut();
        if is_future && !may_wait_for(yielded, iterator, &mut watched) {
            ffi::Py_XDECREF(task);
            return Answer::Throw(error::take());
        }
        let future = if is_future { yielded } else { ptr::null_mut() };
        let waker = for_wait(driver, task, future);
        let answer = if waker.is_null() || !subscribe(driver, future, waker) {
            if !waker.is_null() {
                (*waker).parked = ptr::null_mut();
            }
            Answer::Refused
        } else {
            (*(*waker).parked).iterator = iterator;
            wait(driver, waker, is_pure, below)
        };
        ffi::Py_XDECREF(waker.cast());
        ffi::Py_XDECREF(task);
        if watched.is_null() { answer } else { end_watched(watched, answer) }
    }
}

/// The Python layer is told that the wait has ended, and may have something to raise instead.
unsafe fn end_watched(watched: *mut PyObject, answer: Answer) -> Answer {
    // SAFETY: attached; with an error set if the answer is a refusal.
    unsafe {
        let refusal = error::take();
        let exception = wait_has_ended(watched);
        if exception.is_null() {
            if !refusal.is_null() {
                error::restore(refusal);
            }
            return answer;
        }
        ffi::Py_XDECREF(refusal);
        if let Answer::Throw(before) = answer {
            ffi::Py_DECREF(before);
        }
        Answer::Throw(exception)
    }
}

/// The task that runs now, as a new reference; null if there is none. True with it if it is one in
/// pure Python, which asyncio's C functions do not know of since 3.14.
unsafe fn current_task(event_loop: *mut PyObject) -> Result<(*mut PyObject, bool), ()> {
    // SAFETY: attached. Up to 3.13 what runs is in one dict, which all of asyncio's functions share.
    unsafe {
        let tasks = hooks::CURRENT_TASKS.get();
        if tasks != ffi::Py_None() {
            let task = ffi::PyDict_GetItemWithError(tasks, event_loop);
            if !task.is_null() {
                return Ok((ffi::Py_NewRef(task), false));
            }
            if !ffi::PyErr_Occurred().is_null() {
                return Err(());
            }
        }
        ask_for_task(event_loop)
    }
}

/// [`current_task`], as asyncio's functions have it, which others may have replaced.
unsafe fn ask_for_task(event_loop: *mut PyObject) -> Result<(*mut PyObject, bool), ()> {
    // SAFETY: attached.
    unsafe {
        for (name, is_pure) in [(&names::CURRENT_TASK, false), (&names::PY_CURRENT_TASK, true)] {
            let function = hooks::of_tasks(name);
            if function.is_null() {
                continue;
            }
            let task = ffi::PyObject_CallOneArg(function, event_loop);
            if task.is_null() {
                return Err(());
            }
            if task != ffi::Py_None() {
                return Ok((task, is_pure));
            }
            ffi::Py_DECREF(task);
        }
        Ok((ptr::null_mut(), false))
    }
}

/// Whether `yielded` is a future to wait for, or else None, which is to let others run once. As an
/// error what a task would throw into its coroutine (owned; null if another error is set).
unsafe fn future_to_wait_for(
    driver: *mut Driver,
    task: *mut PyObject,
    yielded: *mut PyObject,
) -> Result<bool, *mut PyObject> {
    // SAFETY: attached.
    unsafe {
        if yielded == ffi::Py_None() {
            return Ok(false);
        }
        let blocking = names::attribute(yielded, names::BLOCKING.get());
        if blocking.is_null() || blocking == ffi::Py_None() {
            ffi::Py_XDECREF(blocking);
            if !ffi::PyErr_Occurred().is_null() {
                return Err(error::take());
            }
            let is_generator = ffi::Py_TYPE(yielded) == &raw mut ffi::PyGen_Type;
            return Err(if is_generator {
                runtime_error(
                    c"yield was used instead of yield from for generator in task %R with %R",
                    &[task, yielded],
                )
            } else {
                runtime_error(c"Task got bad yield: %R", &[yielded])
            });
        }
        let is_blocking = ffi::PyObject_IsTrue(blocking);
        ffi::Py_DECREF(blocking);
        if is_blocking < 0 {
            return Err(error::take());
        }
        let of = loop_of(yielded);
        ffi::Py_XDECREF(of);
        if of.is_null() {
            return Err(error::take());
        }
        if of != (*driver).event_loop {
            return Err(runtime_error(
                c"Task %R got Future %R attached to a different loop",
                &[task, yielded],
            ));
        }
        if is_blocking == 0 {
            return Err(runtime_error(
                c"yield was used instead of yield from in task %R with %R",
                &[task, yielded],
            ));
        }
        if yielded == task {
            return Err(runtime_error(c"Task cannot await on itself: %R", &[task]));
        }
        if ffi::PyObject_SetAttr(yielded, names::BLOCKING.get(), ffi::Py_False()) < 0 {
            return Err(error::take());
        }
        Ok(true)
    }
}

/// A future's loop, as a new reference (`asyncio.futures._get_loop`).
unsafe fn loop_of(future: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let get = names::attribute(future, names::GET_LOOP.get());
        if get.is_null() {
            if !ffi::PyErr_Occurred().is_null() {
                return get;
            }
            return ffi::PyObject_GetAttr(future, names::LOOP_FIELD.get());
        }
        let event_loop = ffi::PyObject_CallNoArgs(get);
        ffi::Py_DECREF(get);
        event_loop
    }
}

/// A `RuntimeError`; of objects in the text, null stands for None. Null with an error set.
unsafe fn runtime_error(format: &std::ffi::CStr, objects: &[*mut PyObject]) -> *mut PyObject {
    // SAFETY: attached; the formats have one or two `%R`.
    unsafe {
        let at = |index: usize| {
            let object = objects.get(index).copied().unwrap_or(ptr::null_mut());
            if object.is_null() { ffi::Py_None() } else { object }
        };
        let text = ffi::PyUnicode_FromFormat(format.as_ptr(), at(0), at(1));
        if text.is_null() {
            return text;
        }
        let exception = ffi::PyObject_CallOneArg(ffi::PyExc_RuntimeError, text);
        ffi::Py_DECREF(text);
        exception
    }
}

/// Has the waker called when the future is done, or soon if there is none. False with an error set.
unsafe fn subscribe(driver: *mut Driver, future: *mut PyObject, waker: *mut WakerObject) -> bool {
    // SAFETY: attached; one positional and one named argument besides the object itself.
    unsafe {
        let (object, method) = if future.is_null() {
            ((*driver).event_loop, &names::CALL_SOON)
        } else {
            (future, &names::ADD_DONE_CALLBACK)
        };
        let arguments = [object, waker.cast(), (*driver).context];
        let result = ffi::PyObject_VectorcallMethod(
            method.get(),
            arguments.as_ptr(),
            2,
            hooks::context_alone(),
        );
        ffi::Py_XDECREF(result);
        !result.is_null()
    }
}

/// Parks, and says how the wait has ended.
unsafe fn wait(
    driver: *mut Driver,
    waker: *mut WakerObject,
    is_pure: bool,
    below: &Below,
) -> Answer {
    // SAFETY: attached, no error set; the task, the future and the waker are the caller's.
    unsafe {
        let parked = (*waker).parked;
        let (task, future) = ((*parked).task, (*parked).future);
        if !task.is_null() {
            begin_wait(task, future);
            if !leave_task((*driver).event_loop, task, is_pure) {
                (*waker).parked = ptr::null_mut();
                task::set_waiter(task, ptr::null_mut());
                return Answer::Refused;
            }
        }
        give_way(driver, parked, Some(below));
        (*waker).parked = ptr::null_mut();
        let woken_by = std::mem::replace(&mut (*driver).woken_by, ptr::null_mut());
        ffi::Py_XDECREF(woken_by);
        if !task.is_null() {
            enter_task((*driver).event_loop, task, is_pure);
            end_wait(task, future);
        }
        let (exception, done) = ((*parked).exception, (*parked).outcome);
        if !exception.is_null() {
            ffi::Py_XDECREF(done);
            unsubscribe(future, waker);
            return Answer::Throw(exception);
        }
        let mut outcome = ptr::null_mut();
        if !done.is_null() {
            let result = names::call_none(done, names::RESULT.get());
            if result.is_null() {
                outcome = error::take();
            }
            ffi::Py_XDECREF(result);
            ffi::Py_DECREF(done);
        }
        if !task.is_null() && task::must_cancel(task) {
            let is_cancellation = !outcome.is_null()
                && ffi::PyErr_GivenExceptionMatches(outcome, hooks::CANCELLED_ERROR.get()) != 0;
            if !is_cancellation {
                ffi::Py_XDECREF(outcome);
                outcome = names::call_none(task, names::MAKE_CANCELLED_ERROR.get());
                if outcome.is_null() {
                    outcome = error::take();
                }
            }
            task::clear_must_cancel(task);
        }
        if outcome.is_null() { Answer::Send } else { Answer::Throw(outcome) }
    }
}

/// The task waits for `future`. If it has been cancelled, so is what it waits for.
unsafe fn begin_wait(task: *mut PyObject, future: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        if future.is_null() {
            return;
        }
        task::set_waiter(task, future);
        if task::must_cancel(task) && cancel(task, future) {
            task::clear_must_cancel(task);
        }
        call_graph(&hooks::ADD_AWAITED, future, task);
    }
}

unsafe fn end_wait(task: *mut PyObject, future: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        if !future.is_null() {
            task::set_waiter(task, ptr::null_mut());
            call_graph(&hooks::DISCARD_AWAITED, future, task);
        }
    }
}

/// `future.cancel(msg=task._cancel_message)`.
unsafe fn cancel(task: *mut PyObject, future: *mut PyObject) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        let message = names::attribute(task, names::CANCEL_MESSAGE.get());
        let message = if message.is_null() {
            ffi::PyErr_Clear();
            ffi::Py_NewRef(ffi::Py_None())
        } else {
            message
        };
        let result = names::call_one(future, names::CANCEL.get(), message);
        ffi::Py_DECREF(message);
        if result.is_null() {
            ffi::PyErr_WriteUnraisable(future);
            return false;
        }
        let cancelled = ffi::PyObject_IsTrue(result) == 1;
        ffi::Py_DECREF(result);
        ffi::PyErr_Clear();
        cancelled
    }
}

/// Tells asyncio's call graph (from 3.14 on) who awaits whom.
unsafe fn call_graph(hook: &Hook, future: *mut PyObject, task: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        if hook.get() == ffi::Py_None() {
            return;
        }
        let done = hook.call(&[future, task]);
        if done.is_null() {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(done);
    }
}

/// No task is current any more. False with an error set.
unsafe fn leave_task(event_loop: *mut PyObject, task: *mut PyObject, is_pure: bool) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        let name = if is_pure { &names::PY_LEAVE_TASK } else { &names::LEAVE_TASK };
        let function = hooks::of_tasks(name);
        let arguments = [event_loop, task];
        let done = ffi::PyObject_Vectorcall(function, arguments.as_ptr(), 2, ptr::null_mut());
        ffi::Py_XDECREF(done);
        !done.is_null()
    }
}

/// The task is current again.
unsafe fn enter_task(event_loop: *mut PyObject, task: *mut PyObject, is_pure: bool) {
    // SAFETY: attached, no error set. Between two callbacks no task is current, so that this
    // cannot fail but for want of memory.
    unsafe {
        let name = if is_pure { &names::PY_ENTER_TASK } else { &names::ENTER_TASK };
        let function = hooks::of_tasks(name);
        let arguments = [event_loop, task];
        let done = ffi::PyObject_Vectorcall(function, arguments.as_ptr(), 2, ptr::null_mut());
        if done.is_null() {
            ffi::PyErr_WriteUnraisable(task);
        }
        ffi::Py_XDECREF(done);
    }
}

/// The future need not call the waker any more.
unsafe fn unsubscribe(future: *mut PyObject, waker: *mut WakerObject) {
    // SAFETY: attached, no error set.
    unsafe {
        if future.is_null() {
            return;
        }
        let done = names::call_one(future, names::REMOVE_DONE_CALLBACK.get(), waker.cast());
        if done.is_null() {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(done);
    }
}
