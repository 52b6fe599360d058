//! What the Python layer knows and does for parking: set once, by `set_parking()`.

use crate::barrier::barrier;
use crate::current_loop::RUNNING_LOOP;
use crate::hook::Hook;
use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `poll(loop, limit)`: everything of `_run_once` that comes before the callbacks; waits for at most
/// `limit` seconds, if that is not None.
pub(super) static POLL: Hook = Hook::new();
/// `end_wait(loop, task, future, is_over)`: the loop is to stop, and this caller holds the host; its
/// time is over or not. Whether it was cancelled.
pub(super) static END_WAIT: Hook = Hook::new();
/// `pad(loop, count)`: makes that many cancelled handles the next ones.
pub(super) static PAD: Hook = Hook::new();
/// `slow(loop, handle, seconds)`: tells of a slow callback if it was one.
pub(super) static SLOW: Hook = Hook::new();
/// `asyncio.Handle`.
pub(super) static HANDLE: Hook = Hook::new();
/// The namespace of `asyncio.tasks`.
static TASKS: Hook = Hook::new();
/// The code of the stock `_run_once`.
pub(super) static RUN_ONCE: Hook = Hook::new();
/// `asyncio.future_add_to_awaited_by` and its opposite, or `None`.
pub(super) static ADD_AWAITED: Hook = Hook::new();
pub(super) static DISCARD_AWAITED: Hook = Hook::new();
/// `asyncio.CancelledError`.
pub(super) static CANCELLED_ERROR: Hook = Hook::new();
/// `asyncio._set_running_loop`.
pub(super) static SET_RUNNING_LOOP: Hook = Hook::new();
/// The stock `_run_once`, a function, and the one that takes its place in loops that are enabled for
/// fiberback.
pub(super) static STOCK: Hook = Hook::new();
pub(super) static HOSTED: Hook = Hook::new();
/// `is_future(awaitable)`, asked before a callback waits for it.
pub(super) static IS_FUTURE: Hook = Hook::new();
/// `answer(loop, awaitable, context)`: a future for what the callback awaits.
pub(super) static TASK_FOR: Hook = Hook::new();
/// `is_trio_running()`: whether it is Trio that runs this code, whatever loop is further out.
pub(super) static IS_TRIO_RUNNING: Hook = Hook::new();
/// The dict of the tasks that run, by their loop; None where asyncio's C functions keep them elsewhere.
pub(super) static CURRENT_TASKS: Hook = Hook::new();
/// `asyncio.Handle._run`, a function, and its code, where they are asyncio's own; else None.
pub(super) static STOCK_RUN: Hook = Hook::new();
pub(super) static STOCK_RUN_CODE: Hook = Hook::new();
/// `collections.deque`.
pub(super) static DEQUE: Hook = Hook::new();
/// `turn()`: an object that stands for a callback that a runner runs; `is_over` is set once it has returned.
pub(super) static TURN: Hook = Hook::new();
/// `stand_in(run)`: an object with that attribute.
pub(super) static STAND_IN: Hook = Hook::new();
/// `watch_close(loop)`: call `close_parked(loop)` when the loop is closed.
pub(super) static WATCH_CLOSE: Hook = Hook::new();
/// `("context",)`, made when it was first needed.
static CONTEXT_ALONE: Hook = Hook::new();

/// Where `_run_once` keeps its local variables.
pub(super) struct Locals {
    pub(super) handle: usize,
    pub(super) count: usize,
    pub(super) index: usize,
    pub(super) started: usize,
}

static LOCALS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

pub(super) fn locals() -> Locals {
    let [handle, count, index, started] =
        [0, 1, 2, 3].map(|at: usize| LOCALS[at].load(Ordering::Relaxed));
    Locals { handle, count, index, started }
}

/// A function of `asyncio.tasks` as it is now, borrowed; null without an error if there is none.
///
/// # Safety
///
/// Attached, after `set_parking`.
pub(super) unsafe fn of_tasks(name: &names::Name) -> *mut PyObject {
    // SAFETY: the contract; the namespace is a dict, and the module keeps the function.
    unsafe { ffi::PyDict_GetItemWithError(TASKS.get(), name.get()) }
}

/// The names of a call's one keyword argument, `context`, borrowed. Null with an error set.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn context_alone() -> *mut PyObject {
    let tuple = CONTEXT_ALONE.get();
    if !tuple.is_null() {
        return tuple;
    }
    // SAFETY: attached; the static keeps its reference for ever.
    unsafe {
        let tuple = ffi::PyTuple_New(1);
        if !tuple.is_null() {
            ffi::PyTuple_SetItem(tuple, 0, ffi::Py_NewRef(names::CONTEXT.get()));
            CONTEXT_ALONE.set(tuple);
        }
        tuple
    }
}

/// `_fiberback.set_parking(poll, end_wait, pad, slow, Handle, tasks, code, add, discard,
/// CancelledError, running_loop, stock, Hosted, isfuture, task_for,
/// is_trio_running, set_running_loop, watch_close, stock_run, code_of_that,
/// stand_in, turn, deque, current_tasks, indices)`.
pub(crate) unsafe extern "C" fn set_parking(
    _: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        static HOOKS: [&Hook; 24] = [
            &POLL,
            &END_WAIT,
            &PAD,
            &SLOW,
            &HANDLE,
            &TASKS,
            &RUN_ONCE,
            &ADD_AWAITED,
            &DISCARD_AWAITED,
            &CANCELLED_ERROR,
            &RUNNING_LOOP,
            &STOCK,
            &HOSTED,
            &IS_FUTURE,
            &TASK_FOR,
            &IS_TRIO_RUNNING,
            &SET_RUNNING_LOOP,
            &WATCH_CLOSE,
            &STOCK_RUN,
            &STOCK_RUN_CODE,
            &STAND_IN,
            &TURN,
            &DEQUE,
            &CURRENT_TASKS,
        ];
        if count != HOOKS.len() as ffi::Py_ssize_t + 1 {
            error::set_type("set_parking() takes twenty-five arguments");
            return ptr::null_mut();
        }
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says.
        unsafe {
            let indices = *arguments.add(HOOKS.len());
            let current_tasks = *arguments.add(HOOKS.len() - 1);
            if ffi::PyDict_Check(*arguments.add(5)) == 0
                || (current_tasks != ffi::Py_None() && ffi::PyDict_Check(current_tasks) == 0)
                || ffi::PyTuple_Check(indices) == 0
                || ffi::PyTuple_GET_SIZE(indices) != LOCALS.len() as ffi::Py_ssize_t
            {
                error::set_type("set_parking() takes a namespace and four indices");
                return ptr::null_mut();
            }
            for (at, place) in LOCALS.iter().enumerate() {
                let index =
                    ffi::PyLong_AsSize_t(ffi::PyTuple_GET_ITEM(indices, at as ffi::Py_ssize_t));
                if index == usize::MAX {
                    return ptr::null_mut();
                }
                place.store(index, Ordering::Relaxed);
            }
            for (at, hook) in HOOKS.into_iter().enumerate() {
                hook.set(ffi::Py_NewRef(*arguments.add(at)));
            }
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}
