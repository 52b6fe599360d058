"""What has to be done in the worker's own thread, where its event loop runs: acknowledging, events, its books.

Without that loop (a broker's transport that only blocks) it is done at once, in the thread that wants it, as Celery's
own pool of threads does.
"""

from __future__ import annotations

import logging
import queue
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

logger = logging.getLogger("fiberback")

_PAUSE = 0.05  # seconds, at the longest, until `run_until` looks again


class MainThread:
    def __init__(self) -> None:
        # Signal handlers, too, put and get: this one is reentrant.
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._calls = queue.SimpleQueue()
        self._wakers: tuple[socket.socket, socket.socket] | None = None
        self._is_woken = False

    def serve(self, hub: Any) -> None:
        """Called with the worker's event loop each time that it has connected to the broker."""
        if self._wakers is None:
            self._wakers = socket.socketpair()
            for each in self._wakers:
                each.setblocking(False)
        hub.add_reader(self._wakers[0], self._on_readable)
        self._is_woken = False
        self._wake()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """From any thread."""
        self._calls.put((function, args))
        if self._wakers is None:
            self.run_all()
        else:
            self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            wakers = self._wakers
            if wakers is not None:
                with suppress(OSError):
                    wakers[1].send(b"\0")

    def _on_readable(self) -> None:
        if self._wakers is not None:
            with suppress(OSError):
                self._wakers[0].recv(4096)
        self._is_woken = False
        self.run_all()

    def run_all(self) -> None:
        while True:
            try:
                function, args = self._calls.get_nowait()
            except queue.Empty:
                return
            self._run(function, args)

    def run_until(self, is_so: Callable[[], bool], patience: float | None) -> bool:
        """Run what is posted until `is_so()`, for at most so many seconds; whether it is."""
        deadline = None if patience is None else time.monotonic() + patience
        while not is_so():
            if deadline is not None and time.monotonic() > deadline:
                return False
            with suppress(queue.Empty):
                self._run(*self._calls.get(timeout=_PAUSE))
        self.run_all()
        return True

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception:
            logger.exception("%r of a task's request", function)

    def close(self) -> None:
        wakers, self._wakers = self._wakers, None
        for each in wakers or ():
            each.close()
