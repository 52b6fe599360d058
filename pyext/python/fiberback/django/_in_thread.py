"""A thread for database code that blocks: other databases beside the ones that wait."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import connections

from .. import await_
from ..dbapi._tasks import TaskLocal

T = TypeVar("T")
P = ParamSpec("P")


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="fiberback.django")


def _end(thread: ThreadPoolExecutor) -> None:
    thread.submit(connections.close_all)
    thread.shutdown(wait=False)


_threads = TaskLocal(_new_thread, _end)


def in_thread(fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`fn(*args, **kwds)` in the current task's own thread; the task waits, and the loop goes on.

    For databases whose ENGINE blocks (SQLite, MySQL), in a project whose other databases are
    fiberback's. Like `await_` it is called by sync code, in a task that can wait::

        def archive(order):
            fiberback.django.in_thread(Log.objects.using("sqlite").create, order=order.pk)

    All calls of a task run in the same thread, on connections of their own, which stay open from one
    call to the next and are closed at the task's end. A transaction is one call: put `atomic` and
    what it is for in a function. Context variables that are set in it are not seen outside. What `fn`
    awaits with `await_` runs on the task's loop. Where no loop runs, it is the plain call.

    If the task is cancelled it goes on at once, and the function in its thread.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return fn(*args, **kwds)
    context = contextvars.copy_context()
    call = functools.partial(context.run, fn, *args, **kwds)
    # A coroutine, for `fn` must not have run where this is refused.
    waiting = _in(_threads.get(), call)
    try:
        return await_(waiting)
    finally:
        waiting.close()


async def _in(thread: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, call)
