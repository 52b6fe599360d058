"""A coroutine that runs in a greenlet of its own."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gevent import GreenletExit, getcurrent

from .._fiberback import context_of
from ._drive import IDLE
from ._task_greenlet import RETURNED, WAITS, YIELDED, TaskGreenlet, raw_switch, raw_throw


class InGreenlet(Coroutine[Any, Any, Any]):
    """A coroutine that runs in a greenlet of its own."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._greenlet: TaskGreenlet | None = None
        self._waits: Any = None
        self.__name__ = getattr(coroutine, "__name__", type(coroutine).__name__)
        self.__qualname__ = getattr(coroutine, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        if self._waits is not None:
            return self._wait(self._waits.send, value)
        return self._step(raw_switch, self._coroutine.send, value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:  # type: ignore[override]
        error = typ if isinstance(typ, BaseException) else val if val is not None else typ()
        greenlet = self._greenlet
        if greenlet is not None and greenlet.thrown is not None:
            if isinstance(error, asyncio.CancelledError):
                greenlet.task.uncancel()
                error = greenlet.thrown
            greenlet.thrown = None
        if self._waits is not None:
            return self._wait(self._waits.throw, error)
        return self._step(raw_switch, self._coroutine.throw, error)

    def close(self) -> None:
        greenlet = self._greenlet
        if greenlet is None or greenlet.dead:
            self._coroutine.close()
            return
        if self._waits is not None:
            self._waits.close()
            self._waits = None
            answer = self._run(raw_throw, GeneratorExit)
            if answer is IDLE or answer[0] in (YIELDED, WAITS):
                raise RuntimeError("coroutine ignored GeneratorExit")
        else:
            self._coroutine.close()
            self._run(raw_throw, GreenletExit)

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def _wait(self, method: Callable[[Any], Any], value: Any) -> Any:
        """Goes on with the wait for what switches to the greenlet."""
        try:
            return method(value)
        except StopIteration as end:
            self._waits = None
            return self._step(raw_switch, end.value)
        except BaseException as error:
            self._waits = None
            return self._step(raw_throw, error)

    def _step(self, switch: Any, *args: Any) -> Any:
        answer = self._run(switch, *args)
        greenlet = self._greenlet
        assert greenlet is not None
        if answer is IDLE:
            # What the greenlet has switched to waits, and the hub has nothing to do.
            answer = WAITS, greenlet.new_future(asyncio.get_running_loop())
        kind, value = answer
        if kind == YIELDED:
            return value
        if kind == WAITS:
            self._waits = value.__await__()
            return self._wait(self._waits.send, None)
        self._greenlet = None
        if kind == RETURNED:
            raise StopIteration(value)
        raise value

    def _run(self, switch: Any, *args: Any) -> Any:
        greenlet = self._greenlet
        if greenlet is None:
            greenlet = self._greenlet = TaskGreenlet(self._coroutine)
            greenlet.task = asyncio.current_task()
            if greenlet.task is not None:
                greenlet.gr_context = context_of(greenlet.task)
        current = getcurrent()
        if greenlet.parent is not current:
            greenlet.parent = current
        greenlet.future = None
        greenlet.is_stepping = True
        try:
            return switch(greenlet, *args)
        finally:
            greenlet.is_stepping = False


def in_greenlet(coroutine: Any) -> Any:
    """The coroutine in a greenlet; what is none is left to the task, which says so."""
    return InGreenlet(coroutine) if asyncio.iscoroutine(coroutine) else coroutine
