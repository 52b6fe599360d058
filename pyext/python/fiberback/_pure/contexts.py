"""What a thread that waits lends to those who work for it: its contexts, and its async generators.

Where `await_()` waits for an event loop that is not on its own stack, code runs in the waiter's
`contextvars` context meanwhile, in this thread or in another one. A context is entered once at a time, so the
waiter leaves it for as long as it waits. Where that cannot be done, it lends a copy, and takes over what was
set there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextvars import Context, copy_context
from types import AsyncGeneratorType
from typing import Any, TypeVar

from . import slots
from .report import report
from .switching import can_switch, current_context

T = TypeVar("T")

# Seconds that a waiter which goes on waits for its contexts, if somebody is in one of them.
_PATIENCE = 0.2

if not can_switch:

    def _leave() -> list[Any]:
        return []

    def _enter(context: Any) -> None: ...

elif sys.implementation.name == "pypy":
    # `Context.run` keeps in its own frame what was there before: only the innermost can be lent.

    def _leave() -> list[Any]:
        context: Any = current_context()
        if not context._is_entered:
            return []
        context._is_entered = False
        return [context]

    def _enter(context: Any) -> None:
        if context._is_entered:
            raise RuntimeError
        context._is_entered = True

elif slots.can_write:
    import ctypes

    def _leave() -> list[Any]:
        left: list[Any] = []
        while True:
            context = current_context()
            try:
                ctypes.pythonapi.PyContext_Exit(ctypes.py_object(context))
            except RuntimeError:  # not entered, but the thread's own
                return left
            left.append(context)

    def _enter(context: Any) -> None:
        ctypes.pythonapi.PyContext_Enter(ctypes.py_object(context))

else:

    def _leave() -> list[Any]:
        return []

    def _enter(context: Any) -> None: ...


_can_leave = can_switch and (slots.can_write or sys.implementation.name == "pypy")


def lend_context(function: Callable[[Context], T], /) -> T:
    """function(context), with the caller's context left, so that anybody can enter it meanwhile."""
    if not _can_leave:
        return _lend_copy(function)
    context = current_context()
    left = _leave()
    try:
        result = function(context)
    except BaseException as error:
        try:
            _go_back(left)
        except RuntimeError:
            # This one hides what there is to say, as does the `Context.run()` further out.
            report(error, function)
            raise
        raise
    _go_back(left)
    return result


def _go_back(left: list[Any]) -> None:
    until = time.monotonic() + _PATIENCE
    while left:
        try:
            _enter(left[-1])
        except RuntimeError:  # somebody is in it still
            if time.monotonic() > until:
                raise
            time.sleep(0.001)
        else:
            left.pop()


def _lend_copy(function: Callable[[Context], T]) -> T:
    context = copy_context()
    try:
        return function(context)
    finally:
        set_all(context)


def set_all(context: Context) -> None:
    """Have all variables that `context` knows have the same values in the current context."""
    for variable, value in context.items():
        if variable.get(_nothing) is not value:
            variable.set(value)


_nothing: Any = object()


def _finalizer_offset() -> int | None:
    """Where async generators keep what is called before they are destroyed."""

    async def sample() -> AsyncGenerator[None, None]:
        yield

    def marker(_: object) -> None: ...

    generator = sample()
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=marker)
    try:
        step: Any = generator.__anext__()
        offset = slots.offset_of(generator, AsyncGeneratorType, marker)
        step.close()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return offset


_OFFSET = _finalizer_offset()


def set_finalizer(generator: Any, finalizer: Callable[[Any], Any], /) -> bool:
    """Give an async generator a finalizer, unless it has one. Whether that was done."""
    if _OFFSET is None or type(generator) is not AsyncGeneratorType:
        return False
    return slots.fill(generator, _OFFSET, finalizer)
