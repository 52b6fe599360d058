"""An awaitable of one thread's code, run elsewhere in that code's own context.

Who waits lends its context (`_fiberback.lend_context`): there is one for what it does itself and for
what it waits for, whatever is set or reset on either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any

from .._deadlock import wait_cycle, watchdog
from .._user_frames import is_ours


class InContext:
    """Awaits `coro` with each of its steps in `context`."""

    __slots__ = ("_coro", "context", "has_waited")

    def __init__(self, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        self._coro = coro
        self.context = context
        self.has_waited = False

    def leave(self) -> None:
        """The context is in use again by whoever has lent it. Go on in a copy."""
        self.context = self.context.copy()

    def __await__(self) -> Generator[Any, Any, Any]:
        coro = self._coro
        step: Any = coro.send
        value: Any = None
        while True:
            try:
                request = self.context.run(step, value)
            except StopIteration as stop:
                return stop.value
            watched = None
            self.has_waited = True
            try:
                if asyncio.isfuture(request):
                    watched = wait_cycle.before_wait(request)
                value = yield request
                step = coro.send
            except GeneratorExit:
                self.context.run(coro.close)
                raise
            except BaseException as error:
                step, value = coro.throw, error
            finally:
                if watched is not None:
                    watchdog.after_wait(watched)


def set_all(context: Context) -> None:
    """Have all variables that `context` knows have the same values in the current context."""
    for variable, value in context.items():
        if variable.get(_NOTHING) is not value:
            variable.set(value)


_NOTHING = object()


def without_our_frames(error: BaseException) -> BaseException:
    """`error` with a traceback that begins outside this package, if any part of it does."""
    traceback = error.__traceback__
    while traceback is not None:
        if not is_ours(traceback.tb_frame.f_code.co_filename):
            return error.with_traceback(traceback)
        traceback = traceback.tb_next
    return error
