"""Portals for the current task, for another one, or for the length of one call.

A task has a portal in one of two ways. Either its own coroutine was replaced by a `Portal`
(`ensure_portal`, `bestow_portal`, the task factories): asking the task tells. Or part of what it
runs is driven through a `Portal` (`with_portal_run…`): `_scoped` tells. That table keeps neither
tasks nor portals alive. An entry is removed by the call that made it; one that never ends, because
its coroutine is suspended in a cycle for ever, leaves its entry behind, so an entry counts only for
the very task it was made for, not for a later one with the same id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar
from weakref import ref

from . import _messages
from ._fiberback import Portal, bestow, current_portal, portal_of
from ._libraries import current_library, current_task

T = TypeVar("T")
P = ParamSpec("P")

# id(task) → id(portal) and the task, for calls of `with_portal_run…` in progress.
_scoped: dict[int, tuple[int, ref[Any]]] = {}


def scoped_portal(task: Any) -> int | None:
    """The id of the portal that a call of `with_portal_run…` in `task` runs through, if any."""
    entry = _scoped.get(id(task))
    return entry[0] if entry is not None and entry[1]() is task else None


def _enter(task: Any, portal: Any) -> tuple[int, ref[Any]] | None:
    if task is None:  # under a library we know nothing about there is nothing to note
        return None
    key = id(task)
    outer = _scoped.get(key)
    _scoped[key] = (id(portal), ref(task))
    return outer


def _leave(task: Any, outer: tuple[int, ref[Any]] | None) -> None:
    if outer is None:
        _scoped.pop(id(task), None)
    else:
        _scoped[id(task)] = outer


def usable_portal(task: Any) -> bool:
    """Whether code running now in `task`, the current one, is on a portal of that task."""
    portal = current_portal()
    if portal is None:
        return False
    if task is None:
        # A library we know nothing about drives the portal; then being on it must do.
        return current_library() not in ("asyncio", "trio")
    return portal is portal_of(task) or scoped_portal(task) == id(portal)


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
    task = current_task()
    if current_portal() is not None and usable_portal(task):
        return await async_fn(*args, **kwds)
    awaitable = async_fn(*args, **kwds)
    coro: Any = awaitable
    if type(awaitable) is not CoroutineType and not isinstance(awaitable, Coroutine):
        coro = as_coroutine(awaitable)
    # `through`, written out here and below: it would be a good part of a short call's cost.
    portal = Portal(coro)
    outer = _enter(task, portal)
    try:
        result: T = await portal
        return result
    finally:
        _leave(task, outer)


async def with_portal_run_sync(sync_fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`sync_fn(*args, **kwds)` with a portal for the length of that call.

    In a task that has a portal this is the plain call. Adds no checkpoint beyond the function's
    own `await_` calls. Works under any async library. Meaning as in greenback.
    """
    task = current_task()
    if current_portal() is not None and usable_portal(task):
        return sync_fn(*args, **kwds)
    portal = Portal(call(sync_fn, args, kwds))
    outer = _enter(task, portal)
    try:
        result: T = await portal
        return result
    finally:
        _leave(task, outer)


async def through(portal: Any, task: Any) -> Any:
    outer = _enter(task, portal)
    try:
        return await portal
    finally:
        _leave(task, outer)


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def call(sync_fn: Callable[..., T], args: Any, kwds: Any) -> T:
    return sync_fn(*args, **kwds)
