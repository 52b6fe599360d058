"""`Call`: a function call in the shape of a coroutine, for a portal to step.

What `async def call(fn, args, kwds): return fn(*args, **kwds)` would be: it never yields, so all there is to it
is whether it has begun. Nothing warns of one that was never awaited.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from . import messages
from .thrown import exception_of

_CREATED, _RUNNING, _ENDED = range(3)


class Call:
    """A function call in the shape of a coroutine."""

    __slots__ = ("__qualname__", "_arguments", "_function", "_keywords", "_state")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._function: Any = function
        self._arguments: Any = args
        self._keywords: Any = kwargs
        self._state = _CREATED

    def _begin(self) -> None:
        if self._state == _RUNNING:
            raise ValueError(messages.ALREADY_RUNNING)
        if self._state == _ENDED:
            raise RuntimeError("cannot reuse already awaited coroutine")

    def _end(self) -> None:
        self._state = _ENDED
        self._function = self._arguments = self._keywords = None

    def __await__(self) -> Call:
        return self

    def __iter__(self) -> Call:
        return self

    def __next__(self) -> NoReturn:
        self.send(None)

    def send(self, value: Any, /) -> NoReturn:
        self._begin()
        if value is not None:
            raise TypeError("can't send non-None value to a just-started coroutine")
        self._state = _RUNNING
        try:
            result = self._function(*self._arguments, **self._keywords)
        except StopIteration as stop:
            raise RuntimeError("coroutine raised StopIteration") from stop
        finally:
            self._end()
        raise StopIteration(result) if result is not None else StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> NoReturn:
        error = exception_of(typ, val, tb)
        self._begin()
        self._end()
        if isinstance(error, StopIteration) and sys.version_info < (3, 12):
            raise RuntimeError("coroutine raised StopIteration") from error
        raise error

    def close(self) -> None:
        if self._state == _RUNNING:
            raise ValueError(messages.ALREADY_RUNNING)
        self._end()

    @property
    def is_running(self) -> bool:
        return self._state == _RUNNING

    @property
    def __name__(self) -> str:
        name: str = getattr(self._function, "__name__", "call")
        return name

    def __getattr__(self, name: str) -> Any:
        if name == "__qualname__":
            return getattr(self._function, name, "call")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def cr_await(self) -> None:
        return None

    @property
    def cr_code(self) -> CodeType | None:
        return getattr(self._function, "__code__", None)

    @property
    def cr_frame(self) -> None:
        return None

    @property
    def cr_origin(self) -> None:
        return None

    @property
    def cr_running(self) -> bool:
        return self._state == _RUNNING

    @property
    def cr_suspended(self) -> bool:
        return False

    if sys.version_info >= (3, 15):

        @property
        def cr_state(self) -> Any:
            states = (inspect.CORO_CREATED, inspect.CORO_RUNNING, inspect.CORO_CLOSED)
            return states[self._state]
