//! Task factories for asyncio: every task begins inside a portal.

use crate::barrier::barrier;
use crate::{error, messages, names, portal};
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The class of the tasks that we make, once it was needed. Owned.
static TASK: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Gives `asyncio.Task`, or where CPython needs it a subclass of it.
///
/// 3.13.0's `create_task` calls `set_name(name)` on what a task factory returns, even if `name` is
/// None, which names the task "None" (fixed in later releases). Tasks with a
/// factory then differ from those without.
const TASK_CLASS: &CStr = c"
import asyncio
Task = asyncio.Task
if 'set_name' in asyncio.BaseEventLoop.create_task.__code__.co_names:
    class Task(asyncio.Task):
        __module__ = 'fiberback'
        def set_name(self, value):
            if value is not None:
                super().set_name(value)
";

/// The class of the tasks that we make, borrowed; null with an error set.
#[inline(always)]
unsafe fn task_class() -> *mut PyObject {
    let class = TASK.load(Ordering::Relaxed);
    if !class.is_null() {
        return class;
    }
    // SAFETY: passed on.
    unsafe { make_task_class() }
}

#[cold]
unsafe fn make_task_class() -> *mut PyObject {
    // SAFETY: attached; plain API calls; the static keeps its reference for ever.
    unsafe {
        let scope = ffi::PyDict_New();
        if scope.is_null() {
            return scope;
        }
        let compiled =
            ffi::Py_CompileString(TASK_CLASS.as_ptr(), c"<fiberback>".as_ptr(), ffi::Py_file_input);
        if compiled.is_null() {
            ffi::Py_DECREF(scope);
            return ptr::null_mut();
        }
        let done = ffi::PyEval_EvalCode(compiled, scope, scope);
        ffi::Py_DECREF(compiled);
        if done.is_null() {
            ffi::Py_DECREF(scope);
            return ptr::null_mut();
        }
        ffi::Py_DECREF(done);
        let class = ffi::PyDict_GetItemWithError(scope, names::TASK.get());
        ffi::Py_XINCREF(class);
        ffi::Py_DECREF(scope);
        TASK.store(class, Ordering::Relaxed);
        class
    }
}

/// `_fiberback.task_class()`.
pub(crate) unsafe extern "C" fn get_task_class(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached.
        unsafe {
            let class = task_class();
            ffi::Py_XINCREF(class);
            class
        }
    })
}

/// Arguments of a call, on the stack up to a number that no loop exceeds.
const MOST_ARGUMENTS: usize = 16;

/// `task_factory(loop, coro, **kwargs)`: `asyncio.Task(Portal(coro), loop=loop, **kwargs)`.
pub(crate) unsafe extern "C" fn task_factory(
    _module: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: passed on as the interpreter gave them.
    barrier(ptr::null_mut(), || unsafe { make_task(arguments, count, keywords, false) })
}

/// The same with `eager_start=True`.
pub(crate) unsafe extern "C" fn eager_task_factory(
    _module: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: passed on as the interpreter gave them.
    barrier(ptr::null_mut(), || unsafe { make_task(arguments, count, keywords, true) })
}

unsafe fn make_task(
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
    eager: bool,
) -> *mut PyObject {
    // SAFETY: attached; `METH_FASTCALL | METH_KEYWORDS`: `count` positional values, then one value
    // for each name in the tuple `keywords` (or none if that is null), all borrowed.
    unsafe {
        let named = if keywords.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(keywords) as usize };
        if count != 2 || named + 3 > MOST_ARGUMENTS {
            error::set_type(messages::FACTORY_CALL);
            return ptr::null_mut();
        }
        let event_loop = *arguments;
        let values = std::slice::from_raw_parts(arguments.add(2), named);
        let class = task_class();
        if class.is_null() {
            return ptr::null_mut();
        }
        let portal = portal_around(*arguments.add(1));
        if portal.is_null() {
            return ptr::null_mut();
        }
        // A vectorcall: positional values, then named ones in the order of the names.
        let mut call = [ptr::null_mut::<PyObject>(); MOST_ARGUMENTS];
        let mut names_left = [ptr::null_mut::<PyObject>(); MOST_ARGUMENTS];
        let mut used = 0;
        let mut add = |name: *mut PyObject, value: *mut PyObject| {
            names_left[used] = name;
            call[used + 1] = value;
            used += 1;
        };
        add(names::LOOP.get(), event_loop);
        for (index, &value) in values.iter().enumerate() {
            let name = ffi::PyTuple_GET_ITEM(keywords, index as ffi::Py_ssize_t);
            // 3.13.0 passes `name=None` on, which `Task` would take for the name "None"; leaving
            // a None out is right for every argument that `Task` has, `eager_start` included.
            let is_ours = eager && ffi::PyUnicode_Compare(name, names::EAGER_START.get()) == 0;
            if value != ffi::Py_None() && !is_ours {
                add(name, value);
            }
        }
        if eager {
            add(names::EAGER_START.get(), ffi::Py_True());
        }
        call[0] = portal;
        let task = call_with_names(class, &call[..=used], &names_left[..used]);
        ffi::Py_DECREF(portal);
        task
    }
}

/// `class(values[0], **dict(zip(names, values[1:])))`.
unsafe fn call_with_names(
    class: *mut PyObject,
    values: &[*mut PyObject],
    names: &[*mut PyObject],
) -> *mut PyObject {
    // SAFETY: attached; borrowed valid objects, one value more than names.
    unsafe {
        // The usual case, `loop` alone (it is always the first), needs no tuple of its own each time.
        let tuple = if names.len() == 1 {
            loop_alone()
        } else {
            let tuple = ffi::PyTuple_New(names.len() as ffi::Py_ssize_t);
            if !tuple.is_null() {
                for (index, &name) in names.iter().enumerate() {
                    let name = ffi::Py_NewRef(name);
                    ffi::PyTuple_SetItem(tuple, index as ffi::Py_ssize_t, name);
                }
            }
            tuple
        };
        if tuple.is_null() {
            return ptr::null_mut();
        }
        let result = ffi::PyObject_Vectorcall(class, values.as_ptr(), 1, tuple);
        ffi::Py_DECREF(tuple);
        result
    }
}

/// `("loop",)` as a new reference.
unsafe fn loop_alone() -> *mut PyObject {
    static TUPLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
    let tuple = TUPLE.load(Ordering::Relaxed);
    // SAFETY: attached; the static keeps its reference for ever.
    unsafe {
        if !tuple.is_null() {
            return ffi::Py_NewRef(tuple);
        }
        let tuple = ffi::PyTuple_New(1);
        if tuple.is_null() {
            return tuple;
        }
        ffi::PyTuple_SetItem(tuple, 0, ffi::Py_NewRef(names::LOOP.get()));
        TUPLE.store(ffi::Py_NewRef(tuple), Ordering::Relaxed);
        tuple
    }
}

/// A portal around `coro` (borrowed), or `coro` itself where there is nothing to wrap: the task
/// then says what is wrong with it. A new reference.
unsafe fn portal_around(coro: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        let portal = portal::new(coro);
        if portal.is_null() && ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0 {
            ffi::PyErr_Clear();
            return ffi::Py_NewRef(coro);
        }
        portal
    }
}

/// `create_task_factory(inner)`: a factory that calls `inner(loop, Portal(coro), **kwargs)`.
pub(crate) unsafe extern "C" fn create_task_factory(
    module: *mut PyObject,
    inner: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; both lent. A method definition is never freed: it is a static.
        unsafe {
            if inner == ffi::Py_None() {
                return ffi::PyObject_GetAttrString(module, c"task_factory".as_ptr());
            }
            if ffi::PyCallable_Check(inner) == 0 {
                error::set_type("a task factory must be a callable or None");
                return ptr::null_mut();
            }
            ffi::PyCFunction_NewEx(INNER_FACTORY.0.get(), inner, ptr::null_mut())
        }
    })
}

struct Definition(std::cell::UnsafeCell<ffi::PyMethodDef>);

// SAFETY: only read, by the interpreter.
unsafe impl Sync for Definition {}

static INNER_FACTORY: Definition = Definition(std::cell::UnsafeCell::new(ffi::PyMethodDef {
    ml_name: c"task_factory".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: inner_factory },
    ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    ml_doc: c"task_factory(loop, coro, **kwargs)\n--\n\nThe inner factory's task, in a portal."
        .as_ptr(),
}));

/// The function that `create_task_factory` returns; `inner` is its bound "self".
unsafe extern "C" fn inner_factory(
    inner: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: as in `make_task`.
        unsafe {
            let named =
                if keywords.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(keywords) as usize };
            if count != 2 {
                error::set_type(messages::FACTORY_CALL);
                return ptr::null_mut();
            }
            let mut call = std::slice::from_raw_parts(arguments, 2 + named).to_vec();
            let portal = portal_around(call[1]);
            if portal.is_null() {
                return ptr::null_mut();
            }
            call[1] = portal;
            let task = ffi::PyObject_Vectorcall(inner, call.as_ptr(), 2, keywords);
            ffi::Py_DECREF(portal);
            task
        }
    })
}
