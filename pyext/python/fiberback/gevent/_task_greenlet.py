"""The greenlet that a task's coroutine runs in, and what the task awaits while it waits."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from typing import Any

import greenlet
from gevent import GreenletExit

from .. import _messages
from ._ways import is_on_gevent, nothing

_Raw: Any = greenlet.greenlet
raw_switch, raw_throw = _Raw.switch, _Raw.throw

# What a task's greenlet tells the task.
YIELDED, WAITS, RETURNED, RAISED = range(4)


class Wait(Future[Any]):
    """What a task awaits while its greenlet waits for somebody to switch to it. Then the task makes its step at once.

    gevent relies on that: a queue's `get()`, once it was switched to, is the next to look at the queue.
    """

    _waker: tuple[Callable[[Any], Any], Any] | None = None

    def add_done_callback(self, fn: Callable[[Any], Any], /, *, context: Any = None) -> None:
        self._waker = fn, context

    def cancel(self, msg: Any = None) -> bool:
        was_cancelled = super().cancel(msg=msg)
        if was_cancelled and self._waker is not None:
            waker, context = self._waker
            self.get_loop().call_soon(waker, self, context=context)
        return was_cancelled

    def wake(self) -> None:
        """Has the task make its step, on top of the calling code."""
        if self._waker is None:
            return  # it is about to await it
        waker, context = self._waker
        event_loop = self.get_loop()
        current = asyncio.current_task(event_loop)
        if current is not None:
            _leave_task(event_loop, current)
        try:
            context.run(waker, self)
        finally:
            if current is not None:
                _enter_task(event_loop, current)
        if is_on_gevent(event_loop):
            # It may have waited for less than there is by now.
            event_loop.call_soon_threadsafe(nothing)


class TaskGreenlet(_Raw):  # type: ignore[valid-type]
    """What a task's coroutine runs in."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__(self._steps)
        self._coroutine = coroutine
        # Whether the task makes a step, in which this greenlet is running, or has switched elsewhere.
        self.is_stepping = False
        self.future: Wait | None = None
        self.task: Any = None
        self.thrown: BaseException | None = None

    def _steps(self, method: Callable[[Any], Any], value: Any) -> tuple[int, Any]:
        while True:
            try:
                yielded = method(value)
            except StopIteration as end:
                return RETURNED, end.value
            except BaseException as error:
                return RAISED, error
            method, value = raw_switch(self.parent, (YIELDED, yielded))

    def wait(self) -> Any:
        """In it: waits for somebody to switch here."""
        return raw_switch(self.parent, (WAITS, self.new_future(asyncio.get_running_loop())))

    def new_future(self, event_loop: AbstractEventLoop) -> Wait:
        self.future = Wait(loop=event_loop)
        return self.future

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_stepping or self.dead:
            return super().switch(*args, **kwargs)
        positional = args[0] if len(args) == 1 else args
        value = kwargs if kwargs and not args else (args, kwargs) if kwargs else positional
        return self._tell(Future.set_result, value)

    def throw(self, typ: Any = GreenletExit, val: Any = None, tb: Any = None) -> Any:
        if self.is_stepping or self.dead:
            return super().throw(typ, val, tb)
        error = typ if isinstance(typ, BaseException) else val
        if not isinstance(error, BaseException):
            error = typ() if val is None else typ(*val) if isinstance(val, tuple) else typ(val)
        error = error.with_traceback(tb)
        if self.future is None:
            # The task awaits something: that is cancelled.
            self.thrown = error
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)
            return None
        return self._tell(Future.set_exception, error)

    def _tell(self, settle: Callable[[Future[Any], Any], None], value: Any) -> None:
        future = self.future
        if future is None:
            raise RuntimeError(_messages.GEVENT_AWAITS)
        if not future.done():  # else it was cancelled
            settle(future, value)
            future.wake()
