"""An event loop that drives the hub of its thread."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import time
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from typing import Any

from gevent import getcurrent

from .. import _messages
from .._fiberback import await_
from ._task_greenlet import TaskGreenlet, raw_switch

# What the hub says when it has nothing to do.
IDLE = object()


class Drive:
    """An event loop that drives the hub of its thread."""

    _drives: weakref.WeakKeyDictionary[AbstractEventLoop, Drive] = weakref.WeakKeyDictionary()

    def __init__(self, event_loop: AbstractEventLoop, hub: Any) -> None:
        self._event_loop = weakref.ref(event_loop)
        self._hub = hub
        self._handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The greenlet that the loop runs in.
        self._driver: Any = getcurrent()
        while isinstance(self._driver, TaskGreenlet):
            self._driver = self._driver.parent
        self._waiter: Future[Any] | None = None
        fd = self._hub.loop.fileno()
        if fd is None or fd < 0 or "libev" not in type(self._hub.loop._loop).__module__:
            raise RuntimeError(_messages.GEVENT_BACKEND)
        event_loop.add_reader(fd, self.soon)
        # It runs when the hub has found nothing else to do, of any priority, and has it not wait.
        self._idle = self._hub.loop.idle(priority=self._hub.loop.MINPRI)
        self._idle.start(self._give_back)
        self._hub.loop.drive = self
        self.soon()

    @classmethod
    def of(cls, event_loop: AbstractEventLoop, hub: Any) -> Drive:
        """The one of a running loop and the hub of its thread."""
        drive = cls._drives.get(event_loop)
        if drive is None or drive._hub is not hub:
            drive = cls._drives[event_loop] = cls(event_loop, hub)
        return drive

    def soon(self) -> None:
        """Has the hub go on soon."""
        event_loop = self._event_loop()
        if self._handle is None and event_loop is not None and not event_loop.is_closed():
            self._handle = event_loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Lets the hub go on until it has nothing to do."""
        self._handle = None
        self._driver = getcurrent()
        begun = time.monotonic()
        try:
            while True:
                try:
                    value = raw_switch(self._hub)
                except BaseException as error:
                    if not self._settle(Future.set_exception, error):
                        raise
                else:
                    if value is IDLE:
                        break
                    self._settle(Future.set_result, value)
        finally:
            self._come_again(begun)

    def _settle(self, settle: Callable[[Future[Any], Any], None], value: Any) -> bool:
        """For what waits without a greenlet of its own: somebody has switched to the one that the loop is in."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return False
        settle(waiter, value)
        return True

    def _come_again(self, begun: float) -> None:
        event_loop, seconds = self._event_loop(), self._hub.loop.next_due(begun)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and event_loop is not None and not event_loop.is_closed():
            self._timer = event_loop.call_later(seconds, self._go_on)

    def _give_back(self) -> None:
        """In the hub: the loop goes on, in whichever of its callbacks somebody has switched to the hub."""
        event_loop = self._event_loop()
        if event_loop is not None and event_loop.is_running():
            raw_switch(self._driver, IDLE)
        else:
            self.end()

    def end(self) -> None:
        """The hub goes on by itself from now on."""
        self._idle.stop()
        self._idle.close()
        if self._hub.loop.drive is self:
            self._hub.loop.drive = None
        event_loop = self._event_loop()
        if event_loop is not None:
            self._drives.pop(event_loop, None)
            for handle in (self._handle, self._timer):
                if handle is not None:
                    handle.cancel()
            if not event_loop.is_closed():
                event_loop.remove_reader(self._hub.loop.fileno())

    def wait(self) -> Any:
        """Waits for somebody to switch to the greenlet that the loop is in."""
        event_loop = self._event_loop()
        assert event_loop is not None  # it runs
        if self._waiter is not None:
            raise RuntimeError(_messages.GEVENT_SECOND_WAITER)
        self._waiter = waiter = event_loop.create_future()
        self.soon()
        try:
            return await_(waiter)
        finally:
            if self._waiter is waiter:
                self._waiter = None
