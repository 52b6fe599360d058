//! The texts of misuse errors. (`_messages.py` has those of the Python half.)

/// The coroutine is already running. CPython's own words for a coroutine.
pub(crate) const ALREADY_RUNNING: &str = "coroutine already executing";

/// `close()` of a coroutine that awaits on. CPython's own words.
pub(crate) const IGNORED_EXIT: &str = "coroutine ignored GeneratorExit";

/// A line each: the constant that code raises it by, a code that stays, what is wrong, and what to type
/// next.
macro_rules! messages {
    ($($(#[$about:meta])+ $name:ident = ($code:literal, $text:literal, $cure:literal);)+) => {
        $(
            $(#[$about])+
            pub(crate) const $name: &str = concat!($text, ": ", $cure, " [fiberback:", $code, "]");
        )+
        /// All of them for Python, a line each, with tabs between code, text and cure.
        pub(crate) const TABLE: &str = concat!($($code, "\t", $text, "\t", $cure, "\n"),+, "\0");
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
        "start the program with fiberback.run(main()), or call await_() where the loop runs, or type \
         'fiberback.greenlet.install()' before greenlet is imported");
    /// The same, where the greenlets are gevent's.
    GEVENT = ("gevent",
        "await_() cannot wait in a gevent greenlet while an event loop runs in this thread already (for \
         another greenlet, say)",
        "run it in a thread of gevent's, 'gevent.get_hub().threadpool.apply(fiberback.await_, (x,))', or type \
         'fiberback.greenlet.install()' before gevent is imported");
    /// A build of greenlet whose functions are not where they are known to be.
    UNKNOWN_GREENLET = ("greenlet-unknown",
        "greenlet's methods are not where they were",
        "type \"pip install 'greenlet>=3,<4'\", or 'fiberback.greenlet.install()' before greenlet is imported");
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
    /// The context of a greenlet that is not its own.
    GREENLET_CONTEXT = ("greenlet-context",
        "the context of this greenlet cannot be set while its code runs an event loop or a task, whose context \
         that is",
        "type 'contextvars.copy_context().run(...)' there, or set gr_context outside of the loop");
    /// A stack is given up that was of a greenlet.
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
    /// A stack of a size that the system has no room for, and the crate's words for that in front.
    STACK_REFUSED = ("stack-size",
        "{error}",
        "type 'fiberback.set_stack_size(16 << 20)', the default, or a size between");
    /// A wait that native code began with an exception set.
    WHILE_RAISING = ("while-raising",
        "await_() cannot suspend while an exception is being raised: native code has called it with one set",
        "have that code take the exception away first (PyErr_GetRaisedException) and put it back after");
    /// A profile function that waits while it is told that a task is suspended, or goes on.
    TOLD_OF_A_SWITCH = ("told-of-switch",
        "await_() cannot wait in a profile function that is being told that a task is suspended, or goes on",
        "have it only note what it is told, or type 'asyncio.ensure_future(x)' in it");
    /// `_fiberback` alone, without the package.
    NOT_LOADED = ("not-loaded",
        "await_() was called before the package fiberback has been imported",
        "type 'import fiberback' first");
    /// `Portal` of something else.
    PORTAL_WHAT = ("portal-what",
        "a portal needs a coroutine: an object with send(), throw() and close()",
        "type 'fiberback.with_portal_run(main)', which makes one of an async function");
    /// Code that ran in between, a collection's, say, has changed the task.
    TASK_CHANGED = ("task-changed",
        "the task was given another coroutine meanwhile",
        "call 'fiberback.bestow_portal()' again, and let one piece of code replace coroutines of tasks");
    /// The task factory, called with something else.
    FACTORY_CALL = ("factory-call",
        "a task factory is called with (loop, coro, **kwargs)",
        "type 'loop.set_task_factory(fiberback.task_factory)'");
    /// Another minor version.
    OTHER_PYTHON = ("other-python",
        "fiberback was built for CPython {built} but runs in {running}: its native module is made for one \
         minor version",
        "install a fiberback wheel for this interpreter, or build it against this interpreter's headers: \
         'pip install --force-reinstall --no-binary fiberback fiberback'");
    /// What the interpreter does not say of itself as this build has it.
    UNLIKE_PYTHON = ("unknown-python",
        "fiberback was built for CPython {built} and found itself in CPython {running}, whose internals are \
         not as expected: {what}",
        "install a fiberback wheel for this interpreter, or build it against this interpreter's headers: \
         'pip install --force-reinstall --no-binary fiberback fiberback'");
    /// A build of CPython without the GIL.
    FREE_THREADED = ("free-threaded",
        "fiberback does not support free-threaded builds of CPython yet (sys.abiflags has a 't'): suspended \
         fibers would hide references from their garbage collector",
        "use the default build of CPython");
    /// A debug build.
    DEBUG_BUILD = ("debug-build",
        "fiberback does not support debug builds of CPython (sys.abiflags has a 'd'), whose assertions on the \
         thread state do not foresee fibers",
        "use a release build of CPython");
    /// Another interpreter of the process than the first.
    SUB_INTERPRETER = ("sub-interpreter",
        "fiberback does not support sub-interpreters",
        "import it in the main interpreter only");
    /// A panic.
    INTERNAL = ("internal-error",
        "fiberback: internal error: {text}",
        "please report it, with the traceback");
    /// What is no task at all.
    NOT_A_TASK = ("not-a-task",
        "a portal can be given to a running asyncio or Trio task only, an object with get_coro() or coro",
        "pass asyncio.current_task() or trio.lowlevel.current_task()");
}
