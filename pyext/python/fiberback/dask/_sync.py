"""Dask's sync client where an event loop runs: the caller is suspended, and its loop goes on.

`distributed.utils.sync` blocks its thread until the client's loop, in another one, has the answer. And in the client's
own loop, as in a task of `Executor`, its methods give coroutines, which sync code cannot await.
"""

# Dask has few types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
from asyncio import _get_running_loop
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from dask.utils import parse_timedelta
from distributed import utils

from .._fiberback import await_
from .._in_force import Handle, InForce
from .._loop.library import current_library
from .._replacements import Replacement
from .._sync import caller
from ._executor import current

_in_force: InForce[Replacement] = InForce()


def install() -> Installed:
    """Have the methods of Dask's sync client (`client.gather`, `future.result`, `client.compute(..., sync=True)`) suspend
    their caller where an event loop runs, in the whole process, until `uninstall()`.

    With a portal the caller's task is suspended, on a stock asyncio loop the caller is parked; where nothing can wait (uvloop
    without a portal) the thread is blocked, as by Dask. Cancelling the caller cancels what it waits for, not the computation.
    A timeout raises TimeoutError, as ever. `with install():` undoes it at its end, unless it had been installed before.
    """
    return Installed(_in_force, _in_force.put(_replaced))


def uninstall() -> None:
    """Undo `install()`; calls that wait go on. Does nothing where nothing is installed."""
    _in_force.take_back(_in_force.current)


class Installed(Handle[Replacement]):
    """What `install` returns. As a context manager it undoes at its end what it did."""

    def uninstall(self) -> None:
        """Put back Dask's function, if it was replaced by this `install()`."""
        self._take_back()


def _replaced() -> Replacement:
    return Replacement(utils, "sync", _suspending(utils.sync)).put()


def _suspending(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sync(
        loop: Any,
        func: Callable[..., Any],
        *args: Any,
        callback_timeout: str | float | timedelta | None = None,
        **kwargs: Any,
    ) -> Any:
        of_client: asyncio.AbstractEventLoop = loop.asyncio_loop
        if (
            current_library() is None
            or of_client.is_closed()
            or not of_client.is_running()
            or of_client is _get_running_loop()  # which Dask refuses
        ):
            return original(loop, func, *args, callback_timeout=callback_timeout, **kwargs)
        timeout = parse_timedelta(callback_timeout, "s") if callback_timeout is not None else None
        return caller.wait(of_client, _call(func, args, kwargs, timeout))

    return sync


async def _call(func: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None) -> Any:
    awaitable = func(*args, **kwargs)
    return await (asyncio.wait_for(awaitable, timeout) if timeout is not None else awaitable)


def in_tasks() -> None:
    """Have clients in tasks of `Executor` give values, for good. Does nothing the second time."""
    mixin: Any = utils.SyncMethodMixin
    if not hasattr(mixin.sync, "_fiberback"):
        mixin.sync = _awaited(mixin.sync)


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def sync(
        self: Any, func: Any, *args: Any, asynchronous: bool | None = None, **kwargs: Any
    ) -> Any:
        result = method(self, func, *args, asynchronous=asynchronous, **kwargs)
        if asynchronous is None and self.asynchronous and _is_in_task():
            return await_(result)
        return result

    sync._fiberback = True  # type: ignore[attr-defined]
    return sync


def _is_in_task() -> bool:
    task = current.get()
    return task is not None and _get_running_loop() is not None and asyncio.current_task() is task
