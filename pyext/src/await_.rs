//! `await_()`: wait for an awaitable from synchronous code.
//!
//! On a portal, the awaitable is stepped right here, by what `await` itself uses (`PyIter_Send`).
//! If it finishes without yielding, nothing was switched. If it yields, the yielded object is what
//! the task must get, so the fiber suspends with it and the portal hands it out of its own step;
//! what the task sends or throws next comes back here, and goes into the awaitable as `yield from`
//! would pass it on (`gen_send_ex`, `_gen_throw` in Objects/genobject.c).

use crate::worker::{self, Input, Worker};
use crate::{error, greenlet, interp, names};
use pyo3::ffi::PySendResult::{PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the Python layer wants called where `await_` finds no portal.
static NO_PORTAL: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants asked whether the current portal is the current task's.
static IS_USABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants asked for the current task where asyncio cannot be.
static CURRENT_TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// What the Python layer wants called inside a greenlet that the portal did not start in.
static FOREIGN_GREENLET: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

const NO_PORTAL_MESSAGE: &str = "await_() needs a portal, and this code runs in none: wrap the \
     task's coroutine in fiberback.Portal, or start it through fiberback";

/// `PyCoro_Type`'s own `am_send`: what `PyIter_Send` would call, without the way there.
static COROUTINE_SEND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// `_fiberback.await_`.
///
/// The caller keeps the argument alive for the time of the call. `METH_FASTCALL` rather than
/// `METH_O` tells where it does: see `caller_owns_arguments`.
pub(crate) unsafe extern "C" fn await_(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        if count != 1 {
            error::set_type(&format!("await_() takes exactly one argument ({count} given)"));
            return ptr::null_mut();
        }
        let worker = worker::current();
        // SAFETY: `METH_FASTCALL`: one borrowed object.
        let awaitable = unsafe { *arguments };
        // SAFETY: called by the interpreter: attached, and it lends us the argument.
        unsafe {
            if worker.is_null() || (*worker).masked {
                return off_portal(awaitable);
            }
            if (greenlet::is_loaded() || greenlet::may_be_loaded() && greenlet::look())
                && !worker::is_on_home_greenlet(worker)
            {
                return with_greenlet(worker, awaitable, arguments);
            }
            // By far the most frequent, and the one where a nanosecond counts: a coroutine that
            // nobody has started yet.
            if ffi::Py_TYPE(awaitable) == &raw mut ffi::PyCoro_Type
                && interp::coroutine_state(awaitable) == interp::CoroutineState::Created
            {
                let send = COROUTINE_SEND.load(Ordering::Relaxed);
                let send = std::mem::transmute::<*mut c_void, ffi::sendfunc>(send);
                let mut result = ptr::null_mut();
                if send(awaitable, ffi::Py_None(), &raw mut result) != PYGEN_NEXT {
                    return result;
                }
                // A reference of our own from here on: what the portal shows to the collector.
                ffi::Py_INCREF(awaitable);
                result = go_on(worker, awaitable, PYGEN_NEXT, result, arguments);
                ffi::Py_DECREF(awaitable);
                return result;
            }
            drive(worker, awaitable, arguments)
        }
    })
}

/// [`await_`] in a process with greenlet in it, or where that is to be found out.
#[inline(never)]
unsafe fn with_greenlet(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; the worker is current.
    unsafe {
        if greenlet::look() && worker::on_foreign_greenlet(worker) {
            on_foreign_greenlet(worker, awaitable)
        } else {
            drive(worker, awaitable, arguments)
        }
    }
}

/// Steps `awaitable` to its end. `arguments` is where `await_`'s caller keeps the awaitable; null
/// where only a ready result will do.
#[inline(never)]
unsafe fn drive(
    worker: *mut Worker,
    awaitable: *mut PyObject,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached (all callers). `iterator` is a reference of our own, so that it lives as
    // long as we step it.
    unsafe {
        let iterator = iterator_of(awaitable);
        if iterator.is_null() {
            return ptr::null_mut();
        }
        let mut result = ptr::null_mut();
        let status = ffi::PyIter_Send(iterator, ffi::Py_None(), &raw mut result);
        let result = go_on(worker, iterator, status, result, arguments);
        ffi::Py_DECREF(iterator);
        result
    }
}

/// Goes on with an iterator whose first step had this outcome. The caller owns one reference to the
/// iterator for this call, and it is the one that the portal's `tp_traverse` visits.
#[inline(never)]
unsafe fn go_on(
    worker: *mut Worker,
    iterator: *mut PyObject,
    mut status: ffi::PySendResult,
    mut result: *mut PyObject,
    arguments: *const *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached (all callers); the results and inputs are owned as their types say.
    unsafe {
        while status == PYGEN_NEXT {
            let ts = ffi::PyThreadState_Get();
            // The awaitable may have imported greenlet, in a greenlet.
            let refusal = if arguments.is_null()
                || greenlet::may_be_loaded()
                    && greenlet::look()
                    && worker::on_foreign_greenlet(worker)
            {
                Some(error::FOREIGN_GREENLET)
            } else {
                interp::refusal(ts)
            };
            if let Some(message) = refusal {
                ffi::Py_DECREF(result);
                refuse(iterator, message);
                return ptr::null_mut();
            }
            if Worker::is_in_nested_context(worker, ts) && !is_usable() {
                ffi::Py_DECREF(result);
                if !ffi::PyErr_Occurred().is_null() {
                    discard(iterator);
                    return ptr::null_mut();
                }
                return off_portal(iterator);
            }
            (*worker).awaiting = iterator;
            (*worker).argument = if interp::caller_owns_arguments(ts, arguments) {
                *arguments
            } else {
                ptr::null_mut()
            };
            let input = Worker::suspend(worker, result);
            (*worker).awaiting = ptr::null_mut();
            match input {
                Input::Value(value) => {
                    status = ffi::PyIter_Send(iterator, value, &raw mut result);
                    ffi::Py_DECREF(value);
                }
                Input::Raise(exception) => (status, result) = delegate_throw(iterator, exception),
                Input::Send { .. } | Input::Throw { .. } | Input::Drop { .. } => {
                    unreachable!("a new step begun on a worker in the middle of one")
                }
            }
        }
        debug_assert!(status == PYGEN_RETURN || result.is_null());
        result
    }
}

/// To be called once, at import. False if the interpreter's coroutines cannot be stepped.
pub(crate) fn init() -> bool {
    // SAFETY: a static type of the interpreter, ready since long.
    unsafe {
        let methods = ffi::PyCoro_Type.tp_as_async;
        let Some(send) = (if methods.is_null() { None } else { (*methods).am_send }) else {
            error::set_runtime("CPython's coroutines have no am_send");
            return false;
        };
        COROUTINE_SEND.store(send as *mut c_void, Ordering::Relaxed);
        true
    }
}

/// What `await` would step (`_PyCoro_GetAwaitableIter` and `GET_AWAITABLE`), as a new reference.
/// Null with the error that `await` would raise.
#[inline(always)]
unsafe fn iterator_of(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; `awaitable` is borrowed and valid. Static types are compared by address.
    unsafe {
        let class = ffi::Py_TYPE(awaitable);
        if class == &raw mut ffi::PyCoro_Type {
            if interp::coroutine_state(awaitable) == interp::CoroutineState::Suspended
                && is_awaited(awaitable)
            {
                error::set_runtime("coroutine is being awaited already");
                return ptr::null_mut();
            }
            return ffi::Py_NewRef(awaitable);
        }
        iterator_of_other(awaitable, class)
    }
}

unsafe fn iterator_of_other(
    awaitable: *mut PyObject,
    class: *mut ffi::PyTypeObject,
) -> *mut PyObject {
    // SAFETY: as in `iterator_of`; slots are called with what they are for.
    unsafe {
        if is_iterable_coroutine(awaitable) {
            return ffi::Py_NewRef(awaitable);
        }
        let methods = (*class).tp_as_async;
        let get = if methods.is_null() { None } else { (*methods).am_await };
        let Some(get) = get else {
            let name = class_name(class);
            // The words of `_PyEval_FormatAwaitableError` and, since 3.14, `_PyCoro_GetAwaitableIter`.
            error::set_type(&if ffi::Py_Version >= 0x030E_0000 {
                format!("'{name}' object can't be awaited")
            } else {
                format!("object {name} can't be used in 'await' expression")
            });
            return ptr::null_mut();
        };
        let iterator = get(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let of = ffi::Py_TYPE(iterator);
        let mistake = if of == &raw mut ffi::PyCoro_Type || is_iterable_coroutine(iterator) {
            "__await__() returned a coroutine".to_string()
        } else if ffi::PyIter_Check(iterator) == 0 {
            format!("__await__() returned non-iterator of type '{}'", class_name(of))
        } else {
            return iterator;
        };
        if ffi::Py_Version >= 0x030F_0000 {
            // `%T`, a fully qualified name, came with 3.13.
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"%T.__await__() must return an iterator, not %T".as_ptr(),
                awaitable,
                iterator,
            );
        } else {
            error::set_type(&mistake);
        }
        ffi::Py_DECREF(iterator);
        ptr::null_mut()
    }
}

/// Whether it is a generator made a coroutine by `types.coroutine`.
unsafe fn is_iterable_coroutine(object: *mut PyObject) -> bool {
    // SAFETY: attached; the type is checked before the object is taken for a generator.
    unsafe {
        if ffi::Py_TYPE(object) != &raw mut ffi::PyGen_Type {
            return false;
        }
        let code = ffi::PyObject_GetAttr(object, names::GI_CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let flags = *interp::facts::field::<_, i32>(code, interp::facts::CODE_FLAGS);
        ffi::Py_DECREF(code);
        flags & ffi::CO_ITERABLE_COROUTINE != 0
    }
}

unsafe fn class_name(class: *mut ffi::PyTypeObject) -> String {
    // SAFETY: a type's name is a C string that lives as long as the type.
    unsafe { std::ffi::CStr::from_ptr((*class).tp_name) }.to_string_lossy().into_owned()
}

/// Whether a suspended coroutine is suspended *in an await* (`_PyGen_yf`), not in a bare yield.
unsafe fn is_awaited(coroutine: *mut PyObject) -> bool {
    // SAFETY: attached; a coroutine has this attribute.
    unsafe {
        let inner = ffi::PyObject_GetAttr(coroutine, names::CR_AWAIT.get());
        if inner.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let awaited = inner != ffi::Py_None();
        ffi::Py_DECREF(inner);
        awaited
    }
}

/// Passes an exception (owned) on to the iterator as `_gen_throw` does to what a generator
/// delegates to.
unsafe fn delegate_throw(
    iterator: *mut PyObject,
    exception: *mut PyObject,
) -> (ffi::PySendResult, *mut PyObject) {
    // SAFETY: attached, references owned as documented.
    unsafe {
        if ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_GeneratorExit) != 0 {
            // GeneratorExit closes the inner iterator, then is raised here.
            if close(iterator) {
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let throw = names::attribute(iterator, names::THROW.get());
        if throw.is_null() {
            if ffi::PyErr_Occurred().is_null() {
                // A plain iterator: the exception is raised at the `yield from`.
                error::raise(exception);
            } else {
                ffi::Py_DECREF(exception);
            }
            return (PYGEN_ERROR, ptr::null_mut());
        }
        let result = ffi::PyObject_CallOneArg(throw, exception);
        ffi::Py_DECREF(throw);
        ffi::Py_DECREF(exception);
        worker::outcome_of_call(result)
    }
}

/// `gen_close_iter`: calls `close()` if there is one. False with the error set if it raised.
unsafe fn close(iterator: *mut PyObject) -> bool {
    // SAFETY: attached.
    unsafe {
        let close = names::attribute(iterator, names::CLOSE.get());
        if close.is_null() {
            return ffi::PyErr_Occurred().is_null();
        }
        let result = ffi::PyObject_CallNoArgs(close);
        ffi::Py_DECREF(close);
        ffi::Py_XDECREF(result);
        !result.is_null()
    }
}

/// Ends an iterator that has yielded where nobody can wait for it, then raises RuntimeError.
#[cold]
unsafe fn refuse(iterator: *mut PyObject, message: &str) {
    // SAFETY: attached.
    unsafe {
        if !close(iterator) {
            ffi::PyErr_WriteUnraisable(iterator);
        }
    }
    error::set_runtime(message);
}

/// Closes a coroutine that will not be awaited, so that nothing warns that it never was.
pub(crate) unsafe fn discard(awaitable: *mut PyObject) {
    // SAFETY: attached; an error that is set is kept over the call of Python code.
    unsafe {
        if ffi::Py_TYPE(awaitable) != &raw mut ffi::PyCoro_Type {
            return;
        }
        let pending = error::take();
        if !close(awaitable) {
            ffi::PyErr_WriteUnraisable(awaitable);
        }
        if !pending.is_null() {
            error::restore(pending);
        }
    }
}

/// Whether the current portal is one of the task that runs now.
///
/// Something on the portal may be driving a task of its own right now: an eager task that begins
/// in its creator's step, another event loop run to its end. To suspend the portal then would leave
/// that task current for everybody else. All drivers of tasks enter the task's context, so the
/// question comes up only inside a `Context.run` that began on the fiber; and only the Python layer
/// can answer it.
#[cold]
unsafe fn is_usable() -> bool {
    let hook = IS_USABLE.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = ffi::PyObject_CallNoArgs(hook);
        ffi::Py_DECREF(hook);
        let usable = !answer.is_null() && ffi::PyObject_IsTrue(answer) == 1;
        ffi::Py_XDECREF(answer);
        usable
    }
}

/// Whether this code runs on a portal of the task that runs now. False with an error set if that
/// cannot be told.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(crate) unsafe fn is_on_usable_portal() -> bool {
    let worker = worker::current();
    // SAFETY: attached; a worker that is current is alive.
    unsafe { !worker.is_null() && !(*worker).masked && is_usable() }
}

/// The Python layer's idea of the current task: a new reference, `None` if there is none, null with
/// an error set on failure.
///
/// # Safety
///
/// Attached.
#[cold]
pub(crate) unsafe fn ask_for_task() -> *mut PyObject {
    let hook = CURRENT_TASK.load(Ordering::Relaxed);
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(if hook.is_null() { ffi::Py_None() } else { hook });
        let task = if hook == ffi::Py_None() { hook } else { ffi::PyObject_CallNoArgs(hook) };
        if task != hook {
            ffi::Py_DECREF(hook);
        }
        task
    }
}

#[cold]
unsafe fn off_portal(awaitable: *mut PyObject) -> *mut PyObject {
    let hook = NO_PORTAL.load(Ordering::Relaxed);
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        if hook.is_null() {
            error::set_runtime(NO_PORTAL_MESSAGE);
            discard(awaitable);
            return ptr::null_mut();
        }
        let hook = ffi::Py_NewRef(hook);
        let result = ffi::PyObject_CallOneArg(hook, awaitable);
        ffi::Py_DECREF(hook);
        result
    }
}

/// `await_` inside a greenlet that was started within the step.
///
/// If it is one of SQLAlchemy's, whoever switched to it awaits what it switches back with. If not,
/// nobody can wait, but an awaitable that is ready needs nobody.
#[cold]
unsafe fn on_foreign_greenlet(worker: *mut Worker, awaitable: *mut PyObject) -> *mut PyObject {
    let hook = FOREIGN_GREENLET.load(Ordering::Relaxed);
    // SAFETY: attached; all references are owned where they are used.
    unsafe {
        let current = greenlet::current();
        if !hook.is_null() {
            let hook = ffi::Py_NewRef(hook);
            let arguments = [awaitable, current];
            let result = ffi::PyObject_Vectorcall(hook, arguments.as_ptr(), 2, ptr::null_mut());
            ffi::Py_DECREF(hook);
            ffi::Py_DECREF(current);
            return result;
        }
        let provider = names::attribute(current, names::PROVIDER.get());
        let is_provider = !provider.is_null() && ffi::PyObject_IsTrue(provider) == 1;
        ffi::Py_XDECREF(provider);
        if !ffi::PyErr_Occurred().is_null() {
            ffi::Py_DECREF(current);
            return ptr::null_mut();
        }
        if !is_provider {
            ffi::Py_DECREF(current);
            return drive(worker, awaitable, ptr::null());
        }
        let parent = ffi::PyObject_GetAttr(current, names::PARENT.get());
        ffi::Py_DECREF(current);
        if parent.is_null() {
            return ptr::null_mut();
        }
        let result = names::call_one(parent, names::SWITCH.get(), awaitable);
        ffi::Py_DECREF(parent);
        result
    }
}

/// `_fiberback.set_hooks(*, no_portal=None, foreign_greenlet=None, is_usable=None,
/// current_task=None)`.
pub(crate) unsafe extern "C" fn set_hooks(
    _module: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        let mut hooks = [ptr::null_mut::<PyObject>(); 4];
        let mut names = [
            c"no_portal".as_ptr().cast_mut(),
            c"foreign_greenlet".as_ptr().cast_mut(),
            c"is_usable".as_ptr().cast_mut(),
            c"current_task".as_ptr().cast_mut(),
            ptr::null_mut(),
        ];
        // SAFETY: the format asks for as many pointers as are passed; they come back borrowed.
        unsafe {
            let [no_portal, foreign, usable, task] = &mut hooks;
            if ffi::PyArg_ParseTupleAndKeywords(
                arguments,
                keywords,
                c"|$OOOO:set_hooks".as_ptr(),
                names.as_mut_ptr().cast(),
                &raw mut *no_portal,
                &raw mut *foreign,
                &raw mut *usable,
                &raw mut *task,
            ) == 0
            {
                return ptr::null_mut();
            }
            let places = [&NO_PORTAL, &FOREIGN_GREENLET, &IS_USABLE, &CURRENT_TASK];
            for (place, hook) in places.into_iter().zip(hooks) {
                let hook = if hook == ffi::Py_None() { ptr::null_mut() } else { hook };
                ffi::Py_XINCREF(hook);
                let previous = place.swap(hook, Ordering::Relaxed);
                ffi::Py_XDECREF(previous);
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
