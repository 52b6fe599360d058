"""An awaitable that knows whether anybody has begun to await it: `await_` may refuse before that."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from .._portal.call_portal import as_coroutine

T = TypeVar("T")


class Attempt(Generic[T]):
    """Awaits `awaitable`, once. Not a coroutine, which `await_` would close when it refuses."""

    __slots__ = ("_awaitable", "is_begun")

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._awaitable = awaitable
        self.is_begun = False

    def __await__(self) -> Generator[Any, Any, T]:
        self.is_begun = True  # by the first step, as this is a generator
        return (yield from as_coroutine(self._awaitable).__await__())

    def close(self) -> None:
        """It was refused: a coroutine is closed, so that it does not warn that nobody awaited it."""
        if not self.is_begun and isinstance(self._awaitable, Coroutine):
            self._awaitable.close()
