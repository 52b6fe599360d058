//! `Call`: a function call in the shape of a coroutine, for a portal to step.
//!
//! What `async def call(fn, args, kwds): return fn(*args, **kwds)` would be, without its frame: it
//! never yields, so all there is to it is whether it has begun.
//!
//! # Invariant
//!
//! The three references are owned until the call has ended, and then null. The collector is shown
//! them all along; there is no `tp_clear`, as a call in progress needs them: cycles are broken by the
//! portal, which finalizes the call in it.

use crate::barrier::barrier;
#[cfg(cpython = "3.15")]
use crate::interp::CoroutineState;
use crate::type_tables::{Table, Type, last_attribute, set_flags, undocumented};
use crate::{coroutine_methods, error, messages, names};
use pyo3::ffi::PySendResult::{self, PYGEN_ERROR, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Created,
    Running,
    Ended,
}

/// The Python object.
#[repr(C)]
struct CallObject {
    ob_base: PyObject,
    function: *mut PyObject,
    /// A tuple.
    arguments: *mut PyObject,
    /// A dict, or null.
    keywords: *mut PyObject,
    state: State,
}

/// `function(*arguments, **keywords)`, not begun; all borrowed, `keywords` a dict. A new reference.
///
/// # Safety
///
/// Attached, after [`init`]; objects of these types.
pub(crate) unsafe fn new(
    function: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; a fresh object of our type is filled in before the collector sees it.
    unsafe {
        let call: *mut CallObject = ffi::PyObject_GC_New(TYPE.get());
        if call.is_null() {
            return ptr::null_mut();
        }
        let has_keywords = ffi::PyDict_Size(keywords) > 0;
        (*call).function = ffi::Py_NewRef(function);
        (*call).arguments = ffi::Py_NewRef(arguments);
        (*call).keywords = if has_keywords { ffi::Py_NewRef(keywords) } else { ptr::null_mut() };
        (*call).state = State::Created;
        ffi::PyObject_GC_Track(call.cast());
        call.cast()
    }
}

/// True if `object` is a call.
///
/// # Safety
///
/// `object` must be a valid object.
#[inline(always)]
pub(crate) unsafe fn is_call(object: *mut PyObject) -> bool {
    // SAFETY: the contract. The type cannot be subclassed.
    unsafe { ffi::Py_TYPE(object) == TYPE.get() }
}

/// Ends the call: drops what it needed. An error that is set is kept, as destructors must.
unsafe fn end(call: *mut CallObject) {
    // SAFETY: attached; each is taken out before it is dropped, which can run any code.
    unsafe {
        (*call).state = State::Ended;
        let function = std::mem::replace(&mut (*call).function, ptr::null_mut());
        let arguments = std::mem::replace(&mut (*call).arguments, ptr::null_mut());
        let keywords = std::mem::replace(&mut (*call).keywords, ptr::null_mut());
        ffi::Py_XDECREF(function);
        ffi::Py_XDECREF(arguments);
        ffi::Py_XDECREF(keywords);
    }
}

/// False with an error set if the call has begun. The words are those of coroutines.
unsafe fn can_begin(call: *mut CallObject) -> bool {
    // SAFETY: attached.
    unsafe {
        match (*call).state {
            State::Created => return true,
            State::Running => error::set(ffi::PyExc_ValueError, messages::ALREADY_RUNNING),
            State::Ended => error::set_runtime("cannot reuse already awaited coroutine"),
        }
    }
    false
}

unsafe extern "C" fn am_send(
    this: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    barrier(PYGEN_ERROR, || {
        let call: *mut CallObject = this.cast();
        // SAFETY: the interpreter lends both objects and takes the result over. Who steps us (the
        // portal, an `await`, the caller of `send`) holds us, and we hold what the call needs, until
        // it has ended.
        unsafe {
            *result = ptr::null_mut();
            if !can_begin(call) {
                return PYGEN_ERROR;
            }
            if value != ffi::Py_None() {
                error::set_type("can't send non-None value to a just-started coroutine");
                return PYGEN_ERROR;
            }
            (*call).state = State::Running;
            // No reference of our own: the collector, which is not shown this frame, would take it
            // for one from outside, and keep a suspended call that nobody can wake for ever.
            let returned =
                ffi::PyObject_Call((*call).function, (*call).arguments, (*call).keywords);
            if returned.is_null() {
                disarm_stop_iteration();
            }
            end(call);
            *result = returned;
            if returned.is_null() { PYGEN_ERROR } else { PYGEN_RETURN }
        }
    })
}

/// A coroutine that raises `StopIteration` would be taken for one that returns; so that becomes a
/// `RuntimeError`, in coroutines as here (`gen_send_ex2` in Objects/genobject.c).
unsafe fn disarm_stop_iteration() {
    // SAFETY: attached, an error is set.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
            return;
        }
        let stop = error::take();
        error::set_runtime("coroutine raised StopIteration");
        let raised = error::take();
        // Both steal a reference.
        ffi::PyException_SetCause(raised, ffi::Py_NewRef(stop));
        ffi::PyException_SetContext(raised, stop);
        error::restore(raised);
    }
}

unsafe extern "C" fn am_await(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: lent by the interpreter.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn send(this: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    let mut result = ptr::null_mut();
    // SAFETY: as in `am_send`.
    unsafe {
        let status = am_send(this, value, &raw mut result);
        coroutine_methods::as_method_result((status, result))
    }
}

unsafe extern "C" fn throw(
    this: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: `METH_FASTCALL`: so many borrowed objects.
        unsafe {
            let arguments = if count == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(arguments, count as usize)
            };
            let exception = coroutine_methods::exception_of(arguments);
            if exception.is_null() {
                return ptr::null_mut();
            }
            if !can_begin(this.cast()) {
                ffi::Py_DECREF(exception);
                return ptr::null_mut();
            }
            end(this.cast());
            error::raise(exception);
            if ffi::Py_Version < 0x030C_0000 {
                // From 3.12 on it is the coroutine's code that does it, which has not begun.
                disarm_stop_iteration();
            }
            ptr::null_mut()
        }
    })
}

unsafe extern "C" fn close(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let call: *mut CallObject = this.cast();
        // SAFETY: attached; lent.
        unsafe {
            match (*call).state {
                State::Created => end(call),
                State::Running => {
                    error::set(ffi::PyExc_ValueError, messages::ALREADY_RUNNING);
                    return ptr::null_mut();
                }
                State::Ended => {}
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// The function's name, or the type's where the function has none.
unsafe extern "C" fn get_name(this: *mut PyObject, name: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; `name` is the C string of the table below.
    unsafe {
        let function = (*this.cast::<CallObject>()).function;
        if !function.is_null() {
            let value = ffi::PyObject_GetAttrString(function, name.cast());
            if !value.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return value;
            }
            ffi::PyErr_Clear();
        }
        ffi::PyUnicode_FromString(c"call".as_ptr())
    }
}

/// What a coroutine would have and a call has not.
unsafe extern "C" fn get_none(_: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

unsafe extern "C" fn get_code(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let function = (*this.cast::<CallObject>()).function;
        if function.is_null() {
            return ffi::Py_NewRef(ffi::Py_None());
        }
        let code = names::attribute(function, names::CODE.get());
        if code.is_null() && ffi::PyErr_Occurred().is_null() {
            return ffi::Py_NewRef(ffi::Py_None());
        }
        code
    }
}

unsafe extern "C" fn get_running(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let running = (*this.cast::<CallObject>()).state == State::Running;
        ffi::PyBool_FromLong(running.into())
    }
}

#[cfg(cpython = "3.15")]
unsafe extern "C" fn get_state(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; a call.
    unsafe {
        let state = match (*this.cast::<CallObject>()).state {
            State::Created => CoroutineState::Created,
            State::Running => CoroutineState::Executing,
            State::Ended => CoroutineState::Finished,
        };
        state.name()
    }
}

unsafe extern "C" fn get_suspended(_: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyBool_FromLong(0) }
}

unsafe extern "C" fn tp_traverse(
    this: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let call: *mut CallObject = this.cast();
    // SAFETY: the collector runs with the GIL held; references that we own.
    unsafe {
        for object in [(*call).function, (*call).arguments, (*call).keywords] {
            if !object.is_null() {
                let result = visit(object, argument);
                if result != 0 {
                    return result;
                }
            }
        }
    }
    0
}

unsafe extern "C" fn tp_dealloc(this: *mut PyObject) {
    // SAFETY: the last reference is gone. A running call is held by whoever steps it.
    unsafe {
        ffi::PyObject_GC_UnTrack(this.cast());
        end(this.cast());
        ffi::PyObject_GC_Del(this.cast());
    }
}

const fn method(
    name: &'static CStr,
    meth: ffi::PyMethodDefPointer,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: meth, ml_flags: flags, ml_doc: ptr::null() }
}

static METHODS: Table<[ffi::PyMethodDef; 4]> = Table::new([
    method(c"send", ffi::PyMethodDefPointer { PyCFunction: send }, ffi::METH_O),
    method(c"throw", ffi::PyMethodDefPointer { PyCFunctionFast: throw }, ffi::METH_FASTCALL),
    method(c"close", ffi::PyMethodDefPointer { PyCFunction: close }, ffi::METH_NOARGS),
    ffi::PyMethodDef::zeroed(),
]);

/// From 3.15 on coroutines have `cr_state`.
const ATTRIBUTE_COUNT: usize = if cfg!(cpython = "3.15") { 10 } else { 9 };

static ATTRIBUTES: Table<[ffi::PyGetSetDef; ATTRIBUTE_COUNT]> = Table::new([
    undocumented(c"__name__", get_name),
    undocumented(c"__qualname__", get_name),
    undocumented(c"cr_await", get_none),
    undocumented(c"cr_code", get_code),
    undocumented(c"cr_frame", get_none),
    undocumented(c"cr_origin", get_none),
    undocumented(c"cr_running", get_running),
    #[cfg(cpython = "3.15")]
    undocumented(c"cr_state", get_state),
    undocumented(c"cr_suspended", get_suspended),
    last_attribute(),
]);

static ASYNC: Table<ffi::PyAsyncMethods> = Table::new(ffi::PyAsyncMethods {
    am_await: Some(am_await),
    am_aiter: None,
    am_anext: None,
    am_send: Some(am_send),
});

static TYPE: Type = Type::new();

/// Readies the type. False with an error set on failure.
///
/// # Safety
///
/// Attached; called once.
pub(crate) unsafe fn init() -> bool {
    let class = TYPE.get();
    // SAFETY: zeroed memory is a valid type object to fill in (all slots null), not in use yet.
    unsafe {
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"fiberback._fiberback.Call".as_ptr();
        (*class).tp_basicsize = size_of::<CallObject>() as ffi::Py_ssize_t;
        set_flags(
            class,
            ffi::Py_TPFLAGS_DEFAULT
                | ffi::Py_TPFLAGS_HAVE_GC
                | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        );
        (*class).tp_doc = c"A function call in the shape of a coroutine.".as_ptr();
        (*class).tp_dealloc = Some(tp_dealloc);
        (*class).tp_traverse = Some(tp_traverse);
        (*class).tp_as_async = ASYNC.get();
        (*class).tp_methods = METHODS.get().cast();
        (*class).tp_getset = ATTRIBUTES.get().cast();
        ffi::PyType_Ready(class) == 0
    }
}
