"""One task at an event loop for all that one thread, or one callback, waits for.

What sync code awaits outside of any task is run in its *host*, one thing after the other. So what
belongs to a task (`current_task()`, `asyncio.timeout`, a `TaskGroup` or cancel scope that one `await_`
enters and another one leaves) works across them. A `Request` is one of these things; it runs in the
context of the code that waits.

A host that is cancelled between two requests ends, so that nobody who cancels all tasks has to wait for
the thread; the thread is told by its next `await_`. If it was cancelled by a timeout or a cancel
scope, which that thread has entered in it, it stays: the thread will come to leave that.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
from collections import deque
from typing import Any

from .. import _messages
from .request import Request

# Modules whose timeouts and scopes cancel the task that has entered them.
_SCOPES = {
    "asyncio.timeouts",
    "asyncio.taskgroups",
    "anyio._backends._asyncio",
    "async_timeout",
    "aiohttp.helpers",
}
# What AnyIO's scopes say. They cancel a task again and again, wherever it waits, until it has left.
_COMES_AGAIN = ("Cancelled via cancel scope ", "Cancelled by cancel scope ")


class _HostTask(asyncio.Task[None]):
    """Knows whether it was cancelled by something that its own requests have entered."""

    _by: Any = None

    def cancel(self, msg: Any | None = None) -> bool:
        self._by = sys._getframe(1).f_globals.get("__name__")
        return super().cancel(msg)

    def is_to_end(self) -> bool:
        return self._by not in _SCOPES and self.cancelling() > 0


def is_host(task: Any) -> bool:
    """Whether the task runs what others wait for, and nothing of its own."""
    return isinstance(task, _HostTask)


class _Idle(asyncio.Future[None]):
    """What a host waits for between two requests. It can be made to go on at once."""

    __slots__ = ("_goes_on",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._goes_on: Any = None

    def add_done_callback(self, fn: Any, /, *, context: Any = None) -> None:
        self._goes_on = functools.partial(context.run, fn, self)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self._go_on(at_once=False)
        return True

    def end(self, at_once: bool) -> None:
        if not self.done():
            self.set_result(None)
            self._go_on(at_once)

    def _go_on(self, at_once: bool) -> None:
        goes_on, self._goes_on = self._goes_on, None
        if goes_on is None:
            return  # nobody has begun to wait
        if at_once:
            goes_on()
        else:
            self.get_loop().call_soon(goes_on, context=contextvars.Context())


class Host:
    """See the module. Everything here is called in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.loop = loop
        self._name = name
        self._requests: deque[Request] = deque()
        self._idle: _Idle | None = None
        self._current: Request | None = None
        self._cancelled: asyncio.CancelledError | None = None
        # The last one that was noted, how often the task had been asked to end by then, and for how many
        # of these requests no CancelledError is to come any more.
        self._noted: asyncio.CancelledError | None = None
        self._noted_at = 0
        self._settled = 0
        self._finished = False
        self.task: asyncio.Task[Any] | None = None

    def deliver(self, request: Request, in_callback: bool = False) -> None:
        """Have `request` run; at once if this is called `in_callback`, a callback of the loop's that
        is nothing but this."""
        if request.is_answered:  # given up meanwhile
            return
        if self._finished:
            request.refuse(RuntimeError(_messages.LOOP_GONE))
            return
        self._requests.append(request)
        if self.task is None:
            # Not by the loop's task factory, whose tasks may be eager: a request must not begin
            # before its caller waits. The task's own context keeps nothing alive.
            task = _HostTask(
                self.serve(), loop=self.loop, name=self._name, context=contextvars.Context()
            )
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.task = task
            self.on_start(task)
        self._wake(in_callback)

    def on_start(self, task: asyncio.Task[Any]) -> None:
        """A host task has been made."""

    def before_request(self, task: asyncio.Task[Any]) -> None:
        """In the task, before each request."""

    def after_request(self, task: asyncio.Task[Any]) -> None:
        """In the task, after each request."""

    async def serve(self) -> None:
        """What a host task runs: requests, until `finish`."""
        task: Any = asyncio.current_task(self.loop)
        try:
            while True:
                try:
                    if not await self._more():
                        break
                except asyncio.CancelledError as cancelled:
                    if task.is_to_end():
                        if not self._requests:
                            self._cancelled = cancelled
                        raise
                    if self.is_new(task):
                        self.note(cancelled, task)
                    continue
                if await self._run(task) and task.is_to_end():
                    raise asyncio.CancelledError
        finally:
            self.task = None
            while self._requests:
                self._requests.popleft().refuse(asyncio.CancelledError())

    async def _more(self) -> bool:
        while not self._requests:
            if self._finished:
                return False
            self._idle = _Idle(self.loop)
            try:
                await self._idle
            finally:
                self._idle = None
        return True

    async def _run(self, task: asyncio.Task[Any]) -> bool:
        """Runs the next request. Whether it was cancelled."""
        request = self._requests.popleft()
        if request.is_answered:
            return False
        self._current = request
        self.before_request(task)
        cancelled, self._cancelled = self._cancelled, None
        before = task.cancelling()
        try:
            await request.run(task, cancelled)
        finally:
            self._current = None
            self.after_request(task)
        after = task.cancelling()
        self._settled = min(before, after)
        if cancelled is not None and not request.has_waited:
            # In the next one; but the end of a scope takes back what that has asked for.
            if cancelled is not self._noted or after >= self._noted_at:
                self._cancelled = cancelled
        return isinstance(request.error, asyncio.CancelledError)

    def _wake(self, in_callback: bool) -> None:
        if self._idle is not None:
            self._idle.end(in_callback)

    def cancel(self, cancelled: asyncio.CancelledError) -> None:
        """Raise CancelledError in the `await_` that waits, else in the next."""
        if self._current is not None and self.task is not None:
            self._current.interrupt()
        else:
            self._cancelled = cancelled

    def is_new(self, task: asyncio.Task[Any]) -> bool:
        """Whether somebody has cancelled the task, now that a CancelledError arrives between two requests.

        Up to 3.12 one arrives also if it was taken back (`uncancel`) in a request that did not wait.
        """
        return task.cancelling() > self._settled

    def note(self, cancelled: asyncio.CancelledError, task: asyncio.Task[Any]) -> None:
        """Between two requests: the next one that waits is to get it, unless it will anyway."""
        self._settled = self._noted_at = task.cancelling()
        if not str(cancelled).startswith(_COMES_AGAIN):
            self._cancelled = self._noted = cancelled

    @property
    def undelivered(self) -> asyncio.CancelledError | None:
        return self._cancelled

    def finish(self) -> None:
        """No more requests will come."""
        self._finished = True
        self._wake(
            isinstance(self.task, _HostTask)
            and asyncio._get_running_loop() is self.loop
            and asyncio.current_task(self.loop) is None
        )
