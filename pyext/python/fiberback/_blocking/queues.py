"""`queue.SimpleQueue`, which is in C. (`queue.Queue` and its relations stand on locks.)

New ones are of a subclass while the hook stands; one that was made before blocks as ever.
"""

from __future__ import annotations

import contextlib
import queue
from asyncio import _get_running_loop
from collections import deque
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement
from .locks import _AsInC
from .poller import Wait
from .waiter import Waiter, waiter_for

_SimpleQueue: Any = queue.SimpleQueue
_EMPTY = object()


class SimpleQueue(_SimpleQueue, metaclass=_AsInC):  # type: ignore[misc]
    """In the place of the one in C, and one itself."""

    __slots__ = ("_waiting",)
    in_c = _SimpleQueue

    def __init__(self) -> None:
        self._waiting: deque[Waiter] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        _SimpleQueue.put(self, item)
        self._wake_next()

    def put_nowait(self, item: Any) -> None:
        _SimpleQueue.put(self, item)
        self._wake_next()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if (
            not block
            or (_get_running_loop() is None and not on_portal())
            or not (timeout is None or timeout >= 0)
        ):
            return _SimpleQueue.get(self, block, timeout)
        found = self._take()
        if found is not _EMPTY:
            return found
        caller = waiter_for("queues")
        if caller is None:
            return _SimpleQueue.get(self, block, timeout)
        waits = Wait(caller, timeout)
        while True:
            found = self._attempt(waits)
            if found is not _EMPTY:
                return found
            if waits.left() == 0:
                raise queue.Empty

    def _take(self) -> Any:
        try:
            return _SimpleQueue.get(self, False)
        except queue.Empty:
            return _EMPTY

    def _attempt(self, waits: Wait) -> Any:
        caller = waits.next()
        self._waiting.append(caller)
        found = _EMPTY
        try:
            found = self._take()  # it may have come before that
            if found is _EMPTY:
                caller.wait(waits.left())
                found = self._take()
            return found
        finally:
            try:
                self._waiting.remove(caller)
            except ValueError:
                if found is _EMPTY and not self.empty():
                    self._wake_next()  # who was woken is cancelled

    def _wake_next(self) -> None:
        with contextlib.suppress(IndexError):
            while not self._waiting.popleft().wake():
                pass


REPLACEMENTS = [Replacement(queue, "SimpleQueue", SimpleQueue, by_name=True)]
