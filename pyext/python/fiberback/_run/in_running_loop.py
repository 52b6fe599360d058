"""What runs a loop, called where one runs: the caller waits for that, or another loop runs in its place."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import AbstractEventLoop, _set_running_loop
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable
from contextvars import Context
from inspect import CORO_CREATED
from typing import Any, TypeVar

from .._fiberback import await_

T = TypeVar("T")


def suspend(loop: AbstractEventLoop, awaitable: Awaitable[T], context: Context | None = None) -> T:
    """The caller waits; the loop, which runs in this thread, goes on."""
    try:
        return await_(_in_task(loop, awaitable, context))
    finally:
        if inspect.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == CORO_CREATED:
            awaitable.close()  # it could not even begin


async def _in_task(loop: AbstractEventLoop, awaitable: Awaitable[T], context: Context | None) -> T:
    if context is not None and asyncio.iscoroutine(awaitable):
        return await loop.create_task(awaitable, context=context)
    return await asyncio.ensure_future(awaitable, loop=loop)


def in_place(
    running: AbstractEventLoop | None, method: Callable[..., Any], *args: Any, **kwds: Any
) -> Any:
    """A loop that does not run, in the place of the one that does, which stands still meanwhile."""
    if running is None:
        return method(*args, **kwds)
    task = asyncio.current_task(running)
    if task is not None:
        _leave_task(running, task)
    _set_running_loop(None)
    try:
        return method(*args, **kwds)
    finally:
        _set_running_loop(running)
        if task is not None:
            _enter_task(running, task)
