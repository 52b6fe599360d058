"""What has to be done in the worker's own thread, where its event loop runs: acknowledging, events, its books.

Without that loop (a broker's transport that only blocks) it is done at once, in the thread that wants it, as Celery's
own pool of threads does.
"""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import logging
import queue
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.concurrency import prefork

logger = logging.getLogger("fiberback")

_PAUSE = 0.05  # seconds, at the longest, until `run_until` looks again
_TICK = 0.5  # seconds between two times that the worker's timers are looked after meanwhile
# The acknowledgements among what Celery's event loop is to do, from Celery 5.6 or so.
_acknowledge = getattr(prefork, "_run_ready_callbacks", None)


class MainThread:
    def __init__(self) -> None:
        # Signal handlers, too, put and get: this one is reentrant.
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._calls = queue.SimpleQueue()
        self._wakers: tuple[socket.socket, socket.socket] | None = None
        self._is_woken = False
        self._hub: Any = None

    def serve(self, hub: Any) -> None:
        """Called with the worker's event loop each time that it has connected to the broker."""
        if self._wakers is None:
            self._wakers = socket.socketpair()
            for each in self._wakers:
                each.setblocking(False)
        self._hub = hub
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
        """Run what is posted until `is_so()`, for at most so many seconds; whether it is.

        For as long as it takes: then heartbeats and acknowledgements go on, for which the worker's loop is not there.
        """
        deadline = None if patience is None else time.monotonic() + patience
        tick = time.monotonic()
        while not is_so():
            now = time.monotonic()
            if deadline is not None and now > deadline:
                return False
            if deadline is None and now > tick:
                tick = now + _TICK
                self._go_on()
            with suppress(queue.Empty):
                self._run(*self._calls.get(timeout=_PAUSE))
        self.run_all()
        return True

    def _go_on(self) -> None:
        """As Celery's own pool does while it waits for its processes."""
        if self._hub is not None:
            self._run(self._hub.fire_timers, ())
            if _acknowledge is not None:
                self._run(_acknowledge, (self._hub,))

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception:
            logger.exception("%r of a task's request", function)

    def close(self) -> None:
        wakers, self._wakers = self._wakers, None
        for each in wakers or ():
            each.close()
