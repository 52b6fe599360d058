"""`async_to_sync`, in every place that sync code can be in."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload

from asgiref import sync as _asgiref

from .. import _messages, await_, to_thread
from .._loop.library import is_trio_running
from .._thread import asgiref_worker
from ._call import Call, take_over

P = ParamSpec("P")
R = TypeVar("R")

# The loop that awaits the `sync_to_async` that a thread is at, or was at last, and its process.
_known: Any = _asgiref.SyncToAsync.threadlocal
_process = os.getpid()
stock_class: Any = _asgiref.AsyncToSync
# asgiref's own, whatever `install` puts in its place.
stock_call: Any = stock_class.__call__


class AsyncToSync(_asgiref.AsyncToSync[P, R]):
    """asgiref's, which also waits where an event loop runs. See `async_to_sync`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = call(self, *args, **kwargs)
        return result


@overload
def async_to_sync(
    awaitable: None = ..., *, force_new_loop: bool = ...
) -> Callable[[Callable[P, Awaitable[R]]], AsyncToSync[P, R]]: ...
@overload
def async_to_sync(
    awaitable: Callable[P, Awaitable[R]], *, force_new_loop: bool = ...
) -> AsyncToSync[P, R]: ...
def async_to_sync(awaitable: Any = None, *, force_new_loop: bool = False) -> Any:
    """A sync function of an async one; also as a decorator, on methods, too. Called, it waits

    - where an event loop runs, in any function below a task or callback of it: the caller is suspended, as by
      `fiberback.await_`, and the async function runs in its task and context. On stock asyncio loops nothing
      needs to be prepared; in tasks of uvloop and Trio that have no portal RuntimeError is raised, with the
      line to type;
    - in a thread of `sync_to_async`: in a task of the loop that awaits that;
    - elsewhere, or with `force_new_loop`: on an asyncio loop of its own in another thread, as asgiref's.

    Context variables and the exception being handled are the same on both sides; cancelling the task that waits
    cancels the async function.
    """
    if awaitable is None:
        return functools.partial(AsyncToSync, force_new_loop=force_new_loop)
    return AsyncToSync(awaitable, force_new_loop)


def call(self: Any, /, *args: Any, **kwds: Any) -> Any:
    """`AsyncToSync.__call__`, of asgiref's class, too."""
    if asyncio._get_running_loop() is not None or is_trio_running():
        if self.force_new_loop:
            return await_(_in_new_loop(self, args, kwds))
        return await_(_begun(self, args, kwds))
    known: dict[str, Any] = _known.__dict__  # one look is what one attribute takes
    loop = known.get("main_event_loop")
    # A forked child's is not there.
    if loop is None or self.force_new_loop or known.get("main_event_loop_pid") != _process:
        return stock_call(self, *args, **kwds)
    awaitable = _begun(self, args, kwds)
    work = Call(loop, awaitable, known.get("task_context"))
    if work.start():
        return work.result()
    # The loop is closed: then on a new one.
    again = copy.copy(self)
    again.awaitable = lambda: awaitable
    return stock_call(again)


def _begun(self: Any, args: Any, kwds: Any) -> Awaitable[Any]:
    function = self.awaitable
    if not callable(function):
        if inspect.iscoroutine(function):
            function.close()
        raise TypeError(_messages.FUNCTION_CALLED.format(name="async_to_sync", value=function))
    awaitable: Awaitable[Any] = function(*args, **kwds)
    return awaitable


async def _in_new_loop(self: Any, args: Any, kwds: Any) -> Any:
    """As asgiref does it where no loop runs: from a thread without."""

    def work() -> Any:
        asgiref_worker.rehome()
        try:
            return stock_call(self, *args, **kwds)
        finally:
            afterwards.append(contextvars.copy_context())

    afterwards: list[contextvars.Context] = []
    try:
        return await to_thread(work)
    finally:
        if afterwards:
            take_over(afterwards[0])


def _after_fork() -> None:
    global _process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
