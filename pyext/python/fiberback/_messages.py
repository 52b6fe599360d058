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
NO_LOOP = (
    "fiberback.await_() was called in a thread where no event loop is running. Start one with "
    "'fiberback.run(main())', or under Trio with 'trio.run(fiberback.with_portal_run, main)'; "
    "from a worker thread use 'asyncio.run_coroutine_threadsafe(coro, loop).result()'"
)
MUST_YIELD = (
    "You must yield to the event loop (try 'await {library}.sleep(0)') after calling "
    "'fiberback.bestow_portal()' on the current task before using the portal; "
    "'await fiberback.ensure_portal()' does both"
)
FOREIGN_GREENLET = (
    "fiberback.await_() was called in a greenlet that was started inside the portal, and the "
    "awaitable needs the event loop. Call await_() in the function that started the greenlet, or "
    "give the greenlet a portal of its own: run the function in a new task with "
    "'fiberback.with_portal_run_sync(fn)'"
)
UNSUPPORTED_LIBRARY = (
    "fiberback cannot give a portal to a task of {library!r}: asyncio and Trio are supported. "
    "'await fiberback.with_portal_run(fn)' needs no support and works under any library"
)
NO_CURRENT_TASK = "No task is running here: call this from a coroutine run by asyncio or Trio"
NOT_A_COROUTINE = "a coroutine was expected, got {value!r}: type 'fiberback.run(main())'"
PARKED_AT_STOP = (
    "the event loop is to stop, and {what} is parked in fiberback.await_() on the stack that the "
    "loop would return to, so it is cancelled. Start the program with 'fiberback.run(main())', or "
    "call 'fiberback.enable(loop)' before the loop runs: then it would just stay suspended"
)
PARKED_AT_STOP_CANCEL = "the event loop was stopped"
