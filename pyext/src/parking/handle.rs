//! asyncio's handles, called as stock `Handle._run` calls them.
//!
//! `_run` calls `self._context.run(self._callback, *self._args)` and, if that raises, the loop's exception
//! handler. On a stack that parks in the callback those two calls would be parked, too, a Python frame and
//! some 900 bytes of the interpreter's C frames. So the context is entered here, and the callback called. What
//! it raises is raised once more where `_run` would have met it, so that all that follows is `_run`'s own.
//!
//! Where `_run` is not asyncio's own, or somebody is told of the code that runs (tracers, profilers,
//! `sys.monitoring`'s tools), `_run` itself is called.

use super::hooks;
use crate::error;
use crate::interp::instrumentation::Instrumented;
use crate::names;
use pyo3::ffi::{self, PyMethodDef, PyObject, PyThreadState};
use std::cell::UnsafeCell;
use std::ptr;

/// Where handles keep what they call.
#[derive(Clone, Copy)]
struct Layout {
    callback: isize,
    arguments: isize,
    context: isize,
    cancelled: isize,
}

/// Nothing as long as nobody has looked; no layout if handles are not as they are expected to be.
struct Cached(UnsafeCell<Option<Option<Layout>>>);

// SAFETY: only accessed with the GIL held; written once, by `layout`.
unsafe impl Sync for Cached {}

static LAYOUT: Cached = Cached(UnsafeCell::new(None));

/// What a handle is to call. Borrowed from it.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) callback: *mut PyObject,
    /// A tuple.
    pub(super) arguments: *mut PyObject,
    /// A `contextvars.Context`.
    context: *mut PyObject,
}

/// How handles are laid out; none if their `_run` is to be called.
#[inline]
unsafe fn layout() -> Option<Layout> {
    // SAFETY: attached, no error set; the cell is copied out of, and no borrow of it alive.
    unsafe { (*LAYOUT.0.get()).unwrap_or_else(|| look()) }
}

#[cold]
unsafe fn look() -> Option<Layout> {
    // SAFETY: as in `layout`.
    unsafe {
        let class = hooks::HANDLE.get();
        let slot = |name: &names::Name| {
            let descriptor = names::attribute(class, name.get());
            let offset = slot_offset(class, descriptor);
            ffi::PyErr_Clear();
            ffi::Py_XDECREF(descriptor);
            offset
        };
        let found = (|| {
            (hooks::STOCK_RUN.get() != ffi::Py_None()).then_some(())?;
            Some(Layout {
                callback: slot(&names::CALLBACK_FIELD)?,
                arguments: slot(&names::ARGUMENTS_FIELD)?,
                context: slot(&names::CONTEXT_FIELD)?,
                cancelled: slot(&names::CANCELLED_FLAG)?,
            })
        })();
        *LAYOUT.0.get() = Some(found);
        found
    }
}

/// Where in objects of the class the slot is, if `descriptor` (or null) is that of one that holds an object.
unsafe fn slot_offset(class: *mut PyObject, descriptor: *mut PyObject) -> Option<isize> {
    // SAFETY: a valid object; one of that type is so laid out (cpython/descrobject.h), and its member is
    // its class's, for ever.
    unsafe {
        if descriptor.is_null() || ffi::Py_TYPE(descriptor) != &raw mut ffi::PyMemberDescr_Type {
            return None;
        }
        let descriptor: *mut ffi::PyMemberDescrObject = descriptor.cast();
        let member = (*descriptor).d_member;
        let is_slot = ptr::eq((*descriptor).d_common.d_type.cast(), class)
            && (*member).type_code == ffi::Py_T_OBJECT_EX;
        is_slot.then_some((*member).offset)
    }
}

impl Call {
    /// What calling `_run` of the handle comes to, if it is an `asyncio.Handle` as asyncio has made it, and
    /// nobody is told of `_run`.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, with no error set; a valid object.
    #[inline]
    pub(super) unsafe fn of(ts: *mut PyThreadState, handle: *mut PyObject) -> Option<Self> {
        // SAFETY: the contract. Objects of exactly that class have the slots that were found in it.
        unsafe {
            let layout = layout()?;
            if !ptr::eq(ffi::Py_TYPE(handle).cast(), hooks::HANDLE.get())
                || Instrumented::may_be_told(ts, hooks::STOCK_RUN_CODE.get())
            {
                return None;
            }
            let mut run = ptr::null_mut();
            let is_method = names::method(handle, names::RUN.get(), &mut run);
            if run.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            ffi::Py_DECREF(run);
            if !is_method
                || run != hooks::STOCK_RUN.get()
                || ffi::PyFunction_GetCode(run) != hooks::STOCK_RUN_CODE.get()
            {
                return None;
            }
            let at = |offset: isize| *handle.byte_offset(offset).cast::<*mut PyObject>();
            let call = Self {
                callback: at(layout.callback),
                arguments: at(layout.arguments),
                context: at(layout.context),
            };
            let is_usual = at(layout.cancelled) == ffi::Py_False()
                && !call.callback.is_null()
                && !call.arguments.is_null()
                && ffi::PyTuple_CheckExact(call.arguments) != 0
                && !call.context.is_null()
                && ffi::PyContext_CheckExact(call.context) != 0;
            is_usual.then_some(call)
        }
    }
}

/// What a handle calls, if it is an `asyncio.Handle` as asyncio has made it; null if not. Borrowed from it.
///
/// # Safety
///
/// Attached, no error set; a valid object, or null.
#[inline]
pub(super) unsafe fn callback(handle: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract. Objects of exactly that class have the slots that were found in it.
    unsafe {
        if handle.is_null() || !ptr::eq(ffi::Py_TYPE(handle).cast(), hooks::HANDLE.get()) {
            return ptr::null_mut();
        }
        layout().map_or(ptr::null_mut(), |layout| {
            *handle.byte_offset(layout.callback).cast::<*mut PyObject>()
        })
    }
}

/// `handle._run()`. Null with an error set if the loop is to be left.
///
/// # Safety
///
/// `ts` must be the attached thread state, with no error set; a handle, kept by the caller.
#[inline]
pub(super) unsafe fn run(ts: *mut PyThreadState, handle: *mut PyObject) -> bool {
    // SAFETY: the contract. Whatever the callback does to the handle, what was its own is kept meanwhile.
    unsafe {
        let Some(Call { callback, arguments, context }) = Call::of(ts, handle) else {
            let done = names::call_none(handle, names::RUN.get());
            ffi::Py_XDECREF(done);
            return !done.is_null();
        };
        ffi::Py_INCREF(context);
        ffi::Py_INCREF(callback);
        ffi::Py_INCREF(arguments);
        // As `Context.run` (Python/context.c).
        let mut done = ptr::null_mut();
        if ffi::PyContext_Enter(context) == 0 {
            done = ffi::PyObject_Call(callback, arguments, ptr::null_mut());
            if ffi::PyContext_Exit(context) < 0 {
                ffi::Py_XDECREF(done);
                done = ptr::null_mut();
            }
        }
        ffi::Py_XDECREF(done);
        let is_done = !done.is_null() || raise_in_run(handle);
        ffi::Py_DECREF(arguments);
        ffi::Py_DECREF(callback);
        ffi::Py_DECREF(context);
        is_done
    }
}

static RAISE: Method = Method(UnsafeCell::new(PyMethodDef {
    ml_name: c"run".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: raise },
    ml_flags: ffi::METH_FASTCALL,
    ml_doc: ptr::null(),
}));

struct Method(UnsafeCell<PyMethodDef>);

// SAFETY: only read, by the interpreter.
unsafe impl Sync for Method {}

/// The error that is set is one that a callback has raised: what `_run` does about it is done, with the error
/// raised in the middle of `_run`, by what stands there for the handle's context. False with an error set if
/// the loop is to be left.
#[cold]
#[inline(never)]
unsafe fn raise_in_run(handle: *mut PyObject) -> bool {
    // SAFETY: attached, an error is set; a handle with the slots. Owned references are dropped.
    unsafe {
        let exception = error::take();
        let context = names::attribute(handle, names::CONTEXT_FIELD.get());
        let arguments = names::attribute(handle, names::ARGUMENTS_FIELD.get());
        let mut stand_in = ptr::null_mut();
        if !context.is_null() && !arguments.is_null() {
            stand_in = stand_in_for(handle, context, arguments, exception);
        }
        let nothing = ffi::PyTuple_New(0);
        let is_set = !stand_in.is_null()
            && !nothing.is_null()
            && ffi::PyObject_SetAttr(handle, names::CONTEXT_FIELD.get(), stand_in) == 0
            && ffi::PyObject_SetAttr(handle, names::ARGUMENTS_FIELD.get(), nothing) == 0;
        let done = if is_set {
            names::call_none(handle, names::RUN.get())
        } else {
            // For want of memory. It is told, and the loop goes on.
            ffi::PyErr_Clear();
            error::restore(ffi::Py_NewRef(exception));
            ffi::PyErr_WriteUnraisable(handle);
            ffi::Py_NewRef(ffi::Py_None())
        };
        ffi::Py_XDECREF(nothing);
        ffi::Py_XDECREF(stand_in);
        ffi::Py_XDECREF(arguments);
        ffi::Py_XDECREF(context);
        ffi::Py_DECREF(exception);
        ffi::Py_XDECREF(done);
        !done.is_null()
    }
}

/// An object whose `run(...)` gives the handle its context and arguments back, and raises `exception`. Null
/// with an error set.
unsafe fn stand_in_for(
    handle: *mut PyObject,
    context: *mut PyObject,
    arguments: *mut PyObject,
    exception: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached, no error set; all valid and borrowed. The definition lives for ever.
    unsafe {
        let state = ffi::PyTuple_Pack(4, handle, context, arguments, exception);
        if state.is_null() {
            return state;
        }
        let run = ffi::PyCFunction_NewEx(RAISE.0.get(), state, ptr::null_mut());
        ffi::Py_DECREF(state);
        if run.is_null() {
            return run;
        }
        let stand_in = hooks::STAND_IN.call(&[run]);
        ffi::Py_DECREF(run);
        stand_in
    }
}

/// `run(callback, *args)` of such an object.
unsafe extern "C" fn raise(
    state: *mut PyObject,
    _: *mut *mut PyObject,
    _: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: attached; the tuple that `stand_in_for` has made.
    unsafe {
        let [handle, context, arguments, exception] =
            [0, 1, 2, 3].map(|at| ffi::PyTuple_GET_ITEM(state, at));
        if ffi::PyObject_SetAttr(handle, names::CONTEXT_FIELD.get(), context) == 0
            && ffi::PyObject_SetAttr(handle, names::ARGUMENTS_FIELD.get(), arguments) == 0
        {
            error::restore(ffi::Py_NewRef(exception));
        }
        ptr::null_mut()
    }
}
