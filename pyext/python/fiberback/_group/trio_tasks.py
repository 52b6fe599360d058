"""A group's tasks on Trio: those of a nursery."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import trio

from . import child


class Task:
    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._value: Any = None
        self._error: Exception | None = CancelledError()

    async def run(self, fn: Callable[..., Any], args: Any, kwds: Any, leave_room: Any) -> None:
        try:
            with self._scope:
                self._value = await child.call(fn, args, kwds)
                self._error = None
        except Exception as error:
            self._error = error
            raise
        finally:
            self._done.set()
            leave_room()

    async def result(self) -> Any:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value

    async def cancel(self) -> bool:
        if self._done.is_set():
            return False
        self._scope.cancel()
        return True

    def is_done(self) -> bool:
        return self._done.is_set()


class Tasks:
    def __init__(self, limit: int | None) -> None:
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._token = trio.lowlevel.current_trio_token()
        self._room = None if limit is None else trio.Semaphore(limit)

    async def enter(self) -> None:
        self._nursery = await self._manager.__aenter__()

    async def leave(self, *raised: Any) -> Any:
        return await self._manager.__aexit__(*raised)

    async def start(self, fn: Callable[..., Any], args: Any, kwds: Any) -> Task:
        if self._room is not None:
            await self._room.acquire()
        task = Task()
        try:
            self._nursery.start_soon(task.run, fn, args, kwds, self._leave_room, name=fn)
        except BaseException:
            self._leave_room()
            raise
        return task

    def _leave_room(self) -> None:
        if self._room is not None:
            self._room.release()

    def abandon(self) -> None:
        """From any thread: what still runs is cancelled, and not waited for."""
        if self._nursery.child_tasks:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
