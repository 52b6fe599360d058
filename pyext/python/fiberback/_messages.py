"""The texts of misuse errors. Each says what to type next."""

from __future__ import annotations

NO_PORTAL = (
    "fiberback.await_() was called in a task that has no portal. Type "
    "'await fiberback.ensure_portal()' in this task first, or run this call through "
    "'await fiberback.with_portal_run(async_fn, *args)' or "
    "'await fiberback.with_portal_run_sync(sync_fn, *args)', or start the program with "
    "'fiberback.run(main())', which gives every asyncio task a portal"
)
NO_TASK = (
    "fiberback.await_() was called in a callback of the {library} event loop, outside every task. "
    "Start a task for this code: 'asyncio.ensure_future(fiberback.with_portal_run_sync(fn))'"
)
LOOP_CLOSED = (
    "fiberback.await_() was called in a thread that works for an event loop, and that loop is closed. "
    "Let the loop's main coroutine wait for its threads, as 'await fiberback.to_thread(fn)' does; or, "
    "for a thread that is to outlive it, give the thread a loop of its own: 'fiberback.run(main())'"
)
LOOP_STOPPED = (
    "fiberback.await_() was called in a thread that works for an event loop, and that loop is not "
    "running. Keep it running while its threads work: let its main coroutine wait for them, as "
    "'await fiberback.to_thread(fn)' does, or use 'loop.run_forever()'"
)
LOOP_GONE = (
    "fiberback.await_() in a worker thread was ended because the task at its event loop was: the loop "
    "was closed or the task destroyed. Let the loop's main coroutine wait for its threads, as "
    "'await fiberback.to_thread(fn)' does"
)
LOOP_BUSY = (
    "fiberback.await_() in thread {thread} has waited {seconds:g} s for the event loop of thread "
    "{other} to look at it: something blocks that loop. If it waits for thread {thread}, this is a "
    "deadlock; call blocking functions by 'await fiberback.to_thread(fn)'. Thread {other}:\n"
    "{other_stack}"
)
THREAD_DEADLOCK = (
    "deadlock: fiberback.await_() in thread {thread} waits for the event loop of thread {other}, and "
    "that one is blocked waiting for thread {thread}. Instead of blocking the loop, type "
    "'await fiberback.to_thread(fn)' or 'await asyncio.wrap_future(future)', or "
    "'fiberback.await_(…)' of these. Thread {other}:\n{other_stack}Thread {thread}:\n{stack}"
)
NOT_A_LOOP = (
    "parent_loop() takes an event loop or a TrioToken, got {value!r}: type "
    "'fiberback.parent_loop(asyncio.get_running_loop())' in a coroutine, and enter it in the thread"
)
RUNNER_BUSY = (
    "fiberback.await_() was called while this thread's own runner is running, but no event loop is "
    "set: something has called asyncio._set_running_loop(None)"
)
RUNNER_CLOSE = "this thread's runner cannot be closed from inside its own event loop"
RUNNER_END = "Exception ignored while closing the event loop of a thread's own runner"
NO_AWAIT = (
    "fiberback.await_() was called inside a region where nothing may wait: fiberback.no_await() of "
    "{region}. Move the call out of the region, or pass in what it was to get"
)
NO_AWAIT_ASYNC = (
    "no_await() cannot decorate {name}, an async function, whose own 'await's would wait: use "
    "'with fiberback.no_await():' around the part that must not"
)
NO_AWAIT_GENERATOR = (
    "no_await() cannot decorate {name}, a generator function, whose body does not run in the call: "
    "use 'with fiberback.no_await():' inside"
)
DEADLOCK = (
    "deadlock: {circle}. None of them could ever go on; one must not wait for the other, or only for "
    "some time by 'asyncio.wait(tasks, timeout=…)'"
)
MUST_YIELD = (
    "You must yield to the event loop (try 'await {library}.sleep(0)') after calling "
    "'fiberback.bestow_portal()' on the current task before using the portal; "
    "'await fiberback.ensure_portal()' does both"
)
UNKNOWN_GREENLET = (
    "fiberback does not know this version of the greenlet package ({error}): install greenlet 3.0 to "
    "3.5, or do not switch between greenlets in code that await_() may suspend"
)
UNSUPPORTED_LIBRARY = (
    "fiberback cannot give a portal to a task of {library!r}: asyncio and Trio are supported. "
    "'await fiberback.with_portal_run(fn)' needs no support and works under any library"
)
NO_CURRENT_TASK = "No task is running here: call this from a coroutine run by asyncio or Trio"
NOT_A_COROUTINE = "a coroutine was expected, got {value!r}: type 'fiberback.run(main())'"
NO_SQLALCHEMY = "fiberback.sqlalchemy needs SQLAlchemy: 'pip install fiberback[sqlalchemy]'"
UNKNOWN_SQLALCHEMY = (
    "fiberback.sqlalchemy supports SQLAlchemy 2.0 and 2.1, but this is {version}: "
    "'pip install \"sqlalchemy>=2.0,<2.2\"'"
)
DRIVER_NEEDS_ASYNCIO = (
    "this database driver needs asyncio, and Trio is running: type 'trio.to_thread.run_sync(fn)' to "
    "run the database code in a thread, where it blocks that thread alone"
)
POOL_NEEDS_A_LOOP = (
    "fiberback.dbapi.psycopg_pool.ConnectionPool opens on a running asyncio event loop, and none runs "
    "in this thread: use 'psycopg_pool.ConnectionPool(..., connection_class=psycopg.Connection)' here"
)
DJANGO_NO_PORTAL = (
    "You cannot call this from an async context that cannot wait: this task has no portal. Type "
    "'from fiberback.django import get_asgi_application' in asgi.py, or put "
    "'fiberback.django.PortalMiddleware' first in MIDDLEWARE, or call this code with 'await "
    "fiberback.with_portal_run_sync(fn)'; a thread or sync_to_async works, too"
)
DJANGO_NEEDS_PSYCOPG = (
    "fiberback.django.postgresql needs psycopg 3: type 'pip install fiberback[django]'"
)
RUN_WORK_LEFT = (
    "fiberback.run() has waited {seconds:g} s for {count} function(s) in the loop's default executor "
    "that have not ended: they go on in their threads"
)
PARKED_AT_STOP = (
    "the event loop is to stop, and {what} is parked in fiberback.await_() on the stack that the "
    "loop would return to, so it is cancelled. Start the program with 'fiberback.run(main())', or "
    "call 'fiberback.enable(loop)' before the loop runs: then it would just stay suspended"
)
PARKED_AT_STOP_CANCEL = "the event loop was stopped"
PARKED_AT_CLOSE = (
    "{reason}, and parked in fiberback.await_() are still: {what}. What they wait for cannot come any "
    "more, so CancelledError is raised in them. Let them end before, as 'asyncio.run(main())' and "
    "'fiberback.run(main())' do with tasks: cancel them, and 'loop.run_until_complete(asyncio.wait(tasks))'"
)
PARKED_AT_CLOSE_ELSEWHERE = (
    "the event loop was closed in a thread where it did not run, and parked in fiberback.await_() are "
    "still: {what}. They cannot be ended from here: call 'loop.close()' in the loop's thread"
)
LOOP_WAS_CLOSED = "the event loop was closed"
THREAD_ENDS = "the event loop's thread ends"
LOOP_AT_EXIT = "the interpreter exits"
