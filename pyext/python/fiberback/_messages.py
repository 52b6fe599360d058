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
PARKED_AT_STOP = (
    "the event loop is to stop, and {what} is parked in fiberback.await_() on the stack that the "
    "loop would return to, so it is cancelled. Start the program with 'fiberback.run(main())', or "
    "call 'fiberback.enable(loop)' before the loop runs: then it would just stay suspended"
)
PARKED_AT_STOP_CANCEL = "the event loop was stopped"
