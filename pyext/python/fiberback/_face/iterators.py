"""Iterators: the sync ones that stand for async ones, and async ones that stand for the sync ones passed in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

from .._await.wrappers import async_generator_iter, async_iter
from .._portal.call_portal import go_on_in_sync


class SyncIterator(async_iter[Any]):
    """An async iterator for a plain `for`. `asyn` is the async one."""

    __slots__ = ("_await",)

    @classmethod
    def _with_generator_methods(cls) -> type[async_iter[Any]]:
        return SyncGenerator

    @property
    def asyn(self) -> Any:
        return self._source

    def __repr__(self) -> str:
        return f"fiberback.syncify({self._source!r})"


class SyncGenerator(SyncIterator, async_generator_iter[Any]):
    """With `send`, `throw` and `close`."""

    __slots__ = ()


def sync_iterator(source: Any, wait: Callable[[Any], Any]) -> Any:
    made: Any = SyncIterator.__new__(SyncIterator, source)
    made._await = wait
    return made


class Items(Iterator[Any]):
    """A generator with something done to each item."""

    __slots__ = ("_each", "_source")

    def __init__(self, source: Any, each: Callable[[Any], Any]) -> None:
        self._source, self._each = source, each

    def __next__(self) -> Any:
        return self._each(next(self._source))

    def send(self, value: Any) -> Any:
        return self._each(self._source.send(value))

    def throw(self, *exc: Any) -> Any:
        return self._each(self._source.throw(*exc))

    def close(self) -> None:
        self._source.close()


async def async_iterator(source: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """A sync iterable for `async for`; what it does for an item may wait."""
    iterator = iter(source)
    end = object()
    try:
        while (item := await go_on_in_sync(next, iterator, end)) is not end:
            yield item
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            await go_on_in_sync(close)
