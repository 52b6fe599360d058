//! Python exceptions from native code, and the barrier that no panic crosses.

use pyo3::ffi::{self, PyObject};
use std::any::Any;
use std::ffi::CString;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `StackMemoryError`, made by [`init`].
static STACK_MEMORY_ERROR: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The coroutine is already running. CPython's own words for a coroutine.
pub(crate) const ALREADY_RUNNING: &str = "coroutine already executing";

/// `close()` of a coroutine that awaits on. CPython's own words.
pub(crate) const IGNORED_EXIT: &str = "coroutine ignored GeneratorExit";

/// The texts of misuse errors, a line of `MESSAGES` each: the constant that code raises it by, a code
/// that stays, what is wrong, and what to type next. (`_messages.py` has those of the Python half.)
macro_rules! messages {
    ($($(#[$about:meta])+ $name:ident = ($code:literal, $text:literal, $cure:literal);)+) => {
        $(
            $(#[$about])+
            pub(crate) const $name: &str = concat!($text, ": ", $cure, " [fiberback:", $code, "]");
        )+
        /// All of them for Python, a line each, with tabs between code, text and cure.
        const TABLE: &str = concat!($($code, "\t", $text, "\t", $cure, "\n"),+, "\0");
    };
}

messages! {
    /// A step of a portal that is suspended on another thread's fiber.
    WRONG_THREAD = ("wrong-thread",
        "this portal is suspended in await_() on another thread, and only that thread can resume it",
        "use loop.call_soon_threadsafe() or asyncio.run_coroutine_threadsafe() to get back to it");
    /// A switch to a greenlet that waits in `await_`.
    GREENLET_WAITS = ("greenlet-waits",
        "this greenlet waits in fiberback.await_(), and nobody can switch to it before what it awaits is \
         done",
        "cancel its task or what it awaits instead");
    /// A wait in a greenlet that is being killed, where it has nobody to wait for it.
    GREENLET_ENDS = ("greenlet-ends",
        "await_() cannot wait in a greenlet that ends because nobody refers to it any more",
        "let it end by itself, or call its throw() in a task");
    /// A wait in a greenlet that nothing which can wait has switched to.
    FOREIGN_GREENLET = ("greenlet-outside",
        "await_() cannot wait in this greenlet, for what has switched to it is neither on a portal nor in \
         a callback of the running event loop",
        "start the program with fiberback.run(main()), or call await_() where the loop runs");
    /// The same, where the greenlets are gevent's.
    GEVENT = ("gevent",
        "await_() cannot wait in a gevent greenlet while an event loop runs in this thread already (for \
         another greenlet, say)",
        "run it in a thread of gevent's, 'gevent.get_hub().threadpool.apply(fiberback.await_, (x,))'");
    /// A build of greenlet whose functions are not where they are known to be.
    UNKNOWN_GREENLET = ("greenlet-unknown",
        "greenlet's methods are not where they were",
        "type \"pip install 'greenlet>=3,<4'\"");
    /// A wait without a portal, where no callback of the loop is running that could be left.
    NOT_IN_A_CALLBACK = ("no-callback",
        "await_() cannot wait here, for the event loop is not in one of its callbacks (a signal handler \
         of signal.signal() that interrupted the loop itself?)",
        "use loop.add_signal_handler() or loop.call_soon_threadsafe()");
    /// A wait without a portal in a trace function, which may have interrupted anything.
    IN_A_TRACER = ("in-a-tracer",
        "await_() cannot wait without a portal in a trace or profile function or a sys.monitoring callback \
         (at a debugger's prompt it can): what was interrupted may be the event loop's own code",
        "start the program with fiberback.run(main()), or type 'await fiberback.ensure_portal()' in this \
         task first");
    /// The future of a parked caller is done on another thread than the caller's.
    PARKED_ELSEWHERE = ("parked-elsewhere",
        "the event loop runs on another thread than the one on which a caller of await_() is parked, and \
         that cannot go on here",
        "run the loop on one thread, or give its tasks portals (fiberback.run)");
    /// A task that no portal can be put into.
    TASK_KEEPS_COROUTINE = ("task-keeps-coroutine",
        "this task does not let its coroutine be replaced",
        "start it with a task factory (fiberback.task_factory) instead");
    /// Loops cannot be watched.
    LOOPS_UNSEEN = ("loops-unseen",
        "asyncio._set_running_loop is not CPython's own, so loops cannot be seen to begin",
        "pass each loop to fiberback.enable(loop)");
    /// The process has finalized the interpreter that had loaded the module, and begun another one.
    SECOND_INTERPRETER = ("second-interpreter",
        "fiberback was loaded by an interpreter of this process that has been finalized, and cannot be \
         loaded by another one",
        "keep the interpreter until the process ends (no Py_FinalizeEx() before that), or use a new process");
    /// `StackMemoryError`, and why there is none in front.
    NO_STACK = ("no-stack",
        "there is no memory for another call stack",
        "let fewer tasks wait in await_() at a time, make stacks smaller by fiberback.set_stack_size(), or \
         raise the limit (ulimit -v, vm.max_map_count)");
    /// `ValueError`, with the sizes in their places.
    SMALL_STACK = ("small-stack",
        "a stack of {bytes} bytes is too small for CPython",
        "type 'fiberback.set_stack_size({least})' at least; pages that nobody touches cost no memory");
    /// asyncio's tasks are laid out in a way that nobody knows.
    UNKNOWN_TASKS = ("unknown-tasks",
        "fiberback cannot find the fields of this Python's asyncio tasks, so await_() cannot wait without a \
         portal",
        "start the program with fiberback.run(main())");
    /// A stack is given up, and whose it is in front.
    LEFT_BEHIND = ("leaked-frames",
        "its stack is given up for good, with the memory that it has touched, for code on it has left an \
         interpreter frame or a contextvars context behind, as native code does that switches stacks itself, \
         or calls PyContext_Enter() and not PyContext_Exit() (stats()['stacks_leaked'] counts such stacks)",
        "please report it, with the extension modules that were called");
    /// The same.
    THREAD_ENDED = ("leaked-thread",
        "it waited in await_() when its thread ended, so its stack, and all that its frames refer to, can \
         never be freed (stats()['stacks_leaked'] counts such stacks)",
        "let asyncio.run(), fiberback.run() or asyncio.Runner run the loop in that thread, which cancel what \
         is left, or cancel the tasks and await them before the thread ends");
    /// The same.
    WOULD_NOT_END = ("leaked-waiting",
        "it was dropped, and goes on waiting each time that GeneratorExit is raised in it, so its stack, and \
         all that its frames refer to, is given up for good (stats()['stacks_leaked'] counts such stacks)",
        "do not wait again in a loop after 'except BaseException' or 'finally'");
    /// The same, of a greenlet.
    LEFT_GREENLET = ("leaked-greenlet",
        "a greenlet of fiberback.greenlet was dropped that cannot be ended, for it switches away each time that \
         GreenletExit is raised in it, or its thread is no more, so its stack, and all that its frames refer to, \
         is given up for good (stats()['stacks_leaked'] counts such stacks)",
        "do not switch away again in a loop after 'except BaseException' or 'finally'");
    /// A warning: tasks get stacks that are smaller than was asked for.
    STACKS_SMALL = ("stacks-small",
        "no address space is left for stacks of fiberback.get_stack_size() bytes, so tasks get small ones, on \
         which C code cannot recurse as deeply (stats()['stacks_small'] counts them)",
        "raise the limit (ulimit -v, vm.overcommit_memory, vm.max_map_count), or type \
         'fiberback.set_stack_size(2 << 20)' before the first task");
    /// A warning: awaitables are stepped on the stacks of the tasks that wait.
    STACKS_NOT_SHARED = ("stacks-not-shared",
        "no stack is left on which what tasks await could run, so it runs on the tasks' own, and each that \
         waits takes a page of memory more (stats()['stacks_not_shared'] counts such steps)",
        "raise the limit (ulimit -v, vm.max_map_count), or type 'fiberback.set_stack_size(2 << 20)' before the \
         first task");
    /// A warning: the loop stays on its stack while callers on fibers wait.
    LOOP_NOT_PASSED_ON = ("loop-not-passed",
        "no stack is left on which the event loop could go on beside callers that wait in await_() without a \
         portal, so it goes on on its own, and a callback that waits may keep the loop's end waiting \
         (stats()['loops_not_passed_on'] counts this)",
        "raise the limit (ulimit -v, vm.max_map_count), or type 'fiberback.set_stack_size(2 << 20)' before the \
         first task");
    /// What is no task at all.
    NOT_A_TASK = ("not-a-task",
        "a portal can be given to a running asyncio or Trio task only, an object with get_coro() or coro",
        "pass asyncio.current_task() or trio.lowlevel.current_task()");
}

/// Sets a Python exception of the given type.
pub(crate) fn set(exception: *mut PyObject, message: &str) {
    let message = CString::new(message.replace('\0', " ")).expect("zero bytes were replaced");
    // SAFETY: attached (all of this module is called from Python); both arguments are valid.
    unsafe { ffi::PyErr_SetString(exception, message.as_ptr()) }
}

/// Sets `RuntimeError`.
#[cold]
pub(crate) fn set_runtime(message: &str) {
    // SAFETY: reads a static of the interpreter.
    set(unsafe { ffi::PyExc_RuntimeError }, message);
}

/// Sets the error of a wait in a greenlet that nothing here can wait for.
#[cold]
pub(crate) fn set_foreign_greenlet() {
    // SAFETY: attached; both are borrowed, and only looked at.
    let gevent = unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        !modules.is_null() && !ffi::PyDict_GetItemString(modules, c"gevent".as_ptr()).is_null()
    };
    set_runtime(if gevent { GEVENT } else { FOREIGN_GREENLET });
}

/// Sets `TypeError`.
#[cold]
pub(crate) fn set_type(message: &str) {
    // SAFETY: reads a static of the interpreter.
    set(unsafe { ffi::PyExc_TypeError }, message);
}

/// Sets `StackMemoryError`.
#[cold]
pub(crate) fn set_no_stack(error: &fiberback::StackError) {
    // Memory is what there is none of: no `String` here.
    set_stack_memory(format_args!("{NO_STACK} ({error})"));
}

/// Sets `StackMemoryError`, where the stack was not what failed.
#[cold]
pub(crate) fn set_no_memory() {
    set_stack_memory(format_args!("{NO_STACK}"));
}

fn set_stack_memory(message: std::fmt::Arguments<'_>) {
    let mut text = Text { bytes: [0; 512], length: 0 };
    let _ = text.write_fmt(message);
    // SAFETY: attached; the text ends in a zero byte, as its last is never written.
    unsafe {
        ffi::PyErr_SetString(
            STACK_MEMORY_ERROR.load(Ordering::Relaxed),
            text.bytes.as_ptr().cast(),
        );
    }
}

/// Calls `function` with the error that is set, if any, out of its way.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn keeping(function: impl FnOnce()) {
    // SAFETY: attached.
    unsafe {
        let pending = take();
        function();
        if !pending.is_null() {
            restore(pending);
        }
    }
}

/// A C string of limited length, cut at the limit.
struct Text {
    bytes: [u8; 512],
    length: usize,
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        // Cut between characters, and keep zero bytes out (there are none in our messages).
        let cut = (0..=part.len().min(room)).rev().find(|&at| part.is_char_boundary(at));
        let part = &part.as_bytes()[..cut.unwrap_or(0)];
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        Ok(())
    }
}

/// Runs `body`, which must not unwind into C: a panic becomes a Python exception.
#[inline(always)]
pub(crate) fn barrier<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    // Whatever a panic leaves half done is Python state, which has no unwind safety to lose.
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            set_panic(payload);
            on_panic
        }
    }
}

#[cold]
fn set_panic(payload: Box<dyn Any + Send>) {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string());
    // SAFETY: attached; the type is a static of the interpreter.
    unsafe { set(ffi::PyExc_SystemError, &format!("fiberback: internal error: {text}")) }
}

/// Makes `StackMemoryError` and adds it to the module, and the table of messages. False with an error set on failure.
///
/// # Safety
///
/// `module` must be the module being initialised.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    let doc = c"A call stack for a portal could not be had: the process is out of memory, address \
        space or mappings. Fewer tasks suspended in await_() at a time, or smaller stacks \
        (set_stack_size), need less.";
    // SAFETY: plain API calls with valid arguments.
    unsafe {
        let class = ffi::PyErr_NewExceptionWithDoc(
            c"fiberback.StackMemoryError".as_ptr(),
            doc.as_ptr(),
            ffi::PyExc_MemoryError,
            ptr::null_mut(),
        );
        if class.is_null() {
            return false;
        }
        STACK_MEMORY_ERROR.store(class, Ordering::Relaxed);
        ffi::PyModule_AddObjectRef(module, c"StackMemoryError".as_ptr(), class) == 0
            && ffi::PyModule_AddStringConstant(
                module,
                c"messages".as_ptr(),
                TABLE.as_ptr().cast(), // ends in a zero byte
            ) == 0
    }
}

/// The exception being raised, taken out of the thread state, normalised; null if there is none.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn take() -> *mut PyObject {
    // SAFETY: attached.
    #[cfg(not(cpython = "3.11"))]
    unsafe {
        ffi::PyErr_GetRaisedException()
    }
    #[cfg(cpython = "3.11")]
    // SAFETY: attached; the three references are ours, and two of them are dropped.
    unsafe {
        let (mut class, mut value, mut trace) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        ffi::PyErr_Fetch(&raw mut class, &raw mut value, &raw mut trace);
        if class.is_null() {
            return ptr::null_mut();
        }
        ffi::PyErr_NormalizeException(&raw mut class, &raw mut value, &raw mut trace);
        if !trace.is_null() {
            ffi::PyException_SetTraceback(value, trace);
        }
        ffi::Py_XDECREF(class);
        ffi::Py_XDECREF(trace);
        value
    }
}

/// Raises `exception` (a new reference, consumed) as `throw()` on a generator would: keeping its
/// traceback, with the exception being handled here as its context (`_PyErr_ChainStackItem`).
///
/// # Safety
///
/// Attached; `exception` must be an exception instance.
pub(crate) unsafe fn raise(exception: *mut PyObject) {
    // SAFETY: `PyErr_SetObject` with an instance and its own class sets exactly that instance.
    unsafe {
        ffi::PyErr_SetObject(ffi::Py_TYPE(exception).cast(), exception);
        ffi::Py_DECREF(exception);
    }
}

/// Puts back what [`take`] took (consumed), exactly.
///
/// # Safety
///
/// Attached; `exception` must be an exception instance.
pub(crate) unsafe fn restore(exception: *mut PyObject) {
    // SAFETY: attached; the references handed over are owned.
    #[cfg(not(cpython = "3.11"))]
    unsafe {
        ffi::PyErr_SetRaisedException(exception);
    }
    #[cfg(cpython = "3.11")]
    // SAFETY: as above; the traceback is a new reference or null.
    unsafe {
        let class = ffi::Py_NewRef(ffi::Py_TYPE(exception).cast());
        ffi::PyErr_Restore(class, exception, ffi::PyException_GetTraceback(exception));
    }
}
