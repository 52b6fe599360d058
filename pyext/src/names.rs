//! Attribute names, interned once.

use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An interned `str`, alive for ever after [`init`].
pub(crate) struct Name {
    text: &'static CStr,
    object: AtomicPtr<PyObject>,
}

impl Name {
    const fn new(text: &'static CStr) -> Self {
        Self { text, object: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The `str`, borrowed.
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut PyObject {
        self.object.load(Ordering::Relaxed)
    }
}

macro_rules! names {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(pub(crate) static $name: Name = Name::new($text);)+
        static ALL: &[&Name] = &[$(&$name),+];
    };
}

names! {
    ADD_DONE_CALLBACK = c"add_done_callback",
    APPENDLEFT = c"appendleft",
    ARGUMENTS_FIELD = c"_args",
    BLOCKING = c"_asyncio_future_blocking",
    CALLBACKS = c"_callbacks",
    CALLBACK_FIELD = c"_callback",
    CALL_LATER = c"call_later",
    CALL_SOON = c"call_soon",
    CANCEL = c"cancel",
    CANCELLED_FLAG = c"_cancelled",
    CANCEL_MESSAGE = c"_cancel_message",
    CHECK_INCLUDE = c"check_include",
    CLOSE = c"close",
    CODE = c"__code__",
    CONCUR_ID_FUNC = c"concur_id_func",
    CONTEXT = c"context",
    CONTEXT_FIELD = c"_context",
    CORO = c"coro",
    CORO_PRIVATE = c"_coro",
    CO_QUALNAME = c"co_qualname",
    CO_VARNAMES = c"co_varnames",
    CR_AWAIT = c"cr_await",
    CR_CODE = c"cr_code",
    CURRENT_HANDLE = c"_current_handle",
    CURRENT_TASK = c"current_task",
    CUR_FILE_DATA = c"cur_file_data",
    CUR_FILE_NAME = c"cur_file_name",
    DATA = c"data",
    DATA_STACK = c"data_stack",
    DEAD = c"dead",
    DEBUG = c"_debug",
    DISABLE_PLUGIN = c"disable_plugin",
    EAGER_START = c"eager_start",
    ENTER_TASK = c"_enter_task",
    ERROR = c"error",
    FILE_TRACERS = c"file_tracers",
    FUNCTION = c"__func__",
    FUT_WAITER = c"_fut_waiter",
    GET_CORO = c"get_coro",
    GET_LOOP = c"get_loop",
    GET_NAME = c"get_name",
    GI_CODE = c"gi_code",
    IS_OVER = c"is_over",
    LAST_LINE = c"last_line",
    LEAVE_TASK = c"_leave_task",
    LOCK_DATA = c"lock_data",
    LOOP = c"loop",
    LOOP_FIELD = c"_loop",
    MAKE_CANCELLED_ERROR = c"_make_cancelled_error",
    MUST_CANCEL = c"_must_cancel",
    NAME = c"name",
    PARENT = c"parent",
    POPLEFT = c"popleft",
    PROVIDER = c"__sqlalchemy_greenlet_provider__",
    PY_CURRENT_TASK = c"_py_current_task",
    PY_ENTER_TASK = c"_py_enter_task",
    PY_LEAVE_TASK = c"_py_leave_task",
    READY = c"_ready",
    REMOVE_DONE_CALLBACK = c"remove_done_callback",
    RESULT = c"result",
    RUN = c"_run",
    RUN_ONCE = c"_run_once",
    SEND = c"send",
    SHOULD_START_CONTEXT = c"should_start_context",
    SHOULD_TRACE = c"should_trace",
    SHOULD_TRACE_CACHE = c"should_trace_cache",
    SNIFFIO = c"sniffio",
    START = c"start",
    STARTED_CONTEXT = c"started_context",
    STOP = c"stop",
    STOPPING = c"_stopping",
    SWAP_CURRENT_TASK = c"_swap_current_task",
    SWITCH = c"switch",
    SWITCH_CONTEXT = c"switch_context",
    TASK = c"Task",
    THREAD_LOCAL = c"thread_local",
    THROW = c"throw",
    TIME = c"time",
    TRACERS = c"tracers",
    TRACE_ARCS = c"trace_arcs",
    TRIO = c"trio",
    UNLOCK_DATA = c"unlock_data",
    VALUE = c"value",
    WARN = c"warn",
}

/// Interns all names. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn init() -> bool {
    ALL.iter().all(|name| {
        // SAFETY: attached; the text ends in a zero byte. The reference is kept for ever.
        let object = unsafe { ffi::PyUnicode_InternFromString(name.text.as_ptr()) };
        name.object.store(object, Ordering::Relaxed);
        !object.is_null()
    })
}

/// `object.name(argument)`, without a bound method in between.
///
/// # Safety
///
/// Attached; all valid and borrowed.
#[inline]
pub(crate) unsafe fn call_one(
    object: *mut PyObject,
    name: *mut PyObject,
    argument: *mut PyObject,
) -> *mut PyObject {
    let arguments = [object, argument];
    // SAFETY: the contract.
    unsafe { ffi::PyObject_VectorcallMethod(name, arguments.as_ptr(), 2, ptr::null_mut()) }
}

/// `object.name()`.
///
/// # Safety
///
/// As [`call_one`].
#[inline]
pub(crate) unsafe fn call_none(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    let arguments = [object];
    // SAFETY: the contract.
    unsafe { ffi::PyObject_VectorcallMethod(name, arguments.as_ptr(), 1, ptr::null_mut()) }
}

unsafe extern "C" {
    /// What `object.name(...)` calls (`LOAD_METHOD`): exported for extensions by every CPython from 3.7
    /// on (Objects/object.c).
    fn _PyObject_GetMethod(
        object: *mut PyObject,
        name: *mut PyObject,
        method: *mut *mut PyObject,
    ) -> std::ffi::c_int;
}

/// Looks for `object.name` in order to call it. True if it is a method, which `found` (a new reference)
/// is the function of; else `found` is the attribute's value, or null with an error set.
///
/// # Safety
///
/// As [`call_one`].
#[inline]
pub(crate) unsafe fn method(
    object: *mut PyObject,
    name: *mut PyObject,
    found: &mut *mut PyObject,
) -> bool {
    // SAFETY: the contract.
    unsafe { _PyObject_GetMethod(object, name, found) == 1 }
}

/// `getattr(object, name, None)` as a new reference, null instead of `None`'s default. An error
/// other than `AttributeError` is set, with null returned.
///
/// # Safety
///
/// As [`call_one`].
pub(crate) unsafe fn attribute(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract.
    unsafe {
        let value = ffi::PyObject_GetAttr(object, name);
        if value.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) != 0 {
            ffi::PyErr_Clear();
        }
        value
    }
}
