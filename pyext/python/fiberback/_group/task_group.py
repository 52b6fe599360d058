"""`TaskGroup`: tasks that sync code starts, and which have ended when its block has."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .. import _messages
from .._fiberback import await_
from .._loop.library import current_library
from . import asyncio_tasks

T = TypeVar("T")
P = ParamSpec("P")


class TaskHandle(Generic[T]):
    """One task of a `TaskGroup`; `start` returns it."""

    __slots__ = ("_task",)

    def __init__(self, task: Any) -> None:
        self._task = task

    def result(self) -> T:
        """Wait until the task has ended; what it returned.

        Raises what it raised (and so will the group, when its block ends). If it was cancelled, that is
        `asyncio.CancelledError`, as from `asyncio.Task.result`; on Trio, `concurrent.futures.CancelledError`.
        Cancelling this wait does not cancel the task.
        """
        result: T = await_(self._task.result())
        return result

    def cancel(self) -> bool:
        """Ask the task to end: what it waits for is cancelled. The group goes on without it.

        False if it has ended already.
        """
        return await_(self._task.cancel())  # type: ignore[no-any-return]

    def done(self) -> bool:
        """Whether the task has ended; waits for nothing."""
        return self._task.is_done()  # type: ignore[no-any-return]


def check(fn: Any) -> None:
    """Raises TypeError for what is no function."""
    if not callable(fn):
        if inspect.iscoroutine(fn):
            fn.close()
        raise TypeError(_messages.GROUP_WHAT.format(value=fn))


class TaskGroup:
    """Tasks that overlap, for sync code: all of them have ended when the block ends.

    ::

        with fiberback.TaskGroup() as group:
            users = group.start(client.get, "/users")      # async functions
            report = group.start(make_report, month=11)    # and sync ones, which may `await_`
        print(users.result(), report.result())

    Works wherever `await_` does: on a portal, on a stock asyncio loop, in worker threads, without a loop, and
    on Trio. The tasks are those of an `asyncio.TaskGroup`, or of a nursery on Trio, each with a portal and a
    copy of the caller's context; what is said of failures and cancellation there holds here:

    - The end of the block waits for all tasks.
    - When a task fails, the others are cancelled, and so is what the block waits for. The end of the block
      raises an ExceptionGroup of all failures.
    - When the block fails, or the task around it is cancelled, the tasks are cancelled. An error of the block
      is in the ExceptionGroup; a cancellation comes out as one.

    Tasks run while the block, or other code of its thread, waits: a block that never waits starts them at its
    end.

    `limit`: so many tasks at once; `start` waits for room. ValueError if it is less than 1.
    """

    __slots__ = ("_limit", "_tasks")

    def __init__(self, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(_messages.GROUP_LIMIT.format(limit=limit))
        self._limit = limit
        self._tasks: Any = None

    def __enter__(self) -> TaskGroup:
        if self._tasks is not None:
            raise RuntimeError(_messages.GROUP_ENTERED)
        self._tasks = await_(self._enter())
        return self

    async def _enter(self) -> Any:
        library = current_library()
        tasks: Any
        if library == "asyncio":
            tasks = asyncio_tasks.Tasks(self._limit)
        elif library == "trio":
            from . import trio_tasks  # imports trio

            tasks = trio_tasks.Tasks(self._limit)
        else:
            raise RuntimeError(_messages.GROUP_LIBRARY.format(library=library))
        await tasks.enter()
        return tasks

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await_(self._tasks.leave(kind, error, traceback))  # type: ignore[no-any-return]
        finally:
            self._tasks.abandon()  # none is left, unless this code may no longer wait

    @overload
    def start(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
    ) -> TaskHandle[T]: ...
    @overload
    def start(self, fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> TaskHandle[T]: ...
    def start(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> TaskHandle[Any]:
        """Begin `fn(*args, **kwds)`, sync or async, in a task of its own.

        Raises RuntimeError outside of the block, and once the group is being cancelled; TypeError for what
        cannot be called.
        """
        check(fn)
        if self._tasks is None:
            raise RuntimeError(_messages.GROUP_NOT_ENTERED)
        return TaskHandle(await_(self._tasks.start(fn, args, kwds)))
