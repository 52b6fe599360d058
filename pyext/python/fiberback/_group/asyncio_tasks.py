"""A group's tasks on asyncio: those of an `asyncio.TaskGroup`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from . import child


class Task:
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    async def result(self) -> Any:
        if not self._task.done():
            await asyncio.wait([self._task])
        return self._task.result()

    async def cancel(self) -> bool:
        return self._task.cancel()

    def is_done(self) -> bool:
        return self._task.done()


class Tasks:
    def __init__(self, limit: int | None) -> None:
        self._group = asyncio.TaskGroup()
        self._loop = asyncio.get_running_loop()
        self._room = None if limit is None else asyncio.Semaphore(limit)
        self._running: set[asyncio.Task[Any]] = set()

    async def enter(self) -> None:
        await self._group.__aenter__()

    async def leave(self, *raised: Any) -> Any:
        return await self._group.__aexit__(*raised)

    async def start(self, fn: Callable[..., Any], args: Any, kwds: Any) -> Task:
        if self._room is not None:
            await self._room.acquire()
        work = child.call(fn, args, kwds)
        try:
            task = self._group.create_task(work)
        except BaseException:
            work.close()
            if self._room is not None:
                self._room.release()
            raise
        self._running.add(task)
        task.add_done_callback(self._has_ended)
        return Task(task)

    def _has_ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if self._room is not None:
            self._room.release()

    def abandon(self) -> None:
        """From any thread: what still runs is cancelled, and not waited for."""
        for task in tuple(self._running):
            with contextlib.suppress(RuntimeError):  # a closed loop runs nothing
                self._loop.call_soon_threadsafe(task.cancel)
