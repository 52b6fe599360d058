"""`sync_to_async`: in the thread that asgiref would choose, or on a fiber in the loop's own."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, ParamSpec, TypeVar, overload

from asgiref import sync as _asgiref

from .. import _messages, with_portal_run_sync
from .._deadlock import blocked_thread
from .._thread import own_pool
from . import _executors

P = ParamSpec("P")
R = TypeVar("R")

stock_class: Any = _asgiref.SyncToAsync
# asgiref's own, whatever `install` puts in its place.
stock_call: Any = stock_class.__call__
_STOCK_HANDLER = stock_class.thread_handler
# What `install(on_fiber=True)` sets.
by_default_on_fiber = False
# Seconds between two looks whether the single thread waits for this one.
_LOOK = 0.05


class SyncToAsync(_asgiref.SyncToAsync[P, R]):
    """asgiref's, which can also run its function on a fiber. See `sync_to_async`."""

    def __init__(
        self,
        func: Callable[P, R],
        thread_sensitive: bool = True,
        executor: Any = None,
        context: Context | None = None,
        *,
        on_fiber: bool = False,
    ) -> None:
        if on_fiber and executor is not None:
            raise TypeError(_messages.ASGIREF_EXECUTOR)
        super().__init__(func, thread_sensitive, executor, context)
        self._on_fiber = on_fiber

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._on_fiber:
            return await on_fiber(self, args, kwargs)  # type: ignore[no-any-return]
        return await call(self, *args, **kwargs)  # type: ignore[no-any-return]


@overload
def sync_to_async(
    func: None = ...,
    *,
    thread_sensitive: bool = ...,
    executor: Executor | None = ...,
    context: Context | None = ...,
    on_fiber: bool = ...,
) -> Callable[[Callable[P, R]], SyncToAsync[P, R]]: ...
@overload
def sync_to_async(
    func: Callable[P, R],
    *,
    thread_sensitive: bool = ...,
    executor: Executor | None = ...,
    context: Context | None = ...,
    on_fiber: bool = ...,
) -> SyncToAsync[P, R]: ...
def sync_to_async(
    func: Any = None,
    *,
    thread_sensitive: bool = True,
    executor: Executor | None = None,
    context: Context | None = None,
    on_fiber: bool = False,
) -> Any:
    """An async function of a sync one; also as a decorator, on methods, too.

    As asgiref's it runs in a thread: with `thread_sensitive` in that of the sync code further out, else of the
    `ThreadSensitiveContext`, else of the process; without, in `executor` or the loop's default one.

    With `on_fiber` it runs in the loop's own thread, in the task that awaits it, and no other thread takes part.
    What it waits for, by `async_to_sync` or `fiberback.await_`, suspends the task, and the loop goes on; what
    blocks it (a sync driver, `time.sleep`) holds up the loop. Cancelling the task raises CancelledError where it
    waits. Works under any async library, uvloop and Trio included. Thread-sensitive code that is called below it
    runs in its thread, so on a fiber, too; but several such functions may take turns where they wait.

    Raises TypeError for an async function, and for an `executor` together with `on_fiber` or
    `thread_sensitive`.
    """
    make = functools.partial(
        SyncToAsync,
        thread_sensitive=thread_sensitive,
        executor=executor,
        context=context,
        on_fiber=on_fiber,
    )
    return make if func is None else make(func)


async def on_fiber(self: Any, args: Any, kwds: Any) -> Any:
    """In this thread, in the current task."""
    function = self.func
    if self.context is not None:
        function = functools.partial(self.context.run, function)
    if type(self).thread_handler is not _STOCK_HANDLER:
        # Somebody else's, around the function, as Channels' `database_sync_to_async` has it.
        function = functools.partial(
            self.thread_handler, asyncio._get_running_loop(), sys.exc_info(), [], function
        )
    before = _executors.current()
    here = _executors.Here(before)
    _executors.set_current(here)
    try:
        return await with_portal_run_sync(function, *args, **kwds)
    finally:
        here.end()
        _executors.set_current(before)


async def call(self: Any, /, *args: Any, **kwds: Any) -> Any:
    """`SyncToAsync.__call__`, of asgiref's class, too, but where asgiref's would wait for this very thread."""
    if not self._thread_sensitive:
        return await stock_call(self, *args, **kwds)
    innermost = _executors.current()
    nearest = _executors.nearest(innermost)
    if nearest is not None:
        if _executors.is_here(nearest):
            return await on_fiber(self, args, kwds)
        if isinstance(nearest, _executors.Here):
            _executors.set_current(nearest)  # asgiref's executors do not hand over to it
        return await stock_call(self, *args, **kwds)
    if innermost is not None:
        _executors.set_current(None)  # this task has outlived all that it was started in
    context = self.thread_sensitive_context.get(None)
    pool = _executors.pool_of(context, asyncio.get_running_loop())
    if by_default_on_fiber and getattr(context, "_executor", None) is None:
        return await on_fiber(self, args, kwds)
    if pool is not None and own_pool.of_stack() is pool:
        return await on_fiber(self, args, kwds)
    # asgiref takes it for a deadlock that the single thread is in use by whoever this was started by, and
    # goes on doing so once the thread has refused work.
    before = self.deadlock_context.get(False)
    try:
        if before and context is None and getattr(pool, "_threads", None):
            return await _unless_deadlocked(self, pool, args, kwds)
        return await stock_call(self, *args, **kwds)
    finally:
        self.deadlock_context.set(before)


async def _unless_deadlocked(self: Any, pool: Any, args: Any, kwds: Any) -> Any:
    """In the single thread, however busy, unless that waits for this one."""
    loop = asyncio.get_running_loop()
    mine = threading.get_ident()
    suspected = False
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal suspected, timer
        blocked = any(blocked_thread.is_blocked_on(each.ident, mine) for each in pool._threads)
        if blocked and suspected:  # twice in a row
            scope.reschedule(loop.time())
            return
        suspected = blocked
        timer = loop.call_later(_LOOK, look)

    self.deadlock_context.set(False)
    scope = asyncio.timeout(None)
    timer = loop.call_later(_LOOK, look)
    try:
        async with scope:
            return await stock_call(self, *args, **kwds)
    except TimeoutError:
        if not scope.expired():
            raise
        raise RuntimeError(_messages.ASGIREF_DEADLOCK) from None
    finally:
        timer.cancel()
