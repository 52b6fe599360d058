"""Context managers made of generator functions, whose repr is the call that made them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Named:
    _said: str

    def __init__(self, function: Any, args: Any, kwds: Any) -> None:
        super().__init__(function, args, kwds)  # type: ignore[call-arg]
        given = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwds.items())]
        self._said = f"fiberback.{function.__name__}({', '.join(given)})"

    def __repr__(self) -> str:
        return self._said


# Of classes that `contextlib.contextmanager` and `asynccontextmanager` make, which serve as decorators, too.


class _Block(_Named, contextlib._GeneratorContextManager[Any]):
    """Of a `with`."""


class _AsyncBlock(_Named, contextlib._AsyncGeneratorContextManager[Any]):
    """Of an `async with`."""


def block(function: Callable[P, Iterator[T]]) -> Callable[P, AbstractContextManager[T]]:
    """`contextlib.contextmanager`, with a repr."""

    @functools.wraps(function)
    def made(*args: P.args, **kwds: P.kwargs) -> AbstractContextManager[T]:
        return _Block(function, args, kwds)

    return made


def async_block(
    function: Callable[P, AsyncIterator[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """`contextlib.asynccontextmanager`, with a repr."""

    @functools.wraps(function)
    def made(*args: P.args, **kwds: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _AsyncBlock(function, args, kwds)

    return made
