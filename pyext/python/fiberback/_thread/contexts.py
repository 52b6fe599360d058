"""An awaitable of one thread's code, run elsewhere as if in that code's own context.

A `contextvars.Context` can be entered once at a time, so what runs elsewhere, while the caller is
inside its own, runs in a copy, and what it changed is carried over when it is done. One thing is
lost on the way: a variable that it has *unset* keeps its value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any

from .._deadlock import wait_cycle
from .._user_frames import is_ours

_missing: Any = object()


def absorb(context: Context) -> None:
    """Give the variables of the current context the values that they have in `context`."""
    for variable, value in context.items():
        if variable.get(_missing) is not value:
            variable.set(value)


class InContext:
    """Awaits `coro` with each of its steps in `context`."""

    __slots__ = ("_context", "_coro")

    def __init__(self, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        self._coro = coro
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        run, coro = self._context.run, self._coro
        step: Any = coro.send
        value: Any = None
        while True:
            try:
                request = run(step, value)
            except StopIteration as stop:
                return stop.value
            try:
                if asyncio.isfuture(request):
                    wait_cycle.before_wait(request)
                value = yield request
                step = coro.send
            except GeneratorExit:
                run(coro.close)
                raise
            except BaseException as error:
                step, value = coro.throw, error


def without_our_frames(error: BaseException) -> BaseException:
    """`error` with a traceback that begins outside this package, if any part of it does."""
    traceback = error.__traceback__
    while traceback is not None:
        if not is_ours(traceback.tb_frame.f_code.co_filename):
            return error.with_traceback(traceback)
        traceback = traceback.tb_next
    return error
