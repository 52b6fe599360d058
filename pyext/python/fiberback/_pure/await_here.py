"""`await_`: on a portal the awaitable is stepped here, and what it yields is what the task gets."""

from __future__ import annotations

import inspect
import sys
from types import CoroutineType
from typing import Any

from . import pyodide
from .hooks import after_wait, before_wait, hooks, is_for_task, is_guarded
from .portal import usable_stack
from .step import YIELDED
from .switching import (
    GreenletExit,
    Stack,
    current_context,
    getcurrent,
    put_back,
)

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def await_(awaitable: Any, /) -> Any:
    """Wait for 'awaitable' and return its result, in synchronous code.

    Takes what `await` takes and gives what `await` gives: the result, or the exception with its traceback::

        def load(url):                            # synchronous, and so are its callers
            return fiberback.await_(fetch(url))   # fetch is an async function

        async def main():
            print(load("https://example.org"))    # other tasks run meanwhile

        fiberback.run(main())                     # in place of asyncio.run(main())

    This is the fallback without the native module. A task needs a portal here (every task of `fiberback.run`,
    or by `enable`, a task factory, `ensure_portal`, `with_portal_run_sync`), on stock asyncio loops, too;
    threads, and code without a loop, need none. In Pyodide it is `pyodide.ffi.run_sync`.
    """
    if is_guarded() and hooks.guard is not None:
        hooks.guard(awaitable)
    stack = usable_stack()
    result = _drive(stack, awaitable) if stack is not None else _off_portal(awaitable)
    frame = sys._getframe(1)
    if frame.f_code.co_flags & _ASYNC and hooks.awaited is not None:
        hooks.awaited(result, frame)
    return result


async def _awaiting(awaitable: Any) -> Any:
    return await awaitable


def _coroutine_of(awaitable: Any) -> Any:
    """What steps `awaitable` as `await` would."""
    if type(awaitable) is CoroutineType:
        if inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
            return awaitable
    elif not inspect.isawaitable(awaitable):
        try:
            _awaiting(awaitable).send(None)
        except TypeError as error:  # in the words of `await`
            cure = hooks.not_awaitable(awaitable) if hooks.not_awaitable is not None else ""
            raise TypeError(f"{error}{cure}") from None
    return _awaiting(awaitable)


def _drive(stack: Stack, awaitable: Any) -> Any:
    coro = _coroutine_of(awaitable)
    throws, value = False, None
    while True:
        try:
            if not throws:
                yielded = coro.send(value)
            elif isinstance(value, (GeneratorExit, GreenletExit)):
                coro.close()
                raise value
            else:
                yielded = coro.throw(value)
        except StopIteration as stop:
            return stop.value
        finally:
            value = None
        context = current_context()
        if context is not stack.context and hooks.is_usable is not None and not hooks.is_usable():
            return _off_portal(coro)
        watched = None
        try:
            if is_for_task(yielded, coro):
                watched = before_wait(yielded)
            throws, value = _suspend(stack, coro, yielded, context)
        except BaseException as error:
            throws, value = True, error
        yielded = None
        if watched is not None:
            try:
                after_wait(watched)
            except BaseException as error:
                throws, value = True, error


def _suspend(stack: Stack, coro: Any, yielded: Any, context: Any) -> tuple[bool, Any]:
    """Has the portal return `yielded` from its step. What the next step is to do."""
    is_nested = context is not stack.context
    stack.top = getcurrent()
    stack.awaiting = coro
    throws, value = stack.parent.switch((YIELDED, yielded))
    put_back(context if is_nested else stack.context)
    return throws, value


def _off_portal(awaitable: Any) -> Any:
    if pyodide.is_here:
        return pyodide.wait(awaitable)
    return hooks.no_portal(awaitable)
