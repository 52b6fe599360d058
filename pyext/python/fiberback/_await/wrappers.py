"""Async functions, decorators, context managers and iterators in their synchronous shape.

Everything here is built on `await_`, so all of it needs a portal, and exceptions and
cancellation arrive as with the `async` syntax that each utility stands for.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, ParamSpec, TypeVar

from .._fiberback import await_
from .._portal.call_portal import with_portal_run_sync

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


def autoawait(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make an async function one that is called without `await`.

    Useful for properties, `__init__`, `__getitem__` and other places that cannot be `async`.
    Errors are those of `await_` and of `fn`. Meaning as in greenback.
    """

    @functools.wraps(fn)
    def call(*args: P.args, **kwds: P.kwargs) -> T:
        return await_(fn(*args, **kwds))

    return call


def decorate_as_sync(decorator: Callable[..., Any]) -> Callable[..., Any]:
    """Make a decorator for sync functions usable on an async function.

    The decorator gets a sync function (which has a portal); the result is async again::

        @decorate_as_sync(functools.lru_cache)
        async def lookup(key): ...

    `result.__wrapped__` is what `decorator` returned. Meaning as in greenback.
    """

    def decorate(async_fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        decorated = decorator(autoawait(async_fn))

        async def call(*args: Any, **kwds: Any) -> Any:
            return await with_portal_run_sync(decorated, *args, **kwds)

        return functools.wraps(decorated)(call)

    return decorate


class async_context(Generic[T_co]):
    """An async context manager, for a plain `with`.

    Raises TypeError on entry for an object that `async with` would refuse. As there, the methods
    are looked up on the type. Meaning as in greenback.
    """

    __slots__ = ("_exit", "_manager")
    _await = staticmethod(await_)

    def __init__(self, cm: AbstractAsyncContextManager[T_co]) -> None:
        self._manager = cm

    def __repr__(self) -> str:
        return f"fiberback.async_context({self._manager!r})"

    def __enter__(self) -> T_co:
        kind: Any = type(self._manager)
        enter = getattr(kind, "__aenter__", None)
        if enter is None:
            raise TypeError(not_a_context_manager(kind))
        self._exit: Any = getattr(kind, "__aexit__", None)
        if self._exit is None:
            raise TypeError(f"{not_a_context_manager(kind)} (missed __aexit__ method)")
        result: T_co = self._await(enter(self._manager))
        return result

    def __exit__(self, *exc: Any) -> Any:
        return self._await(self._exit(self._manager, *exc))


def not_a_context_manager(kind: type) -> str:
    return f"{kind.__name__!r} object does not support the asynchronous context manager protocol"


class async_iter(Iterator[T_co]):
    """An async iterable, for a plain `for`.

    Where its iterator has `asend`, `athrow` and `aclose`, this one has `send`, `throw` and
    `close`, so `yield from async_iter(agen)` works as a generator does. Raises TypeError for an
    object that `async for` would refuse. Meaning as in greenback.
    """

    __slots__ = ("_source",)
    _source: Any
    _await = staticmethod(await_)

    def __new__(cls, iterable: AsyncIterable[T_co]) -> async_iter[T_co]:
        kind: Any = type(iterable)
        if getattr(kind, "__aiter__", None) is None:
            raise TypeError(
                f"'async_iter' requires an object with __aiter__ method, got {kind.__name__}"
            )
        source: Any = kind.__aiter__(iterable)
        kind = type(source)
        if getattr(kind, "__anext__", None) is None:
            raise TypeError(
                "'async_iter' received an object from __aiter__ that does not implement "
                f"__anext__: {kind.__name__}"
            )
        full = all(hasattr(source, method) for method in ("asend", "athrow", "aclose"))
        self = object.__new__(cls._with_generator_methods() if full else cls)
        self._source = source
        return self

    @classmethod
    def _with_generator_methods(cls) -> type[async_iter[T_co]]:
        return async_generator_iter

    def __repr__(self) -> str:
        return f"fiberback.async_iter({self._source!r})"

    def __iter__(self) -> async_iter[T_co]:
        return self

    def __next__(self) -> T_co:
        return self._step(type(self._source).__anext__(self._source))

    def _step(self, step: Awaitable[T_co]) -> T_co:
        try:
            return self._await(step)
        except StopAsyncIteration as end:
            raise StopIteration(*end.args) from end


class async_generator_iter(async_iter[T_co]):
    """What `async_iter` makes of a source that is a full async generator."""

    __slots__ = ()

    def send(self, value: Any) -> T_co:
        return self._step(self._source.asend(value))

    def throw(self, *exc: Any) -> T_co:
        return self._step(self._source.athrow(*exc))

    def close(self) -> None:
        self._await(self._source.aclose())
