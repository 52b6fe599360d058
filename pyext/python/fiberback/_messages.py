"""The texts of misuse errors: what is wrong, what to type next in that place, and a short code.

A message is one line of this file: `NAME = Message(code, text, cure)`. Codes stay what they are, for
people search for them; `table()` lists all, those of the native module included (`messages.rs`), and
`python -m fiberback errors` prints it. `tests/python/test_messages.py` holds it against the places that
raise.
"""

from __future__ import annotations


class Message(str):
    """What a misuse error says: `text. cure [fiberback:code]`, then what belongs below it.

    A `str`, to be raised as it is, or formatted.
    """

    code: str
    text: str
    cure: str

    def __new__(cls, code: str, text: str, cure: str, below: str = "") -> Message:
        self = super().__new__(cls, f"{text}. {cure} [fiberback:{code}]{below}")
        self.code, self.text, self.cure = code, text, cure
        return self


def table() -> list[Message]:
    """All messages, by their codes."""
    from ._fiberback import (
        messages,  # not above: the fallback, which it may be, raises some of ours
    )

    native = (Message(*line.split("\t")) for line in messages.splitlines())
    ours = (value for value in globals().values() if isinstance(value, Message))
    return sorted((*native, *ours), key=lambda message: message.code)


def typed(function: object, otherwise: str = "fn") -> str:
    """The name to type for `function`; `otherwise` for a lambda, or what has none."""
    name: str = getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
    return name if all(part.isidentifier() for part in name.split(".")) else otherwise


# --- await_ where it cannot wait -------------------------------------------------------------------

TRIO_NO_PORTAL = Message(
    "trio-no-portal",
    "fiberback.await_() was called in a Trio task that has no portal",
    "Start the program with 'trio.run(fiberback.with_portal_run_tree, main)', or run this call through "
    "'await fiberback.with_portal_run_sync(fn)', or type 'await fiberback.ensure_portal()' in this task "
    "first",
)
TRIO_FORKED = Message(
    "trio-forked",
    "fiberback.await_() was called in a child process that was forked in a Trio task: that Trio run goes on "
    "in the parent only, and Trio starts no other one below it",
    "Start the child by 'multiprocessing.get_context(\"spawn\")' or \"forkserver\", or call 'trio.run' in a "
    "new thread of the child",
)
TRIO_NO_TASK = Message(
    "trio-no-task",
    "fiberback.await_() was called by Trio outside every task (an abort function, an instrument, a "
    "callback of 'run_sync_soon')",
    "Start a task for this code: 'trio.lowlevel.spawn_system_task(fiberback.with_portal_run_sync, fn)'",
)
LOOP_NO_PORTAL = Message(
    "loop-no-portal",
    "fiberback.await_() was called in a task that has no portal, on the event loop {loop}; stock asyncio "
    "loops alone need no preparation",
    "Call 'fiberback.enable()' once while that loop runs (a server's lifespan or startup function is the "
    "place) or 'fiberback.enable(everywhere=True)' before it does; in a program of your own start it with "
    "'fiberback.run(main(), loop_factory={factory})'. For this task alone type 'await fiberback.ensure_portal()' "
    "first, for this call alone 'await fiberback.with_portal_run_sync(fn)'",
)
TASK_PAST_LOOP = Message(
    "task-past-loop",
    "fiberback.await_() was called in a task that has no portal, on the event loop {loop}, which is enabled: "
    "'asyncio.Task(…)' has made this task past the loop's task factory",
    "Make it by 'asyncio.create_task(coro)' or 'loop.create_task(coro)', which from CPython 3.14 on take "
    "'eager_start=True', too; or type 'await fiberback.ensure_portal()' in it first",
)
LOOP_NO_TASK = Message(
    "loop-no-task",
    "fiberback.await_() was called in a callback of the event loop {loop}, outside every task",
    "Start a task for this code: 'asyncio.ensure_future(fiberback.with_portal_run_sync(fn))'",
)
NEST_ASYNCIO = Message(
    "nest-asyncio",
    "fiberback.await_() was called in a task without a portal, on an event loop that nest_asyncio has "
    "patched",
    "Remove 'nest_asyncio.apply()', which is no longer needed, since 'fiberback.run(main())' works inside a "
    "running loop; or call 'fiberback.enable()' while the loop runs",
)
NO_PORTAL = Message(
    "no-portal",
    "fiberback.await_() was called in a task of {library} that has no portal",
    "Run this call through 'await fiberback.with_portal_run(async_fn, *args)' or "
    "'await fiberback.with_portal_run_sync(sync_fn, *args)'",
)
MUST_YIELD = Message(
    "must-yield",
    "this task's portal takes effect with its next step",
    "You must yield to the event loop (try 'await {library}.sleep(0)') after calling "
    "'fiberback.enable()' in a task, or 'fiberback.bestow_portal()' on the current one, before using the portal; "
    "'await fiberback.ensure_portal()' does both",
)
NO_AWAIT = Message(
    "no-await",
    "fiberback.await_() was called inside a region where nothing may wait: fiberback.no_await() of "
    "{region}",
    "Move the call out of the region, or pass in what it was to get",
)
DEADLOCK = Message(
    "wait-cycle",
    "deadlock: {circle}",
    "None of them could ever go on; one must not wait for the other, or only for some time by "
    "'asyncio.wait(tasks, timeout=…)'",
)
UNKNOWN_GREENLET = Message(
    "greenlet-version",
    "fiberback does not know this build of the greenlet package ({error})",
    "Type \"pip install 'greenlet>=3,<4'\", or 'fiberback.greenlet.install()' before greenlet is imported, or do "
    "not switch between greenlets in code that await_() may suspend",
)
ASYNCIO_IN_TWO = Message(
    "asyncio-in-two",
    "'import _asyncio' came before 'import asyncio', which leaves asyncio with two halves that do not know "
    "of each other: 'asyncio.current_task()' is None in every task, and timeouts and task groups fail",
    "Type 'import asyncio' before whatever imports '_asyncio'",
)

# --- without the native module ----------------------------------------------------------------------

PURE_USED = Message(
    "pure-fallback",
    "fiberback has no native module for {python}: portals work on the greenlet package, and "
    "'fiberback.await_()' without a portal in tasks of stock asyncio loops, stack sizes and fiberback.greenlet "
    "do not",
    "Nothing needs to be done; 'python -m fiberback' tells what is used, and CPython 3.11 to 3.15 with the GIL on "
    "Linux has the native module ('pip install --force-reinstall fiberback')",
)
PURE_NO_PARKING = Message(
    "pure-no-parking",
    "fiberback.await_() was called in a task or callback without a portal, and to wait there takes the native "
    "module, which this installation of fiberback does not have",
    "Start the program with 'fiberback.run(main())', or call 'fiberback.enable()' once while the loop runs; for "
    "this task alone type 'await fiberback.ensure_portal()' first, for this call alone 'await "
    "fiberback.with_portal_run_sync(fn)'. Or install the native module: 'pip install --force-reinstall fiberback' "
    "on CPython 3.11 to 3.15 with the GIL, on Linux",
)
NEEDS_GREENLET = Message(
    "needs-greenlet",
    "fiberback.await_() was called in a task, and to suspend it takes the native module, which this installation "
    "of fiberback does not have, or the package greenlet, which is not installed",
    "Type 'pip install greenlet'",
)
NEEDS_NATIVE = Message(
    "needs-native",
    "{what} needs fiberback's native module, which this installation does not have",
    "Type 'pip install --force-reinstall fiberback' on CPython 3.11 to 3.15 with the GIL, on Linux, where there "
    "are wheels with it",
)
PYODIDE_CANNOT = Message(
    "pyodide-no-switch",
    "fiberback.await_() was called where Pyodide cannot switch stacks (pyodide.ffi.can_run_sync() is False)",
    "Run this code by 'pyodide.runPythonAsync(code)' or 'function.callPromising()', in an engine with JavaScript "
    "Promise Integration ('node --experimental-wasm-stack-switching')",
)

# --- await_ of what cannot be awaited: added to the interpreter's own words ------------------------

FORGOT_CALL = Message(
    "forgot-call",
    "{name} is a function",
    "Did you forget to call it? Type 'fiberback.await_({name}())'",
)
SEVERAL = Message(
    "several-awaitables",
    "this is a {kind} of awaitables",
    "Type 'fiberback.await_(asyncio.gather(*awaitables))'",
)
CONCURRENT_FUTURE = Message(
    "concurrent-future",
    "this is a future of concurrent.futures, which blocks its waiter's thread",
    "Type 'fiberback.await_(asyncio.wrap_future(future))'",
)

ASYNC_CONTEXT = Message(
    "async-context",
    "this is an async context manager",
    "Type 'with fiberback.async_context(manager) as value:'",
)
ASYNC_ITERATOR = Message(
    "async-iterator",
    "this is an async iterator",
    "Type 'for value in fiberback.async_iter(iterator):'",
)

ALREADY_AWAITED = Message(
    "already-awaited",
    "fiberback.await_() has waited already, and gives the result, an object of type {kind!r}, which cannot be "
    "awaited",
    "Leave out the 'await' in front of it: 'result = fiberback.await_(awaitable)'",
)

# --- loops, threads, runners -----------------------------------------------------------------------

LOOP_CLOSED = Message(
    "loop-closed",
    "fiberback.await_() was called in a thread that works for an event loop, and that loop is closed",
    "Let the loop's main coroutine wait for its threads, as 'await fiberback.to_thread(fn)' does; or, "
    "for a thread that is to outlive it, give the thread a loop of its own: 'fiberback.run(main())'",
)
LOOP_STOPPED = Message(
    "loop-stopped",
    "fiberback.await_() was called in a thread that works for an event loop, and that loop is not running",
    "Keep it running while its threads work: let its main coroutine wait for them, as "
    "'await fiberback.to_thread(fn)' does, or use 'loop.run_forever()'",
)
LOOP_GONE = Message(
    "loop-gone",
    "fiberback.await_() in a worker thread was ended because the task at its event loop was: the loop was "
    "closed or the task destroyed",
    "Let the loop's main coroutine wait for its threads, as 'await fiberback.to_thread(fn)' does",
)
LOOP_BUSY = Message(
    "loop-busy",
    "fiberback.await_() in thread {thread} has waited {seconds:g} s for the event loop of thread {other} to "
    "look at it: something blocks that loop",
    "If it waits for thread {thread}, this is a deadlock; call blocking functions by "
    "'await fiberback.to_thread(fn)'",
    " Thread {other}:\n{other_stack}",
)
THREAD_DEADLOCK = Message(
    "thread-deadlock",
    "deadlock: fiberback.await_() in thread {thread} waits for the event loop of thread {other}, and that "
    "one is blocked waiting for thread {thread}",
    "Instead of blocking the loop, type 'await fiberback.to_thread(fn)' or "
    "'await asyncio.wrap_future(future)', or 'fiberback.await_(…)' of these",
    " Thread {other}:\n{other_stack}Thread {thread}:\n{stack}",
)
FUTURE_OF_IDLE_LOOP = Message(
    "idle-loop",
    "fiberback.await_() was given a future of an event loop that is not running ({loop}; a forked child "
    "does not run its parent's), so nothing can complete it",
    "Run that loop, in this thread by 'loop.run_until_complete(future)' or in another; or, if it is closed, make "
    "the future where it is awaited",
)
NOT_A_LOOP = Message(
    "parent-what",
    "parent_loop() takes an event loop or a TrioToken, got {value!r}",
    "Type 'fiberback.parent_loop(asyncio.get_running_loop())' in a coroutine, and enter it in the thread",
)
ENABLE_NOT_A_LOOP = Message(
    "enable-what",
    "enable() takes an event loop or nothing, got {value!r}",
    "Type 'fiberback.enable()' while the loop runs, or 'fiberback.enable(loop)' before",
)
RUNNER_BUSY = Message(
    "runner-busy",
    "fiberback.await_() was called while this thread's own runner is running, but no event loop is set: "
    "something has called asyncio._set_running_loop(None)",
    "Set it back to the loop that it was",
)
RUNNER_IDLE = Message(
    "runner-idle",
    "the event loop of this thread's own runner, {loop}, was given work by {who} on the event loop {other}, "
    "and cannot do it while that one runs in the same thread",
    "What a fixture or a module has opened by 'fiberback.await_()' outside every loop belongs to the runner: "
    "open it in the loop that uses it (in an async fixture, in the task itself), or use it where no other loop "
    "runs, by 'fiberback.await_(…)' in a synchronous test or function",
)
RUNNER_CLOSE = Message(
    "runner-close",
    "this thread's runner cannot be closed from inside its own event loop",
    "Call 'fiberback.close_thread_runner()' after the await_() that this code runs in",
)

# --- syncify ---------------------------------------------------------------------------------------

FACE_WHAT = Message(
    "face-what",
    "syncify() takes an async function, a class, an object or a module, got {value!r}",
    "Type 'fiberback.syncify(httpx.AsyncClient)', say, or, to wait for one coroutine, 'fiberback.sync(coroutine)'",
)
FACE_HOME = Message(
    "face-home",
    "this object lives on the event loop {loop}, where its first call waited, and that loop does not run, or runs "
    "below this code in the same thread",
    "Make the object where it is used: in the thread, or below the loop, that calls it; or give it a loop that "
    "always runs: 'fiberback.syncify(cls, home=fiberback.threads.LoopThread())'",
)
FACE_NO_LOOP = Message(
    "face-no-loop",
    "a function of fiberback.syncify(…, raise_sync_error=True) was called where no event loop runs, in a thread "
    "that works for none",
    "Type 'raise_sync_error=False' to have the thread's own runner run it",
)
FACE_INIT = Message(
    "face-init",
    "this object of {name}, a class derived from one of fiberback.syncify(), has no async object yet",
    "Call 'super().__init__(…)' first in its '__init__'",
)
FACE_CALL = Message(
    "face-call",
    "this is yet to be awaited",
    "Call it without arguments, 'x()', for the result, or enter it by 'with'",
)

STUBS_MYPY = Message(
    "stubs-mypy",
    "mypy cannot read the module: {said}",
    "Mend what it says, and see that 'mypy' finds the module from this folder",
)
STUBS_UNKNOWN = Message(
    "stubs-unknown",
    "{name}, the face of {asyn!r}, has no types that mypy knows; it is Any in the stub",
    "Give its package types (a 'py.typed' file, a stub), and define it at the top of a module",
)

# --- nest ------------------------------------------------------------------------------------------

NEST_MISPATCHED = Message(
    "nest-mispatched",
    "nest_asyncio.apply() was called before fiberback.nest.apply(), and its loops re-enter themselves",
    "Type 'import fiberback.nest as nest_asyncio' where nest_asyncio is imported, or call "
    "'fiberback.nest.apply()' first",
)

# --- asgiref ---------------------------------------------------------------------------------------

UNKNOWN_ASGIREF = Message(
    "unknown-asgiref",
    "fiberback.asgiref supports asgiref 3.13 and later, but this is {version}",
    "Type 'pip install \"asgiref>=3.13,<4\"'",
)
ASGIREF_EXECUTOR = Message(
    "asgiref-executor",
    "executor must not be set when on_fiber is True, since no thread takes part then",
    "Type 'sync_to_async(fn, on_fiber=True)' for a function that does not block, "
    "'sync_to_async(fn, thread_sensitive=False, executor=executor)' for one that does",
)
ASGIREF_DEADLOCK = Message(
    "asgiref-deadlock",
    "Single thread executor already being used, would deadlock: the sync code that it runs waits for the thread "
    "of this event loop",
    "In that sync code call the async function by 'async_to_sync', instead of waiting for a thread; or type "
    "'sync_to_async(fn, thread_sensitive=False)' here",
)

# --- task groups -----------------------------------------------------------------------------------

GROUP_ENTERED = Message(
    "group-entered",
    "this fiberback.TaskGroup has been entered already",
    "Make another one: 'with fiberback.TaskGroup() as group:'",
)
GROUP_NOT_ENTERED = Message(
    "group-not-entered",
    "this fiberback.TaskGroup has not been entered",
    "Type 'with fiberback.TaskGroup() as group:', and 'group.start(...)' inside of it",
)
GROUP_WHAT = Message(
    "group-what",
    "fiberback.TaskGroup starts a function with its arguments, and so does map, not {value!r}",
    "Type 'group.start(fetch, url)' instead of 'group.start(fetch(url))', 'fiberback.map(fetch, urls)'",
)
GROUP_LIMIT = Message(
    "group-limit",
    "a limit of {limit!r} lets no task run",
    "Pass 1 or more, or 'limit=None' for all at once",
)
GROUP_LIBRARY = Message(
    "group-library",
    "fiberback.TaskGroup, gather and map start tasks of asyncio or Trio, and {library} is running",
    "Start them by that library's own function, in an async function that you await_()",
)
GATHER_WHAT = Message(
    "gather-what",
    "fiberback.gather() takes awaitables, and functions without arguments, not {value!r}",
    "Pass 'gather(fetch(a), lambda: parse(b))', or use 'fiberback.map(fetch, urls)'",
)

# --- sync, LoopThread ------------------------------------------------------------------------------

SYNC_WHAT = Message(
    "sync-what",
    "fiberback.sync() takes an awaitable, or an async function and its arguments, not {value!r}",
    "Pass 'sync(fetch(url))' or 'sync(fetch, url)', or write '@sync' above 'async def'",
)
SYNC_FALLBACK = Message(
    "sync-fallback",
    "fiberback.sync() knows no fallback {value!r}",
    'Type fallback="raise" or fallback="thread"',
)
LOOP_THREAD_CLOSED = Message(
    "loop-thread-closed",
    "the event loop of LoopThread {name!r} was closed",
    "Make a new 'fiberback.threads.LoopThread()', or use this one within its 'with' block",
)
LOOP_THREAD_OWN = Message(
    "loop-thread-own",
    "LoopThread {name!r} cannot be closed by code that its own loop runs",
    "Call 'close()' in another thread, 'asyncio.to_thread(loop_thread.close)' without awaiting it, say",
)
PORTAL_BACKEND = Message(
    "portal-backend",
    "fiberback.threads.start_blocking_portal() runs asyncio's loop, not {backend!r}",
    "Use 'anyio.from_thread.start_blocking_portal' for that one",
)
PORTAL_NOT_STARTED = Message(
    "portal-not-started",
    "The function given to 'start_task' has ended without having called 'task_status.started()'",
    "Call it there, or use 'start_task_soon'",
)
DEVLIB_ACCESS = Message(
    "devlib-access",
    'PathAccess() takes the namespace "host" or "target" and the mode "r" or "w", not {namespace!r} and '
    "{mode!r}",
    'Type PathAccess("target", path, "w")',
)
DEVLIB_OVERLAP = Message(
    "devlib-overlap",
    "What ran concurrently has accessed what overlaps: {mine} (in {one}) and {theirs} (in {other})",
    "Await these one after the other",
)

# --- portals, run, decorators ----------------------------------------------------------------------

NO_CURRENT_TASK = Message(
    "no-task",
    "No task is running here",
    "Call this from a coroutine run by asyncio or Trio",
)
UNSUPPORTED_LIBRARY = Message(
    "unsupported-library",
    "fiberback cannot give a portal to a task of {library!r}: asyncio and Trio are supported",
    "'await fiberback.with_portal_run(fn)' needs no support and works under any library",
)
ASYNC_FUNCTION = Message(
    "async-function",
    "with_portal_run_sync() takes a synchronous function, and {name} is an async one",
    "Type 'await fiberback.with_portal_run({name}, …)'",
)
SYNC_FUNCTION = Message(
    "sync-function",
    "with_portal_run() takes an async function, and {name} has returned {value!r}, which cannot be awaited",
    "Type 'await fiberback.with_portal_run_sync({name}, …)'",
)
FUNCTION_CALLED = Message(
    "function-called",
    "{name}() takes a function and its arguments, got {value!r}",
    "Pass the function without calling it: '{name}(fn, *args)' in place of '{name}(fn(*args))'",
)
NOT_A_COROUTINE = Message(
    "run-what",
    "a coroutine was expected, got {value!r}",
    "Type 'fiberback.run({main}())'",
)
NO_AWAIT_ASYNC = Message(
    "no-await-async",
    "no_await() cannot decorate {name}, an async function, whose own 'await's would wait",
    "Use 'with fiberback.no_await():' around the part that must not",
)
NO_AWAIT_GENERATOR = Message(
    "no-await-generator",
    "no_await() cannot decorate {name}, a generator function, whose body does not run in the call",
    "Use 'with fiberback.no_await():' inside",
)

# --- libraries that we serve -----------------------------------------------------------------------

NEEDS_EXTRA = Message(
    "needs-extra",
    "{module} needs {needs}, which is not installed",
    "Type 'pip install fiberback[{extra}]'",
)
UNKNOWN_SQLALCHEMY = Message(
    "unknown-sqlalchemy",
    "fiberback.sqlalchemy supports SQLAlchemy 2.0 and 2.1, but this is {version}",
    "Type 'pip install \"sqlalchemy>=2.0,<2.2\"'",
)
DRIVER_NEEDS_ASYNCIO = Message(
    "driver-needs-asyncio",
    "this database driver needs asyncio, and Trio is running",
    "Type 'await trio.to_thread.run_sync(fiberback.run, main())', where main() is a coroutine that does the "
    "database work, on an asyncio loop in a thread",
)
POOL_NEEDS_A_LOOP = Message(
    "pool-needs-loop",
    "fiberback.dbapi.psycopg_pool.ConnectionPool opens on a running asyncio event loop, and none runs in "
    "this thread",
    "Use 'psycopg_pool.ConnectionPool(..., connection_class=psycopg.Connection)' here",
)
DJANGO_BLOCKS = Message(
    "django-blocks",
    "You cannot call this from an async context: the ENGINE of this database in DATABASES blocks, which "
    "would stop the event loop",
    "Type 'fiberback.django.in_thread(fn, *args)', which calls fn in a thread of this task and waits; or, "
    "for PostgreSQL, set ENGINE to 'fiberback.django.postgresql'",
)
DJANGO_NO_PORTAL = Message(
    "django-no-portal",
    "You cannot call this from an async context that cannot wait: this task has no portal",
    "Type 'from fiberback.django import get_asgi_application' in asgi.py, or put "
    "'fiberback.django.PortalMiddleware' first in MIDDLEWARE, or call this code with 'await "
    "fiberback.with_portal_run_sync(fn)'; a thread or sync_to_async works, too",
)

TRIO_FIXTURE_IN_SYNC_TEST = Message(
    "trio-fixture-sync",
    "the fixture '{name}' is pytest-trio's, and the test that takes it is not",
    "Put '@pytest.mark.trio' above the test: a synchronous one then runs in a Trio task and waits by "
    "'fiberback.await_'",
)
TRIO_FIXTURE_NOT_YET = Message(
    "trio-fixture-early",
    "{name} has no '{attribute}': it is not set up, for pytest-trio does so when its test begins, and ends it "
    "with the test",
    "Take the fixture as an argument, in place of 'request.getfixturevalue', in the fixture that uses it here",
)
TRIO_FIXTURE_CANCELLED = Message(
    "trio-fixture-cancelled",
    "{name} has no value, for it was cancelled while it was set up",
    "Look at the error that pytest-trio shows when the test ends, or for who cancels the fixture's nursery",
)

# --- other people's extensions: in the words of pyext/fiberback-pyo3 and include/fiberback.h ---------

EXTENSION_ALONE = Message(
    "extension-alone",
    "this extension waits by way of the Python package fiberback, which cannot be imported",
    "type 'pip install fiberback'",
)
EXTENSION_VERSION = Message(
    "extension-version",
    "this extension was built for version {version} of fiberback's C API, and the installed fiberback has "
    "version {installed}",
    "build it again with the fiberback-pyo3 or the fiberback.h of that release",
)

# --- what waits -------------------------------------------------------------------------------------

DUMP_FORMAT = Message(
    "dump-format",
    "there is no dump in the format {format!r}",
    "Type 'format=\"text\"' or 'format=\"json\"'",
)
DUMP_SIGNAL = Message(
    "dump-signal",
    "fiberback.dump_on() takes the number of a signal, and {value!r} is none",
    "Type 'fiberback.dump_on(signal.SIGQUIT)'",
)
DUMP_FILE = Message(
    "dump-file",
    "a dump is written to a file, and {value!r} is none",
    "Type 'file=sys.stderr', or a file that 'open(path, \"a\")' gives, or its descriptor",
)
DUMP_BEFORE_314 = Message(
    "dump-by-signal",
    "CPython up to 3.13 runs no code in process {pid} from outside",
    "Have that program call 'fiberback.dump_on(signal.SIGQUIT)' when it begins; then type 'python -m fiberback "
    "dump --signal QUIT {pid}'",
)
DUMP_NO_ANSWER = Message(
    "dump-no-answer",
    "the main thread of process {pid} has run no Python code for {seconds:g} s",
    "If that program has called 'fiberback.dump_on(signal.SIGQUIT)', type 'python -m fiberback dump --signal QUIT "
    "{pid}'; 'gdb -p {pid}' or 'py-spy dump --native --pid {pid}' shows the C code that it is in",
)
DUMP_NOT_LOADED = Message(
    "dump-not-loaded",
    "process {pid} has not imported fiberback",
    "From CPython 3.14 on 'python -m asyncio pstree {pid}' shows asyncio's own tasks",
)
DUMP_NO_SIGNAL = Message(
    "dump-no-signal",
    "there is no signal {name!r}",
    "Type '--signal QUIT', or another one that 'kill -l' lists",
)
DUMP_NOT_CAUGHT = Message(
    "dump-not-caught",
    "process {pid} does not handle {name}, which would end it: nothing was sent",
    "Have that program call 'fiberback.dump_on(signal.{name})' when it begins",
)

WATCH_THRESHOLD = Message(
    "watch-threshold",
    "fiberback.watch() takes a positive number of seconds, got {value!r}",
    "Type 'fiberback.watch(threshold=0.1)'",
)
WATCH_REPORT = Message(
    "watch-report",
    "fiberback.watch() reports to a function, and {value!r} is none",
    "Type 'report=fn', which is called with a 'fiberback.Blocked', or leave it out: then the logger \"fiberback\" "
    "gets a warning",
)
LOOP_BLOCKED = Message(
    "loop-blocked",
    "the event loop {loop} in thread {thread!r} has been blocked for {seconds:.2f} s so far by {who}, in {call}",
    "Type {instead} instead",
    "\n{stack}{waiting}",
)

LOOP_UNWATCHED = Message(
    "loop-unwatched",
    "fiberback.watch() cannot tell whether the event loop {loop} goes on: its call_soon_threadsafe() raises {error}, and "
    "nothing will be reported of it, or of others like it (stats()['loops_unwatched'] counts them)",
    "Give it a 'call_soon_threadsafe(callback, *args, context=None)', as asyncio's loops have",
)

# --- warnings ----------------------------------------------------------------------------------------

RUN_WORK_LEFT = Message(
    "work-left",
    "fiberback.run() has waited {seconds:g} s for {count} function(s) in the loop's default executor that "
    "have not ended",
    "They go on in their threads: have them look at an Event, say, and end",
)
PARKED_AT_STOP = Message(
    "parked-at-stop",
    "the event loop is to stop, and {what} is parked in fiberback.await_() on the stack that the loop would "
    "return to, so it is cancelled",
    "Start the program with 'fiberback.run(main())', or call 'fiberback.enable(loop)' before the loop runs: "
    "then it would just stay suspended",
)
PARKED_AT_CLOSE = Message(
    "parked-at-close",
    "{reason}, and parked in fiberback.await_() are still: {what}. What they wait for cannot come any more, "
    "so CancelledError is raised in them",
    "Let them end before, as 'asyncio.run(main())' and 'fiberback.run(main())' do with tasks: cancel them, "
    "and 'loop.run_until_complete(asyncio.wait(tasks))'",
)
PARKED_AT_CLOSE_ELSEWHERE = Message(
    "closed-elsewhere",
    "the event loop was closed in a thread where it did not run, and parked in fiberback.await_() are still: "
    "{what}. They cannot be ended from here",
    "Call 'loop.close()' in the loop's thread",
)

# --- blocking --------------------------------------------------------------------------------------

BLOCKING_SWITCH = Message(
    "blocking-switch",
    "fiberback.blocking has no switch {name!r}",
    "The switches are {names}",
)
BLOCKING_WITHOUT = Message(
    "blocking-without",
    "without={value!r} is one string, and not several switches",
    "Type 'without=[{value!r}]'",
)
BLOCKING_ENTERED = Message(
    "blocking-entered",
    "this fiberback.blocking() is in force already, in a 'with' block that has not been left",
    "Type 'with fiberback.blocking():' for each block",
)

# --- parts of other texts ----------------------------------------------------------------------------

RUNNER_END = "Exception ignored while closing the event loop of a thread's own runner"
PARKED_AT_STOP_CANCEL = "the event loop was stopped"
LOOP_WAS_CLOSED = "the event loop was closed"
THREAD_ENDS = "the event loop's thread ends"
LOOP_AT_EXIT = "the interpreter exits"

# --- fiberback.greenlet ----------------------------------------------------------------------------

GREENLET_LOADED = Message(
    "greenlet-loaded",
    "greenlet was imported before fiberback.greenlet.install() was called, and what has imported it keeps it",
    "Call install() first, before anything that imports greenlet (SQLAlchemy, gevent, Playwright)",
)

# --- fiberback.playwright --------------------------------------------------------------------------

PLAYWRIGHT_VERSION = Message(
    "playwright-version",
    "fiberback.playwright does not know this Playwright from within ({error})",
    "Type \"pip install 'playwright>=1.65'\", or call the sync API where no event loop runs",
)

# --- fiberback.gevent ------------------------------------------------------------------------------

GEVENT_BACKEND = Message(
    "gevent-backend",
    "an event loop cannot drive gevent's hub, which runs on libuv, or on a backend without a file of its own",
    "Set GEVENT_LOOP=libev-cext and GEVENT_BACKEND=epoll (kqueue on BSD and macOS) in the environment",
)
GEVENT_SECOND_WAITER = Message(
    "gevent-second-waiter",
    "gevent cannot be waited for here, for other code without a greenlet of its own waits for it already",
    "Start the program with fiberback.gevent.run(main()), or call this by fiberback.gevent.sync_to_async()",
)
GEVENT_AWAITS = Message(
    "gevent-awaits",
    "this greenlet cannot be switched to, for it is a task's, which awaits something else",
    "Switch to it only when it waits for its hub, or use an asyncio.Event",
)
GEVENT_NO_FUTURE = Message(
    "gevent-no-future",
    "future_to_greenlet() that is not to start anything needs a future",
    "Pass asyncio.ensure_future(...), or leave out autostart_future",
)

# --- fiberback.celery ------------------------------------------------------------------------------

CELERY_FAST_LOCALS = Message(
    "celery-fast-locals",
    "USE_FAST_LOCALS has Celery keep the current task for each thread, and here tasks share one",
    "Leave USE_FAST_LOCALS out of the worker's environment",
)
CELERY_LEFT = Message(
    "celery-left",
    "the worker ends, and {jobs} did not end when cancelled",
    "Let CancelledError pass in these tasks, and give those that block in_thread=True",
)

# --- fiberback.dask --------------------------------------------------------------------------------

DASK_QUEUED = Message(
    "dask-queued",
    "Dask's scheduler sends tasks of this executor a few at a time, for it did not take a plugin: {error!r}",
    "Install fiberback where the scheduler runs, too",
)
DASK_SHUT_DOWN = Message(
    "dask-shut-down",
    "this worker's executor has been shut down, for the worker ends or its plugin was removed",
    "Type client.register_plugin(fiberback.dask.Plugin())",
)
