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
//! | `worker.rs` | fibers that run portals' steps, idle and suspended ones, per thread |
//! | `step.rs` | one step of an awaitable, and on which stack it is made |
//! | `side_stack.rs` | stacks that the fibers of a thread share for such steps |
//! | `needs.rs` | what a call takes of its stacks |
//! | `stacks.rs` | the stacks that fibers get, their sizes and pools |
//! | `portal.rs` | the `Portal` type |
//! | `await_.rs` | `await_` |
//! | `coroutine_methods.rs` | what `send` and `throw` of every coroutine take and give back |
//! | `call.rs` | a function call in the shape of a coroutine |
//! | `task_scopes.rs` | which portals serve a task for one call only |
//! | `scope.rs` | the making of such portals |
//! | `backends/` | asyncio's and Trio's tasks, and loops that begin to run |
//! | `greenlet/` | real greenlet in the same process |
//! | `fallbacks.rs` | what was done instead of what was wanted: how often |
//! | `notices.rs` | what users hear of once |
//! | `c_api.rs` | what native extensions call: the capsule behind `include/fiberback.h` |
//! | `other_threads.rs` | frames of other threads, looked at without letting those go on |
//! | `own_stack.rs` | what runs on this stack, found without making frame objects |
//! | `ended.rs` | the end of the interpreter that has loaded the module |
//! | `leaks.rs` | stacks that were given up: how many, and why |
//! | `error.rs`, `names.rs` | exceptions, the panic barrier; interned strings |
//! | `thread_exit.rs`, `thread_exit.c` | threads that the interpreter ends while it exits |
//!
//! Most of it speaks the C API through `pyo3::ffi` directly: the hot paths are type slots, and a
//! fiber must not be suspended inside PyO3's own per-call bookkeeping. PyO3 initialises the module
//! and knows the API of each version.

mod await_;
mod backends;
mod c_api;
mod call;
mod coroutine_methods;
mod ended;
mod error;
mod fallbacks;
mod greenlet;
mod interp;
mod leaks;
mod lend;
mod names;
mod needs;
mod notices;
mod other_threads;
mod own_stack;
mod parking;
mod portal;
mod position;
mod scope;
mod side_stack;
mod stacks;
mod step;
mod task_scopes;
mod thread_exit;
mod thrown;
mod worker;

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::ptr;

#[pymodule(gil_used = true)]
fn _fiberback(module: &Bound<'_, PyModule>) -> PyResult<()> {
    ended::check().map_err(PyImportError::new_err)?;
    interp::selfcheck::run().map_err(PyImportError::new_err)?;
    let raw = module.as_ptr();
    // SAFETY: attached, once for each process (the self-check refuses sub-interpreters, and PyO3
    // a second initialisation).
    let ready = unsafe {
        names::init()
            && greenlet::init()
            && error::init(raw)
            && interp::init()
            && await_::init()
            && call::init()
            && portal::init(raw)
            && parking::init(raw)
            && c_api::init(raw)
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

/// `current_portal()`.
unsafe extern "C" fn current_portal(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; the worker is running its portal's step, or the greenlets of that step run.
    unsafe {
        let worker = await_::worker_here();
        let portal = if worker.is_null() || worker::Worker::is_masked(worker) {
            ffi::Py_None()
        } else {
            (*worker).portal.cast::<PyObject>()
        };
        ffi::Py_NewRef(portal)
    }
}

/// `on_portal()`.
unsafe extern "C" fn on_portal(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; as in `current_portal`.
    unsafe {
        let worker = await_::worker_here();
        let on_portal = !worker.is_null() && !worker::Worker::is_masked(worker);
        ffi::PyBool_FromLong(on_portal.into())
    }
}

/// `call_masked(fn, *args, **kwargs)`.
unsafe extern "C" fn call_masked(
    _: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        if count < 1 {
            error::set_type("call_masked() needs a callable");
            return ptr::null_mut();
        }
        // SAFETY: `METH_FASTCALL | METH_KEYWORDS`; the first value is the callable. A masked worker
        // does not suspend, so we are still on it when the call returns.
        unsafe {
            let worker = await_::worker_here();
            let was_masked = worker.is_null() || std::mem::replace(&mut (*worker).masked, true);
            let rest = (count - 1) as usize;
            let result = ffi::PyObject_Vectorcall(*arguments, arguments.add(1), rest, keywords);
            if !was_masked {
                // Not in a child that the call has forked.
                (*worker).masked = !(*worker).forked_on.is_null();
            }
            result
        }
    })
}

/// `note_fork(loop)`.
unsafe extern "C" fn note_fork(_: *mut PyObject, event_loop: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; lent. The caller is a function that `os.register_at_fork` was given.
    unsafe {
        worker::note_fork(event_loop);
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// `set_guarded(guarded)`.
unsafe extern "C" fn set_guarded(_: *mut PyObject, guarded: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; lent.
    unsafe {
        match ffi::PyObject_IsTrue(guarded) {
            -1 => ptr::null_mut(),
            truth => {
                worker::set_guarded(truth != 0);
                ffi::Py_NewRef(ffi::Py_None())
            }
        }
    }
}

/// `leak(object)`.
unsafe extern "C" fn leak(_: *mut PyObject, object: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; lent. One reference that nobody will drop.
    unsafe {
        ffi::Py_INCREF(object);
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// `set_stack_size(bytes)`.
unsafe extern "C" fn set_stack_size(_: *mut PyObject, bytes: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent.
        unsafe {
            let bytes = ffi::PyLong_AsSize_t(bytes);
            if bytes == usize::MAX && !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            if bytes < stacks::LEAST_STACK_SIZE {
                let least = stacks::LEAST_STACK_SIZE;
                error::set(
                    ffi::PyExc_ValueError,
                    &error::SMALL_STACK
                        .replace("{bytes}", &bytes.to_string())
                        .replace("{least}", &least.to_string()),
                );
                return ptr::null_mut();
            }
            if let Err(refused) = stacks::set_stack_size(bytes) {
                error::set(ffi::PyExc_ValueError, &refused.to_string());
                return ptr::null_mut();
            }
            worker::Thread::trim(worker::thread());
            step::forget();
            ffi::Py_NewRef(ffi::Py_None())
        }
    })
}

/// `get_stack_size()`.
unsafe extern "C" fn get_stack_size(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached.
        unsafe { ffi::PyLong_FromSize_t(stacks::pool().stack_size()) }
    })
}

/// `trim()`.
unsafe extern "C" fn trim(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; this thread's record.
        unsafe {
            worker::Thread::trim(worker::thread());
            let fallback = stacks::fallback().map_or(0, |pool| pool.trim());
            ffi::PyLong_FromSize_t(stacks::pool().trim() + fallback)
        }
    })
}

/// `stats()`.
unsafe extern "C" fn stats(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        let pool = stacks::pool().stats();
        // Made at once with the pool, hence of use only where that could get no more.
        let small = stacks::fallback().map(|pool| pool.stats());
        let sum = |count: fn(&fiberback::fiber::PoolStats) -> usize| {
            count(&pool) + small.as_ref().map_or(0, count)
        };
        // SAFETY: attached; this thread's record; fresh objects.
        unsafe {
            let [idle, suspended, shared] = worker::Thread::counts(worker::thread());
            let entries = [
                (c"fibers_idle", idle),
                (c"fibers_suspended", suspended),
                (c"stack_size", pool.stack_size),
                (c"stacks_shared", shared),
                (c"stacks_in_use", sum(|pool| pool.in_use)),
                (c"stacks_warm", sum(|pool| pool.warm)),
                (c"stacks_cold", sum(|pool| pool.cold)),
                (c"stacks_high_water", sum(|pool| pool.high_water)),
                (c"stacks_leaked", leaks::stacks()),
                (c"stacks_small", fallbacks::SMALL_STACK.count()),
                (c"stacks_not_shared", fallbacks::OWN_STACK.count()),
                (c"wakes_put_off", fallbacks::WAKE_PUT_OFF.count()),
                (c"loops_not_passed_on", fallbacks::NO_RUNNER.count()),
                (c"reserved_bytes", sum(|pool| pool.reserved_bytes)),
                (c"greenlet_loaded", usize::from(greenlet::look())),
                (c"greenlets_put_off", greenlet::deferred()),
            ];
            let dict = ffi::PyDict_New();
            if dict.is_null() {
                return dict;
            }
            for (name, value) in entries {
                let value = ffi::PyLong_FromSize_t(value);
                let failed =
                    value.is_null() || ffi::PyDict_SetItemString(dict, name.as_ptr(), value) < 0;
                ffi::Py_XDECREF(value);
                if failed {
                    ffi::Py_DECREF(dict);
                    return ptr::null_mut();
                }
            }
            dict
        }
    })
}

/// `close_all()`.
unsafe extern "C" fn close_all(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        thread_exit::exits_here();
        // SAFETY: attached, called with no error set.
        unsafe {
            let parked = parking::close_all();
            ffi::PyLong_FromSize_t(parked + portal::close_all())
        }
    })
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

const FUNCTION_COUNT: usize = 39;

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
        ffi::PyMethodDefPointer { PyCFunctionWithKeywords: await_::set_hooks },
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
        set_guarded,
        c"set_guarded(guarded, /)\n--\n\nWhether await_() calls the 'guard' hook in this thread first.",
    ),
    unary(
        c"leak",
        leak,
        c"leak(object, /)\n--\n\nKeep an object for ever, beyond the end of the interpreter: it is never finalized.",
    ),
    function(
        c"position",
        ffi::PyMethodDefPointer { PyCFunctionFast: position::position },
        ffi::METH_FASTCALL,
        c"position(heap, item, /)\n--\n\nAn index at which a heap (a list) has this very object, or -1.",
    ),
    function(
        c"frames_from",
        ffi::PyMethodDefPointer { PyCFunctionFast: other_threads::frames_from },
        ffi::METH_FASTCALL,
        c"frames_from(frame, most, /)\n--\n\nA frame of another thread, its caller, and so on, 'most' of them or all if it is negative.",
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
        current_portal,
        c"current_portal()\n--\n\nThe portal whose step runs on this thread now, or None.",
    ),
    nullary(
        c"on_portal",
        on_portal,
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
        call_masked,
        c"call_masked(fn, /, *args, **kwargs)\n--\n\nCall with no portal current, so that await_() cannot suspend the one we are on.",
    ),
    unary(
        c"note_fork",
        note_fork,
        c"note_fork(loop, /)\n--\n\nIn a forked child: the portals that this code is on are of 'loop', which is the parent's.",
    ),
    unary(
        c"set_stack_size",
        set_stack_size,
        c"set_stack_size(bytes, /)\n--\n\nSize of the stacks of new fibers.",
    ),
    nullary(c"get_stack_size", get_stack_size, c"get_stack_size()\n--\n\nSee set_stack_size()."),
    nullary(
        c"trim",
        trim,
        c"trim()\n--\n\nGive the memory of idle fibers back to the system; returns the number of bytes.",
    ),
    nullary(c"stats", stats, c"stats()\n--\n\nCounts of fibers and stacks, as a dict."),
    nullary(
        c"close_all",
        close_all,
        c"close_all()\n--\n\nThrow GeneratorExit into every portal of this thread that await_() waits in, and CancelledError into callers that it has parked; returns how many ended.",
    ),
    ffi::PyMethodDef::zeroed(),
]));
