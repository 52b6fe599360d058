"""A portal for a task that already exists.

Trio's tasks and asyncio's pure-Python ones keep their coroutine in an attribute, asyncio's C tasks in a field
of their structure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from types import SimpleNamespace
from typing import Any

from . import messages, slots
from .portal import Portal, unwrap_idle
from .switching import can_switch


def _c_task() -> Any:
    """asyncio's Task in C, if there is one."""
    return getattr(sys.modules.get("_asyncio", SimpleNamespace()), "Task", None)


def _coroutine_of(task: Any) -> Any:
    get = getattr(task, "get_coro", None)
    return get() if get is not None else getattr(task, "coro", None)


def portal_of(task: Any, /) -> Portal | None:
    """The portal that a task steps, or None."""
    if type(task) is Portal:
        return task
    coro = _coroutine_of(task)
    return coro if type(coro) is Portal else None


def _located(task: Any) -> tuple[Any, Callable[[Any], bool]]:
    """The task's coroutine, and what puts another one in its place."""
    coro = _coroutine_of(task)
    if coro is None:
        raise TypeError(messages.NOT_A_TASK)
    c_task = _c_task()
    if c_task is not None and isinstance(task, c_task):
        return coro, lambda new: slots.replace(task, c_task, coro, new)
    for name in ("coro", "_coro"):
        if getattr(task, name, None) is coro:

            def put(new: Any, name: str = name) -> bool:
                setattr(task, name, new)
                return True

            return coro, put
    raise RuntimeError(messages.TASK_KEEPS_COROUTINE)


def bestow(task: Any, wrap: Callable[[Any], Any] | None = None, /) -> Portal:
    """Put a portal around the coroutine of a task; it serves from the next step on."""
    coro, put = _located(task)
    if type(coro) is Portal:
        return coro
    portal = Portal(coro if wrap is None else wrap(coro))
    if wrap is not None and _coroutine_of(task) is not coro:
        raise RuntimeError(messages.TASK_CHANGED)
    if can_switch and not put(portal):  # else it would be of no use
        raise RuntimeError(messages.TASK_KEEPS_COROUTINE)
    return portal


def unbestow(task: Any, /) -> bool:
    """Take a portal off a task that is between two steps. False if there is none, or await_() waits in it."""
    coro, put = _located(task)
    inner = unwrap_idle(coro) if type(coro) is Portal else None
    return inner is not None and put(inner)


def context_of(task: Any, /) -> Context | None:
    """The contextvars context that an asyncio task runs in, or None."""
    get = getattr(task, "get_context", None)
    if get is not None:
        context: Context | None = get()
        return context
    context = getattr(task, "_context", None)
    if context is None and isinstance(task, _c_task() or ()):  # 3.11 keeps it to itself
        import gc

        found = [thing for thing in gc.get_referents(task) if type(thing) is Context]
        context = found[0] if len(found) == 1 else None
    return context
