"""Locks for code that runs in tasks and in threads, both perhaps at once.

`threading.Lock` would stop the loop whose other task holds it, and `asyncio.Lock` belongs to one loop.
These wait with `await_` where a loop runs and block the thread elsewhere. Interfaces are those of
`threading`, as far as psycopg and Peewee use them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

from .. import await_
from ._waiting import current_task, running_loop


class _Gate:
    """What one waiter waits at, once; `open` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = running_loop()
        if self._loop is None:
            self._event = threading.Event()
        else:
            self._future: asyncio.Future[None] = self._loop.create_future()

    def wait(self, timeout: float | None) -> bool:
        if self._loop is None:
            return self._event.wait(timeout if timeout is None else max(timeout, 0))
        if timeout is None:
            await_(self._future)
        else:
            await_(asyncio.wait([self._future], timeout=max(timeout, 0)))
        return self._future.done()

    def open(self) -> None:
        if self._loop is None:
            self._event.set()
            return
        try:
            self._loop.call_soon_threadsafe(self._open)
        except RuntimeError:  # the loop is closed, and its waiter gone
            pass

    def _open(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def _caller() -> Any:
    """Who holds a lock: the task, or the thread where there is none."""
    return current_task() or threading.get_ident()


class Lock:
    """A mutual exclusion lock. A cancelled `acquire` has not taken it, and passes its turn on."""

    _reentrant = False

    def __init__(self) -> None:
        self._inner = threading.Lock()  # held for a few instructions, never across a wait
        self._gates: deque[_Gate] = deque()
        self._owner: Any = None
        self._depth = 0

    def _take(self) -> bool:
        if self._depth == 0:
            self._owner, self._depth = _caller(), 1
            return True
        if self._reentrant and self._owner == _caller():
            self._depth += 1
            return True
        return False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        deadline = None if timeout < 0 else time.monotonic() + timeout
        queue = self._gates.append
        while True:
            with self._inner:
                if self._take():
                    return True
                if not blocking:
                    return False
                gate = _Gate()
                queue(gate)
            opened = False
            try:
                opened = gate.wait(None if deadline is None else deadline - time.monotonic())
            finally:
                if not opened:
                    self._leave(gate)
            if not opened:
                return False
            queue = self._gates.appendleft  # somebody was faster: it keeps its place in the queue

    def _leave(self, gate: _Gate) -> None:
        with self._inner:
            if gate in self._gates:
                self._gates.remove(gate)
                return
            # It was opened all the same: the turn is the next one's.
            following = self._gates.popleft() if self._gates and not self._depth else None
        if following is not None:
            following.open()

    def release(self) -> None:
        with self._inner:
            if self._depth == 0:
                raise RuntimeError("release unlocked lock")
            if self._reentrant and self._owner != _caller():
                raise RuntimeError("cannot release un-acquired lock")
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            gate = self._gates.popleft() if self._gates else None
        if gate is not None:
            gate.open()

    def locked(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class RLock(Lock):
    """A lock that its holder, a task or a thread, may take again."""

    _reentrant = True

    def _release_all(self) -> int:
        with self._inner:
            depth, self._depth, self._owner = self._depth, 0, None
            gate = self._gates.popleft() if self._gates else None
        if gate is not None:
            gate.open()
        return depth

    def _reacquire(self, depth: int) -> None:
        """Whatever cancels the wait is raised when the lock has been taken."""
        cancelled: BaseException | None = None
        while True:
            try:
                self.acquire()
                break
            except asyncio.CancelledError as error:
                cancelled = error
        self._depth = depth
        if cancelled is not None:
            raise cancelled


class Condition:
    """A condition variable over an `RLock`."""

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._gates: deque[_Gate] = deque()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def wait(self, timeout: float | None = None) -> bool:
        gate = _Gate()
        self._gates.append(gate)
        depth = self._lock._release_all()
        opened = False
        try:
            opened = gate.wait(timeout)
            return opened
        finally:
            self._lock._reacquire(depth)
            if gate in self._gates:
                self._gates.remove(gate)
            elif not opened:
                self.notify()  # a notification that came too late for this one is the next one's

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._gates))):
            self._gates.popleft().open()

    def notify_all(self) -> None:
        self.notify(len(self._gates))
