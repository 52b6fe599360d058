"""`BlockingPortal`: a `LoopThread` in the words of AnyIO's portals."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

from .. import _messages
from .loop_thread import LoopThread

T = TypeVar("T")


class BlockingPortal(LoopThread):
    """What `start_blocking_portal` gives: functions, async or not, called in the loop of another thread.

    The end of its block waits for the tasks that it has started; an exception in the block cancels them first.
    """

    def __init__(self, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._tasks: set[asyncio.Task[Any]] = set()

    @overload
    def call(self, func: Callable[..., Awaitable[T]], *args: object) -> T: ...
    @overload
    def call(self, func: Callable[..., T], *args: object) -> T: ...
    def call(self, func: Callable[..., Any], *args: object) -> Any:
        """Call `func` in the loop, and wait for what it returns, or for its result if it is async.

        All that one caller calls so runs in one task there, so a cancel scope may go from one call to the next.
        """
        return self.run(_call(partial(func, *args)))

    @overload
    def start_task_soon(
        self, func: Callable[..., Awaitable[T]], *args: object, name: object = ...
    ) -> concurrent.futures.Future[T]: ...
    @overload
    def start_task_soon(
        self, func: Callable[..., T], *args: object, name: object = ...
    ) -> concurrent.futures.Future[T]: ...
    def start_task_soon(
        self, func: Callable[..., Any], *args: object, name: object = None
    ) -> concurrent.futures.Future[Any]:
        """Call `func` in a task of its own; cancelling the future cancels that."""
        return self.submit(self._in_task(partial(func, *args), name))

    def start_task(
        self, func: Callable[..., Awaitable[T]], *args: object, name: object = None
    ) -> tuple[concurrent.futures.Future[T], Any]:
        """`start_task_soon`, with `task_status=` for `func`, and wait until that calls `task_status.started(value)`.

        Returns the future and the value. Raises what `func` raises before that, RuntimeError if it ends without.
        """
        status = _TaskStatus()
        future: concurrent.futures.Future[T] = self.start_task_soon(
            partial(func, *args, task_status=status), name=name
        )
        return future, self.run(status.wait(future))

    def wrap_async_context_manager(
        self, cm: AbstractAsyncContextManager[T]
    ) -> AbstractContextManager[T]:
        """`wrap_context` of a manager."""
        return self.wrap_context(cm)

    async def _in_task(self, function: Callable[[], Any], name: object) -> Any:
        task: Any = asyncio.current_task()
        task.set_name(str(name or getattr(function, "func", function)))
        self._tasks.add(task)
        try:
            return await _call(function)
        finally:
            self._tasks.discard(task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            if self._loop is not None and not self._is_closed:
                self.run(self._end_of_tasks(is_cancelled=error is not None))
        finally:
            swallowed = super().__exit__(kind, error, traceback)
        return swallowed

    async def _end_of_tasks(self, is_cancelled: bool) -> None:
        await asyncio.sleep(0)  # those that were just submitted begin
        while self._tasks:
            if is_cancelled:
                for task in self._tasks:
                    task.cancel()
            await asyncio.wait(self._tasks)


class _TaskStatus:
    """Handed to the function that `start_task` starts."""

    def __init__(self) -> None:
        self._started: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def started(self, value: object = None) -> None:
        self._started.set_result(value)

    async def wait(self, future: concurrent.futures.Future[Any]) -> Any:
        started = asyncio.wrap_future(self._started)
        ended = asyncio.wrap_future(future)
        try:
            await asyncio.wait((started, ended), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            ended.cancel()  # and with it the task
            raise
        if started.done():
            return started.result()
        await ended
        raise RuntimeError(_messages.PORTAL_NOT_STARTED)


async def _call(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value
