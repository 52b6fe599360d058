//! `fiberback._fiberback`: the native module of the Python package.
//!
//! The package's Python layer is what users import; this module is what it stands on. In it:
//!
//! | you want to | use |
//! |---|---|
//! | wait for an awaitable in synchronous code | `await_(awaitable)` |
//! | make a coroutine in which that works | `Portal(coroutine)` |
//! | await something in a portal for one call | `await scoped(awaitable, coroutine_of)`, `scoped_call(function, args, kwargs)`, `scope(portal, task)`, `scoped_portal(task)` |
//! | give a portal to a task that exists | `bestow(task)`, undone by `unbestow(task)` |
//! | give one to every new task of a loop | `loop.set_task_factory(task_factory)`, `eager_task_factory`, `create_task_factory(inner)` |
//! | see every loop that begins to run | `watch_loops(hook)` |
//! | know where you are | `current_portal()`, `on_portal()`, `portal_of(task)` |
//! | run code that must not suspend the current portal | `call_masked(fn, *args, **kwargs)` |
//! | leave a parent's portals alone in a forked child | `note_fork(loop)` |
//! | decide what `await_` does off a portal, or before it waits | `set_hooks(no_portal=…, …)` |
//! | forbid `await_` | `set_guarded(True)`, then the `guard` hook is asked each time |
//! | keep an object from ever being finalized | `leak(object)` |
//! | trade memory | `set_stack_size(bytes)`, `get_stack_size()`, `trim()`, `stats()` |
//! | end what is suspended | `close_all()`; runs at interpreter exit |
//!
//! # Layout
//!
//! | file | owns |
//! |---|---|
//! | `interp/` | what of `PyThreadState` belongs to a C stack, one file for each CPython version |
//! | `worker.rs` | fibers that run portals' steps |
//! | `thread.rs` | the workers of a thread, idle and suspended ones |
//! | `owner.rs`, `mailbox.rs` | whom a worker makes steps for; what other threads leave for a thread |
//! | `delegate.rs` | what `yield from` does to what it delegates to |
//! | `thrown.rs` | the exception that a loop raises in a step |
//! | `modules.rs` | `sys.modules` |
//! | `hook.rs`, `current_loop.rs`, `asyncio_future.rs` | what the Python layer has given us of asyncio |
//! | `step.rs` | one step of an awaitable, on the stack that it fits on |
//! | `side_stack.rs` | stacks that the fibers of a thread share for such steps |
//! | `needs.rs` | what a call takes of its stacks |
//! | `stack_memory.rs` | `set_stack_size`, `trim`, `stats` |
//! | `stacks.rs` | the stacks that fibers get, their sizes and pools |
//! | `portal.rs` | the `Portal` type |
//! | `await_.rs` | `await_` |
//! | `no_portal.rs` | what becomes of an `await_` that finds nothing to wait with |
//! | `awaitable.rs` | what `await` would step |
//! | `wait_here.rs` | a wait on this stack, for its task |
//! | `usable_portal.rs` | whether this code may suspend the portal that it is on |
//! | `task_waits.rs` | waits of one task for another |
//! | `current_task.rs` | the task that runs this code |
//! | `hooks.rs` | what the Python layer has `await_` call |
//! | `on_portal.rs` | `current_portal`, `on_portal` |
//! | `masked.rs` | where code on a portal must not suspend it |
//! | `close_all.rs` | the end of all waits of a thread |
//! | `arguments.rs`, `type_tables.rs` | the arguments of the module's functions; what its types are made of |
//! | `coroutine_methods.rs` | what `send` and `throw` of every coroutine take and give back |
//! | `call.rs` | a function call in the shape of a coroutine |
//! | `task_scopes.rs` | which portals serve a task for one call only |
//! | `scope.rs` | the making of such portals |
//! | `backends/` | asyncio's and Trio's tasks, and loops that begin to run |
//! | `greenlet/` | real greenlet in the same process |
//! | `greenlet_api/` | greenlet's API on fibers of our own |
//! | `switch_call.rs` | what the collector is shown of a call of a greenlet's `switch` |
//! | `guest.rs`, `guest_await.rs` | waits in greenlets of our own |
//! | `fallbacks.rs` | what was done instead of what was wanted: how often |
//! | `notices.rs` | what users hear of once |
//! | `c_api.rs` | what native extensions call: the capsule behind `include/fiberback.h` |
//! | `no_collections.rs` | automatic collections put off |
//! | `other_threads.rs` | frames of other threads, looked at without letting those go on |
//! | `lines.rs` | the code and lines of a stack, read at one moment |
//! | `roster.rs` | the suspended workers of all threads |
//! | `since.rs` | when a wait began |
//! | `signal_pipe.rs` | signals that are told to a thread by a pipe |
//! | `own_stack.rs` | what runs on this stack, found without making frame objects |
//! | `ended.rs` | the end of the interpreter that has loaded the module |
//! | `leaks.rs` | stacks that were given up: how many, and why |
//! | `error.rs`, `messages.rs`, `barrier.rs` | exceptions; their texts; the panic barrier |
//! | `names.rs` | interned strings |
//! | `thread_exit.rs`, `thread_exit.c` | threads that the interpreter ends while it exits |
//!
//! Most of it speaks the C API through `pyo3::ffi` directly: the hot paths are type slots, and a
//! fiber must not be suspended inside PyO3's own per-call bookkeeping. PyO3 initialises the module
//! and knows the API of each version.

mod arguments;
mod asyncio_future;
mod await_;
mod awaitable;
mod backends;
mod barrier;
mod c_api;
mod call;
mod close_all;
mod coroutine_methods;
mod current_loop;
mod current_task;
mod delegate;
mod ended;
mod error;
mod fallbacks;
mod greenlet;
mod greenlet_api;
mod guest;
mod guest_await;
mod hook;
mod hooks;
mod interp;
mod leaks;
mod lend;
mod lines;
mod mailbox;
mod masked;
mod messages;
mod modules;
mod names;
mod needs;
mod no_collections;
mod no_portal;
mod notices;
mod on_portal;
mod other_threads;
mod own_stack;
mod owner;
mod parking;
mod portal;
mod position;
mod roster;
mod scope;
mod side_stack;
mod signal_pipe;
mod since;
mod stack_memory;
mod stacks;
mod step;
mod switch_call;
mod task_scopes;
mod task_waits;
mod thread;
mod thread_exit;
mod thrown;
mod type_tables;
mod usable_portal;
mod wait_here;
mod worker;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};

#[pymodule(gil_used = true)]
fn _fiberback(module: &Bound<'_, PyModule>) -> PyResult<()> {
    ended::check().map_err(PyImportError::new_err)?;
    interp::selfcheck::run().map_err(PyImportError::new_err)?;
    let raw = module.as_ptr();
    // SAFETY: attached, once for each process (the self-check refuses sub-interpreters, and PyO3
    // a second initialisation).
    let ready = unsafe {
        names::init()
            && modules::init()
            && greenlet::init()
            && error::init(raw)
            && interp::init()
            && await_::init()
            && call::init()
            && portal::init(raw)
            && parking::init(raw)
            && c_api::init(raw)
            && greenlet_api::init(raw)
            && ffi::PyModule_AddFunctions(raw, FUNCTIONS.0.get().cast()) == 0
    };
    if !ready {
        return Err(PyErr::fetch(module.py()));
    }
    ended::watch();
    interp::selfcheck::rehearse().map_err(PyImportError::new_err)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    let close_all = module.getattr("close_all")?;
    module.py().import("atexit")?.call_method1("register", (close_all,))?;
    Ok(())
}

struct Functions(UnsafeCell<[ffi::PyMethodDef; FUNCTION_COUNT + 1]>);

// SAFETY: only the interpreter reads it.
unsafe impl Sync for Functions {}

const fn function(
    name: &'static CStr,
    meth: ffi::PyMethodDefPointer,
    flags: c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

const fn unary(name: &'static CStr, f: ffi::PyCFunction, doc: &'static CStr) -> ffi::PyMethodDef {
    function(name, ffi::PyMethodDefPointer { PyCFunction: f }, ffi::METH_O, doc)
}

const fn nullary(name: &'static CStr, f: ffi::PyCFunction, doc: &'static CStr) -> ffi::PyMethodDef {
    function(name, ffi::PyMethodDefPointer { PyCFunction: f }, ffi::METH_NOARGS, doc)
}

const fn any(
    name: &'static CStr,
    f: ffi::PyCFunctionFastWithKeywords,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    let meth = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: f };
    function(name, meth, ffi::METH_FASTCALL | ffi::METH_KEYWORDS, doc)
}

/// The signature, as `inspect` reads it, and the page about the one function that everybody calls.
const AWAIT_DOC: &CStr = {
    let text = concat!("await_(awaitable, /)\n--\n\n", include_str!("await_.txt"), "\0");
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a zero byte in await_.txt"),
    }
};

const FUNCTION_COUNT: usize = 48;

static FUNCTIONS: Functions = Functions(UnsafeCell::new([
    function(
        c"await_",
        ffi::PyMethodDefPointer { PyCFunctionFast: await_::await_ },
        ffi::METH_FASTCALL,
        AWAIT_DOC,
    ),
    function(
        c"set_parking",
        ffi::PyMethodDefPointer { PyCFunctionFast: parking::set_parking },
        ffi::METH_FASTCALL,
        c"set_parking(*hooks)\n--\n\nTell await_() what it needs to know of asyncio to wait without a portal.",
    ),
    unary(
        c"meet_greenlet",
        greenlet::meet_greenlet,
        c"meet_greenlet(module, /)\n--\n\nHave the switches of this greenlet._greenlet done on the thread's own stack.",
    ),
    nullary(
        c"note_greenlet_replaced",
        greenlet::note_replaced,
        c"note_greenlet_replaced()\n--\n\n`import greenlet` gives fiberback.greenlet from now on.",
    ),
    unary(
        c"context_of",
        parking::context_of,
        c"context_of(task, /)\n--\n\nThe contextvars context that an asyncio task runs in, or None.",
    ),
    unary(
        c"run_hosted",
        parking::run_hosted,
        c"run_hosted(loop, /)\n--\n\nA '_run_once' for a stock loop that runs all callbacks on fibers, until the loop is to stop.",
    ),
    unary(
        c"end_hosted",
        parking::end_hosted,
        c"end_hosted(loop, /)\n--\n\nHave run_hosted() return.",
    ),
    nullary(
        c"current_turn",
        parking::current_turn,
        c"current_turn()\n--\n\nWhat stands for the callback on whose fiber this is called, from its beginning to its end; None if it is on none.",
    ),
    unary(
        c"is_in_turn",
        parking::is_in_turn,
        c"is_in_turn(loop, /)\n--\n\nWhether a callback of the loop runs now, on a fiber, in whatever thread.",
    ),
    unary(
        c"parked_on",
        parking::parked_on,
        c"parked_on(loop, /)\n--\n\nThe task (or None) and the future (or None) of each caller that outlives the loop's run.",
    ),
    unary(
        c"close_parked",
        parking::close_parked,
        c"close_parked(loop, /)\n--\n\nRaise CancelledError in these callers; returns how many have ended.",
    ),
    function(
        c"set_hooks",
        ffi::PyMethodDefPointer { PyCFunctionWithKeywords: hooks::set_hooks },
        ffi::METH_VARARGS | ffi::METH_KEYWORDS,
        c"set_hooks($module, /, *, no_portal=None, is_usable=None, guard=None, not_awaitable=None, awaited=None, before_wait=None, after_wait=None, future=None, pure_future=None, wait=None, wait_for=None, current_task=None)\n--\n\nSet what await_() calls where it cannot suspend a portal, or may not, and what it must know of asyncio.",
    ),
    unary(
        c"set_external_event",
        c_api::set_external_event,
        c"set_external_event(type, /)\n--\n\nThe type of the events that the C API makes.",
    ),
    unary(
        c"set_guarded",
        masked::set_guarded,
        c"set_guarded(guarded, /)\n--\n\nWhether await_() calls the 'guard' hook in this thread first.",
    ),
    unary(
        c"leak",
        leaks::leak,
        c"leak(object, /)\n--\n\nKeep an object for ever, beyond the end of the interpreter: it is never finalized.",
    ),
    function(
        c"position",
        ffi::PyMethodDefPointer { PyCFunctionFast: position::position },
        ffi::METH_FASTCALL,
        c"position(heap, item, /)\n--\n\nAn index at which a heap (a list) has this very object, or -1.",
    ),
    nullary(
        c"current_frames",
        other_threads::current_frames,
        c"current_frames()\n--\n\nThe topmost frame of each thread, by the thread's id.",
    ),
    function(
        c"frames_from",
        ffi::PyMethodDefPointer { PyCFunctionFast: other_threads::frames_from },
        ffi::METH_FASTCALL,
        c"frames_from(frame, most, /)\n--\n\nA frame of another thread, its caller, and so on, 'most' of them or all if it is negative.",
    ),
    function(
        c"lines_from",
        ffi::PyMethodDefPointer { PyCFunctionFast: other_threads::lines_from },
        ffi::METH_FASTCALL,
        c"lines_from(frame, most, /)\n--\n\nThe code and the line of a frame, of its caller, and so on, as frames_from().",
    ),
    nullary(
        c"suspended",
        portal::suspended,
        c"suspended()\n--\n\nThe portals in whose steps await_() waits, of all threads.",
    ),
    unary(
        c"suspended_lines",
        portal::suspended_lines,
        c"suspended_lines(portal, /)\n--\n\nThe code and the line of each frame of a portal in whose step await_() waits, from the innermost; None of any other.",
    ),
    nullary(
        c"parked",
        parking::parked,
        c"parked()\n--\n\nOf each caller that waits without a portal, in any thread: the loop, the task or None, the future or None, what await_() steps or None, seconds, the thread's id, and its code and lines from the innermost.",
    ),
    function(
        c"write_on_signal",
        ffi::PyMethodDefPointer { PyCFunctionFast: signal_pipe::write_on_signal },
        ffi::METH_FASTCALL,
        c"write_on_signal(signum, fd, /)\n--\n\nHave the signal's number written to a file as one byte, in place of what the signal does; with -1, have it do what it did before.",
    ),
    unary(
        c"locals_of",
        other_threads::locals_of,
        c"locals_of(frame, /)\n--\n\nThe f_locals of another thread's frame.",
    ),
    function(
        c"local_of",
        ffi::PyMethodDefPointer { PyCFunctionFast: own_stack::local_of },
        ffi::METH_FASTCALL,
        c"local_of(code, index, /)\n--\n\nThat local variable of the innermost frame of this thread that executes 'code', or code whose qualified name ends so; None if there is none.",
    ),
    unary(
        c"lend_context",
        lend::lend_context,
        c"lend_context(function, /)\n--\n\nfunction(context), with the caller's context left, so that anybody can enter it meanwhile.",
    ),
    function(
        c"set_finalizer",
        ffi::PyMethodDefPointer { PyCFunctionFast: lend::set_finalizer },
        ffi::METH_FASTCALL,
        c"set_finalizer(generator, finalizer, /)\n--\n\nGive an async generator a finalizer, unless it has one. Whether that was done.",
    ),
    nullary(
        c"current_portal",
        on_portal::current_portal,
        c"current_portal()\n--\n\nThe portal whose step runs on this thread now, or None.",
    ),
    nullary(
        c"on_portal",
        on_portal::on_portal,
        c"on_portal()\n--\n\nWhether a portal's step runs on this thread now.",
    ),
    unary(
        c"portal_of",
        backends::task::portal_of,
        c"portal_of(task, /)\n--\n\nThe portal that a task steps, or None.",
    ),
    function(
        c"scope",
        ffi::PyMethodDefPointer { PyCFunctionFast: scope::scope },
        ffi::METH_FASTCALL,
        c"scope(portal, task, /)\n--\n\nNote that 'portal' serves 'task' until its coroutine has ended; returns it.",
    ),
    function(
        c"scoped",
        ffi::PyMethodDefPointer { PyCFunctionFast: scope::scoped },
        ffi::METH_FASTCALL,
        c"scoped(awaitable, coroutine_of, /)\n--\n\n'awaitable' itself on a portal of the current task, or else a portal for it that serves the task.",
    ),
    function(
        c"scoped_call",
        ffi::PyMethodDefPointer { PyCFunctionFast: scope::scoped_call },
        ffi::METH_FASTCALL,
        c"scoped_call(function, args, kwargs, /)\n--\n\nA portal in which function(*args, **kwargs) runs, that serves the current task.",
    ),
    unary(
        c"scoped_portal",
        scope::scoped_portal,
        c"scoped_portal(task, /)\n--\n\nThe portal of the innermost call in progress that serves 'task', or None.",
    ),
    function(
        c"bestow",
        ffi::PyMethodDefPointer { PyCFunctionFast: backends::task::bestow },
        ffi::METH_FASTCALL,
        c"bestow(task, wrap=None, /)\n--\n\nPut a portal around the coroutine of a task; it serves from the next step on.",
    ),
    unary(
        c"unbestow",
        backends::task::unbestow,
        c"unbestow(task, /)\n--\n\nTake a portal off a task that is between two steps. False if there is none, or await_() waits in it.",
    ),
    any(
        c"task_factory",
        backends::asyncio::task_factory,
        c"task_factory(loop, coro, **kwargs)\n--\n\nAn asyncio.Task with a portal.\n\nFor `loop.set_task_factory(fiberback.task_factory)`. `fiberback.enable(loop)` does that, serves tasks\nthat exist already, and can be undone.",
    ),
    any(
        c"eager_task_factory",
        backends::asyncio::eager_task_factory,
        c"eager_task_factory(loop, coro, **kwargs)\n--\n\nAn asyncio.Task with a portal that starts at once (Python 3.12 and newer).",
    ),
    unary(
        c"create_task_factory",
        backends::asyncio::create_task_factory,
        c"create_task_factory(inner, /)\n--\n\nA task factory that gives 'inner' coroutines with portals.\n\n'inner' is a task factory, or None for ordinary tasks::\n\n    loop.set_task_factory(fiberback.create_task_factory(asyncio.eager_task_factory))",
    ),
    nullary(
        c"task_class",
        backends::asyncio::get_task_class,
        c"task_class()\n--\n\nThe class of the tasks that the task factories make: asyncio.Task, or a subclass that makes up for a defect of CPython's.",
    ),
    unary(
        c"watch_loops",
        backends::running_loop::watch_loops,
        c"watch_loops(hook, /)\n--\n\nCall hook(loop) whenever an event loop of any class begins to run; None ends it.",
    ),
    any(
        c"call_masked",
        masked::call_masked,
        c"call_masked(fn, /, *args, **kwargs)\n--\n\nCall with no portal current, so that await_() cannot suspend the one we are on.",
    ),
    unary(
        c"note_fork",
        masked::note_fork,
        c"note_fork(loop, /)\n--\n\nIn a forked child: the portals that this code is on are of 'loop', which is the parent's.",
    ),
    unary(
        c"set_stack_size",
        stack_memory::set_stack_size,
        c"set_stack_size(bytes, /)\n--\n\nSize of the stacks of new fibers.",
    ),
    nullary(c"get_stack_size", stack_memory::get_stack_size, c"get_stack_size()\n--\n\nSee set_stack_size()."),
    nullary(
        c"trim",
        stack_memory::trim,
        c"trim()\n--\n\nGive the memory of idle fibers back to the system; returns the number of bytes.",
    ),
    nullary(c"stats", stack_memory::stats, c"stats()\n--\n\nCounts of fibers and stacks, as a dict."),
    nullary(
        c"close_all",
        close_all::close_all,
        c"close_all()\n--\n\nThrow GeneratorExit into every portal of this thread that await_() waits in, and CancelledError into callers that it has parked; returns how many ended.",
    ),
    ffi::PyMethodDef::zeroed(),
]));
