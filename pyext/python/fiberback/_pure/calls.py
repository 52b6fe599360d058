"""`with_portal_run…`: portals that are made for one call, and note that they serve the current task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any

from . import messages, scopes
from .call import Call
from .hooks import current_task, hooks
from .portal import Portal, usable_stack


def scoped_portal(task: Any, /) -> Portal | None:
    """The portal of a call in progress that serves 'task', or None."""
    portal: Portal | None = scopes.portal_for(task)
    return portal


def scope(portal: Portal, task: Any, /) -> Portal:
    """The portal serves 'task', if that is not None, until its coroutine has ended."""
    if type(portal) is not Portal:
        raise TypeError(messages.SCOPE_USAGE)
    if task is not None:
        scopes.enter(portal, task)
    return portal


def _is_on_usable_portal() -> bool:
    return usable_stack() is not None and (hooks.is_usable is None or hooks.is_usable())


def scoped(awaitable: Any, coroutine_of: Callable[[Any], Any], /) -> Awaitable[Any]:
    """What to await in place of 'awaitable', for it to run on a portal."""
    try:
        if _is_on_usable_portal():
            result: Awaitable[Any] = awaitable
            return result
        coro = awaitable if type(awaitable) is CoroutineType else coroutine_of(awaitable)
        return scope(Portal(coro), current_task())
    except BaseException:
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        raise


def scoped_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
) -> Awaitable[Any]:
    """A portal of its own for 'function(*args, **kwargs)', to be awaited."""
    if not (isinstance(args, tuple) and isinstance(kwargs, dict)):
        raise TypeError(messages.CALL_USAGE)
    return scope(Portal(Call(function, args, kwargs)), current_task())
