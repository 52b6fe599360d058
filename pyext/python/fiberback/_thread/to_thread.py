"""`to_thread`: a sync function in a worker thread, whose `await_` calls run in the awaiting task."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .._loop.library import current_library
from . import contexts, parent_loop
from .channel import Channel

T = TypeVar("T")
P = ParamSpec("P")


async def to_thread(fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`fn(*args, **kwds)` in a worker thread, in which `await_` works.

    Like `asyncio.to_thread`, and more: what the function awaits runs in the task that awaits
    `to_thread`, so `current_task()`, `asyncio.timeout` and task groups are that task's. The function
    runs in a copy of the caller's context.

    Cancelling the task, by a timeout say, raises CancelledError in the function's `await_`: the one
    that waits, else the next. The task goes on when the function has ended, with the function's
    outcome, or with CancelledError if it never came to an `await_` again; so a function that does
    not call `await_` delays the cancellation until it returns. One that is still queued for a
    thread is not called any more.

    Under Trio it is `trio.to_thread.run_sync`. Raises RuntimeError outside an event loop.
    """
    if current_library() == "trio":
        import trio

        return await trio.to_thread.run_sync(functools.partial(fn, *args, **kwds))
    loop = asyncio.get_running_loop()
    work = _Work(loop, functools.partial(fn, *args, **kwds))
    return await work.run()  # type: ignore[no-any-return]


class _Work:
    def __init__(self, loop: asyncio.AbstractEventLoop, fn: Callable[[], Any]) -> None:
        self._channel = Channel(loop)
        self._fn = fn
        # "begun" or "withdrawn", set once by dict.setdefault, which is atomic between threads.
        self._fate: dict[str, str] = {}
        self._result: Any = None
        self._error: BaseException | None = None

    async def run(self) -> Any:
        channel = self._channel
        context = contextvars.copy_context()
        self._done = channel.loop.run_in_executor(None, context.run, self._call)
        self._done.add_done_callback(lambda _: channel.finish())
        await channel.serve_until_finished(self._withdraw)
        self._done.result()  # the executor's own errors
        error, result = self._error, self._result
        self._error = None
        try:
            if channel.undelivered is not None:
                raise channel.undelivered
            if error is not None:
                raise error
            return result
        finally:
            del error

    def _withdraw(self) -> bool:
        if self._fate.setdefault("is", "withdrawn") != "withdrawn":
            return False
        self._done.cancel()
        return True

    def _call(self) -> None:
        """In the worker thread."""
        if self._fate.setdefault("is", "begun") != "begun":
            return
        try:
            with parent_loop.told(self._channel):
                self._result = self._fn()
        except BaseException as error:
            self._error = contexts.without_our_frames(error)
