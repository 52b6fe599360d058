"""A portal for the length of one call, in a task that may have none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from inspect import CO_COROUTINE, isawaitable, iscoroutine
from typing import Any, ParamSpec, TypeVar

from .. import _messages
from .._fiberback import on_portal, scope, scoped, scoped_call
from .._loop.current_task import current_task
from .task_portal import usable_portal

T = TypeVar("T")
P = ParamSpec("P")

# What `blocking()` has asked before `with_portal_run_sync` calls a function; what it gives is awaited first.
before_sync_call: Callable[[], Awaitable[None] | None] | None = None


async def with_portal_run(
    async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
) -> T:
    """`await async_fn(*args, **kwds)` with a portal for the length of that call.

    In a task that has a portal this is the plain call. Adds no checkpoint. Exceptions and
    cancellation pass as through a plain `await`. Works under any async library. Meaning as in
    greenback.
    """
    try:
        awaitable = async_fn(*args, **kwds)
    except TypeError:
        refuse_what_is_called("with_portal_run", async_fn)
        raise
    try:
        # One native call for all of it: this is what a short call's time goes to.
        return await scoped(awaitable, coroutine_of)
    except TypeError:
        if isawaitable(awaitable):
            raise
        name = _messages.typed(async_fn)
        raise TypeError(_messages.SYNC_FUNCTION.format(name=name, value=awaitable)) from None


async def with_portal_run_sync(sync_fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`sync_fn(*args, **kwds)` with a portal for the length of that call.

    In a task that has a portal this is the plain call. Adds no checkpoint beyond the function's
    own `await_` calls, unless `blocking()` is in force, which lets the loop have a turn first where that is
    late. Works under any async library. Raises TypeError for an async function. Meaning as in greenback otherwise.
    """
    code = getattr(sync_fn, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        raise TypeError(_messages.ASYNC_FUNCTION.format(name=_messages.typed(sync_fn)))
    if code is None:
        refuse_what_is_called("with_portal_run_sync", sync_fn)
    before = before_sync_call  # another thread may take it away
    if before is not None:
        turn = before()
        if turn is not None:
            await turn
    if on_portal() and usable_portal(current_task()):
        return sync_fn(*args, **kwds)
    return await scoped_call(sync_fn, args, kwds)


async def go_on_in_sync(sync_fn: Callable[..., T], /, *args: Any) -> T:
    """`with_portal_run_sync` in the middle of something: it is called at once, so what cleans up does, cancelled or not."""
    if on_portal() and usable_portal(current_task()):
        return sync_fn(*args)
    return await scoped_call(sync_fn, args, {})


def refuse_what_is_called(name: str, function: Any) -> None:
    """For `name(fn())` in place of `name(fn)`."""
    if callable(function):
        return
    if iscoroutine(function):
        function.close()
    raise TypeError(_messages.FUNCTION_CALLED.format(name=name, value=function)) from None


async def through(portal: Any, task: Any) -> Any:
    return await scope(portal, task)


def coroutine_of(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    return awaitable if isinstance(awaitable, Coroutine) else as_coroutine(awaitable)


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def call(sync_fn: Callable[..., T], args: Any, kwds: Any) -> T:
    return sync_fn(*args, **kwds)
