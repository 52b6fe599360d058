//! `_fut_waiter`, `_must_cancel` and the context of asyncio's tasks.
//!
//! A task that waits keeps the future that it waits for in `_fut_waiter`, where `cancel()` finds it;
//! and it notes in `_must_cancel` that it was cancelled while it did not wait. Code that waits on
//! behalf of a task must do the same. In pure-Python tasks these are attributes. In C tasks they are
//! read-only; where they are is found out with a task made for the purpose, by what its getters say.

use crate::barrier::barrier;
use crate::{error, messages, names};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::cell::UnsafeCell;
use std::ptr;

/// Where a C task keeps its fields.
struct Layout {
    class: *mut PyTypeObject,
    /// Index of the word that is `_fut_waiter`.
    waiter: usize,
    /// Byte and bit that are `_must_cancel`.
    flag: (usize, u8),
    /// Index of the word that is the task's context.
    context: usize,
}

struct Cached(UnsafeCell<Option<Layout>>);

// SAFETY: only accessed with the GIL held; written once.
unsafe impl Sync for Cached {}

static LAYOUT: Cached = Cached(UnsafeCell::new(None));

const SAMPLE: &std::ffi::CStr = c"
import _asyncio, contextvars
class Loop:
    def get_debug(self):
        return False
    def call_soon(self, *args, context=None):
        pass
async def coroutine():
    pass
loop = Loop()
coro = coroutine()
context = contextvars.Context()
task = _asyncio.Task(coro, loop=loop, name='', context=context)
task._log_destroy_pending = False
future = _asyncio.Future(loop=loop)
";

/// Finds the layout, once. False with an error set if it cannot be found.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn prepare() -> bool {
    // SAFETY: attached; the cell is written below, with the GIL held and no borrow of it alive.
    unsafe {
        if (*LAYOUT.0.get()).is_some() {
            return true;
        }
        let scope = ffi::PyDict_New();
        let code =
            ffi::Py_CompileString(SAMPLE.as_ptr(), c"<fiberback>".as_ptr(), ffi::Py_file_input);
        if scope.is_null() || code.is_null() {
            return false;
        }
        let done = ffi::PyEval_EvalCode(code, scope, scope);
        ffi::Py_DECREF(code);
        if done.is_null() {
            ffi::Py_DECREF(scope);
            return false;
        }
        ffi::Py_DECREF(done);
        let get = |name: &std::ffi::CStr| ffi::PyDict_GetItemString(scope, name.as_ptr());
        let (task, future, coro) = (get(c"task"), get(c"future"), get(c"coro"));
        let found = probe(task, future, get(c"context"));
        let closed = names::call_none(coro, names::CLOSE.get());
        ffi::Py_XDECREF(closed);
        ffi::Py_DECREF(scope);
        match found {
            Some(layout) => *LAYOUT.0.get() = Some(layout),
            None if ffi::PyErr_Occurred().is_null() => {
                error::set_runtime(messages::UNKNOWN_TASKS);
                return false;
            }
            None => return false,
        }
        !closed.is_null()
    }
}

unsafe fn probe(
    task: *mut PyObject,
    future: *mut PyObject,
    context: *mut PyObject,
) -> Option<Layout> {
    // SAFETY: attached. The sample's words between the object header and its basic size are its own
    // memory, and nothing but the getter runs while one of them holds what it should not.
    unsafe {
        let class = ffi::Py_TYPE(task);
        let size = (*class).tp_basicsize as usize;
        let words: *mut *mut PyObject = task.cast();
        let reads = |name: &names::Name, expected: *mut PyObject| {
            let value = ffi::PyObject_GetAttr(task, name.get());
            ffi::Py_XDECREF(value);
            value == expected
        };
        let first = size_of::<PyObject>() / size_of::<usize>();
        let waiter = (first..size / size_of::<usize>()).find(|&index| {
            let word = words.add(index);
            if !(*word).is_null() {
                return false;
            }
            // A reference for the getter to hand out, so that the count is right all along.
            *word = future;
            let found = reads(&names::FUT_WAITER, future);
            *word = ptr::null_mut();
            found
        })?;
        let context =
            (first..size / size_of::<usize>()).find(|&index| *words.add(index) == context)?;
        let bytes: *mut u8 = task.cast();
        let before = std::slice::from_raw_parts(bytes, size).to_vec();
        let cancelled = names::call_none(task, names::CANCEL.get());
        if cancelled.is_null() {
            return None;
        }
        ffi::Py_DECREF(cancelled);
        let start = size_of::<PyObject>();
        let mut flag = None;
        for (at, &old) in before.iter().enumerate().skip(start) {
            let changed = old ^ *bytes.add(at);
            // A flag was off and is on; it changes nothing else in its byte.
            if changed.count_ones() != 1 || old & changed != 0 {
                continue;
            }
            *bytes.add(at) = old;
            if reads(&names::MUST_CANCEL, ffi::Py_False()) {
                flag = Some((at, changed));
                break;
            }
            *bytes.add(at) = old | changed;
        }
        Some(Layout { class, waiter, flag: flag?, context })
    }
}

/// The layout, if `task` is a C task.
unsafe fn layout_of<'a>(task: *mut PyObject) -> Option<&'a Layout> {
    // SAFETY: attached; never written again once it is set.
    unsafe {
        let layout = (*LAYOUT.0.get()).as_ref()?;
        (ffi::PyObject_TypeCheck(task, layout.class) != 0).then_some(layout)
    }
}

/// Makes `future` (borrowed; null for none) the one that the task waits for.
///
/// # Safety
///
/// Attached; valid objects; no error set.
pub(super) unsafe fn set_waiter(task: *mut PyObject, future: *mut PyObject) {
    // SAFETY: the contract; the slot of a C task owns its reference or is null.
    unsafe {
        if let Some(layout) = layout_of(task) {
            let slot = task.cast::<*mut PyObject>().add(layout.waiter);
            ffi::Py_XINCREF(future);
            let before = slot.replace(future);
            ffi::Py_XDECREF(before);
            return;
        }
        let value = if future.is_null() { ffi::Py_None() } else { future };
        if ffi::PyObject_SetAttr(task, names::FUT_WAITER.get(), value) < 0 {
            // Somebody else's kind of task: it does not get to know.
            ffi::PyErr_Clear();
        }
    }
}

/// Whether the task was cancelled while it did not wait.
///
/// # Safety
///
/// As [`set_waiter`].
pub(super) unsafe fn must_cancel(task: *mut PyObject) -> bool {
    // SAFETY: the contract; the byte is the task's own.
    unsafe {
        if let Some(layout) = layout_of(task) {
            let (at, bit) = layout.flag;
            return *task.cast::<u8>().add(at) & bit != 0;
        }
        let value = names::attribute(task, names::MUST_CANCEL.get());
        let must = !value.is_null() && ffi::PyObject_IsTrue(value) == 1;
        ffi::Py_XDECREF(value);
        ffi::PyErr_Clear();
        must
    }
}

/// Forgets what [`must_cancel`] says.
///
/// # Safety
///
/// As [`set_waiter`].
pub(super) unsafe fn clear_must_cancel(task: *mut PyObject) {
    // SAFETY: the contract; the byte is the task's own.
    unsafe {
        if let Some(layout) = layout_of(task) {
            let (at, bit) = layout.flag;
            *task.cast::<u8>().add(at) &= !bit;
        } else if ffi::PyObject_SetAttr(task, names::MUST_CANCEL.get(), ffi::Py_False()) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// `_fiberback.context_of(task)`: the context that a task runs in, or None if it does not tell.
pub(crate) unsafe extern "C" fn context_of(_: *mut PyObject, task: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent. The word of a C task is a reference of its own, or null.
        unsafe {
            if !prepare() {
                return ptr::null_mut();
            }
            if let Some(layout) = layout_of(task) {
                let context = *task.cast::<*mut PyObject>().add(layout.context);
                return ffi::Py_NewRef(if context.is_null() { ffi::Py_None() } else { context });
            }
            let context = names::attribute(task, names::CONTEXT_FIELD.get());
            if context.is_null() && ffi::PyErr_Occurred().is_null() {
                return ffi::Py_NewRef(ffi::Py_None());
            }
            context
        }
    })
}
