"""AnyIO's worker threads on asyncio: `anyio.to_thread.run_sync`, and so Starlette and FastAPI.

Each call in such a thread has a channel of its own. What the thread awaits runs inside the cancel scope
that AnyIO has for the call, for as long as it is being awaited.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from types import CodeType
from typing import Any

from .._fiberback import local_of
from .channel import Channel


class _Latest:
    """The channel of a thread's latest call. When the next one comes, or the thread ends, it is closed."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def __del__(self) -> None:
        self.channel.close()


class _Mine(threading.local):
    latest: _Latest | None = None


_mine = _Mine()


def find_channel() -> Channel | None:
    """The channel of the call that runs on this stack, if it is AnyIO's."""
    backend: Any = sys.modules.get("anyio._backends._asyncio")
    run = getattr(getattr(backend, "WorkerThread", None), "run", None)
    code = getattr(run, "__code__", None)
    if code is None:
        return None
    future = _local(code, "future")
    if not asyncio.isfuture(future):
        return None
    latest = _mine.latest
    if latest is None or latest.channel.result is not future:
        channel = _AnyIOChannel(future, _local(code, "cancel_scope"), backend)
        latest = _mine.latest = _Latest(channel)
    return latest.channel


def _local(code: CodeType, name: str) -> Any:
    """What the thread's function knows by that name."""
    names = code.co_varnames
    return local_of(code, names.index(name)) if name in names else None


class _AnyIOChannel(Channel):
    ends_with_result = True

    def __init__(self, future: asyncio.Future[Any], scope: Any, backend: Any) -> None:
        super().__init__(future.get_loop(), future)
        self._scope = scope
        # A task's scope is in this table, and the task in its scope.
        self._states: Any = getattr(backend, "_task_states", None)
        self._state_class: Any = getattr(backend, "TaskState", None)

    def before_request(self, task: asyncio.Task[Any]) -> None:
        if self._scope is None or self._states is None or self._state_class is None:
            return
        state = self._states.get(task)
        if state is None:
            self._states[task] = self._state_class(None, self._scope)
        elif state.cancel_scope is not self._scope:
            return  # the thread has entered one inside
        self._scope._tasks.add(task)
        if self._is_cancelled():
            self._cancelled = asyncio.CancelledError()

    def _is_cancelled(self) -> bool:
        """AnyIO tells only those that are in the scope when it is cancelled."""
        scope = self._scope
        while scope is not None:
            if scope.cancel_called:
                return True
            scope = None if scope.shield else getattr(scope, "_parent_scope", None)
        return False

    def after_request(self, task: asyncio.Task[Any]) -> None:
        if self._scope is not None and self._states is not None:
            state = self._states.get(task)
            if state is not None and state.cancel_scope is self._scope:
                self._scope._tasks.discard(task)
