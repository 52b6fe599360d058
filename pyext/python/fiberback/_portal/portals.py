"""Portals for the current task, for another one, or for the length of one call.

A task has a portal in one of two ways. Either its own coroutine was replaced by a `Portal`
(`ensure_portal`, `bestow_portal`, the task factories): asking the task tells. Or part of what it
runs is driven through a `Portal` (`with_portal_run…`), which the native layer notes until that has
ended: `scoped_portal` tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from inspect import CO_COROUTINE
from typing import Any, ParamSpec, TypeVar

from .. import _messages
from .._fiberback import (
    bestow,
    current_portal,
    on_portal,
    portal_of,
    scope,
    scoped,
    scoped_call,
    scoped_portal,
)
from .._loop.library import current_library, current_task

T = TypeVar("T")
P = ParamSpec("P")


def usable_portal(task: Any) -> bool:
    """Whether code running now in `task`, the current one, is on a portal of that task."""
    portal = current_portal()
    if portal is None:
        return False
    if task is None:
        # A library we know nothing about drives the portal; then being on it must do.
        return current_library() not in ("asyncio", "trio")
    return portal is portal_of(task) or portal is scoped_portal(task)


def has_portal_anywhere(task: Any) -> bool:
    """Whether `task` has a portal, be it one that takes effect with its next step."""
    done = getattr(task, "done", None)
    if done is not None and done():
        return False
    return portal_of(task) is not None or scoped_portal(task) is not None


def has_portal(task: Any = None) -> bool:
    """Whether `task`, by default the current one, can use `await_`.

    Never raises: outside every task the answer is False. For a task other than the current one
    a portal that takes effect with its next step counts; for the current one it does not yet.
    Meaning as in greenback.
    """
    running = current_task()
    if task is None or task is running:
        return usable_portal(running)
    return has_portal_anywhere(task)


def bestow_portal(task: Any) -> None:
    """Give `task`, an `asyncio.Task` or a Trio task, a portal for the rest of its life.

    If it has one, nothing happens. The portal works from the task's next step on, so a task that
    bestows one on itself must yield to its event loop before it can `await_`; `ensure_portal`
    does that. Raises TypeError for anything that is not such a task, and RuntimeError for a task
    whose coroutine cannot be replaced. Meaning as in greenback.
    """
    if scoped_portal(task) is None:
        bestow(task)


async def ensure_portal() -> None:
    """Give the current task a portal for the rest of its life, unless it has one.

    Always a checkpoint: other tasks run, and cancellation is delivered here. Raises RuntimeError
    outside asyncio and Trio. Meaning as in greenback.
    """
    task = current_task()
    if task is None:
        library = current_library()
        if library is None or library == "asyncio":
            raise RuntimeError(_messages.NO_CURRENT_TASK)
        raise RuntimeError(_messages.UNSUPPORTED_LIBRARY.format(library=library))
    if not usable_portal(task):
        bestow(task)
    if current_library() == "trio":
        import trio

        await trio.lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)


async def with_portal_run(
    async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
) -> T:
    """`await async_fn(*args, **kwds)` with a portal for the length of that call.

    In a task that has a portal this is the plain call. Adds no checkpoint. Exceptions and
    cancellation pass as through a plain `await`. Works under any async library. Meaning as in
    greenback.
    """
    # One native call for all of it: this is what a short call's time goes to.
    return await scoped(async_fn(*args, **kwds), coroutine_of)


async def with_portal_run_sync(sync_fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`sync_fn(*args, **kwds)` with a portal for the length of that call.

    In a task that has a portal this is the plain call. Adds no checkpoint beyond the function's
    own `await_` calls. Works under any async library. Raises TypeError for an async function. Meaning
    as in greenback otherwise.
    """
    code = getattr(sync_fn, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        name = getattr(sync_fn, "__qualname__", repr(sync_fn))
        raise TypeError(_messages.ASYNC_FUNCTION.format(name=name))
    if on_portal() and usable_portal(current_task()):
        return sync_fn(*args, **kwds)
    return await scoped_call(sync_fn, args, kwds)


async def through(portal: Any, task: Any) -> Any:
    return await scope(portal, task)


def coroutine_of(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    return awaitable if isinstance(awaitable, Coroutine) else as_coroutine(awaitable)


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def call(sync_fn: Callable[..., T], args: Any, kwds: Any) -> T:
    return sync_fn(*args, **kwds)
