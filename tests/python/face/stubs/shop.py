"""An async library, in all the ways in which things are async."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from decimal import Decimal
    from typing import Self

T = TypeVar("T")
P = ParamSpec("P")

Hook = Callable[["Order"], Awaitable[None]]
Key = str | int


def traced(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwds: P.kwargs) -> T:
        return await function(*args, **kwds)

    return call


class Page(Generic[T]):
    """Async iterated, and awaited page by page."""

    def __init__(self, items: list[T]) -> None:
        self.items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[T]:
        for item in self.items:
            yield item

    async def next(self) -> Page[T] | None:
        return None


class Order:
    def __init__(self, number: int, *, shop: Shop) -> None:
        self.number = number
        self.shop = shop

    async def price(self) -> Decimal:
        raise NotImplementedError

    async def aclose(self) -> None: ...


class Base:
    @property
    def name(self) -> str:
        return "name"

    @name.setter
    def name(self, value: str) -> None: ...

    @property
    async def stock(self) -> int:
        return 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...


class Shop(Base):
    limit: ClassVar[int] = 10

    def __init__(self, url: str, hooks: list[Hook] | None = None, timeout: float = 1.5) -> None:
        self.url = url
        self.last: Order | None = None

    @classmethod
    async def connect(cls, url: str, /) -> Self:
        return cls(url)

    @staticmethod
    async def ping(url: str) -> bool:
        return True

    @overload
    async def find(self, key: Key, many: Literal[True]) -> list[Order]: ...
    @overload
    async def find(self, key: Key, many: Literal[False] = ...) -> Order | None: ...
    async def find(self, key: Key, many: bool = False) -> list[Order] | Order | None:
        return [] if many else None

    @traced
    async def count(self, *, open: bool = True) -> int:
        return 0

    async def orders(self, limit: int | None = None) -> AsyncGenerator[Order, int]:
        _ = yield Order(1, shop=self)

    @contextlib.asynccontextmanager
    async def checkout(self, order: Order) -> AsyncIterator[Page[Order]]:
        yield Page([order])

    def on_order(self, hook: Hook) -> None: ...

    async def upload(self, parts: AsyncIterator[bytes]) -> int:
        return 0

    def read(self) -> str:
        return ""

    async def aread(self) -> bytes:
        return b""

    def set(self, names: set[str]) -> set[str]:
        return names

    @functools.cached_property
    def home(self) -> Order:
        return Order(0, shop=self)


async def open_shop(url: str) -> Shop:
    return Shop(url)


async def first(page: Page[T]) -> T:
    async for item in page:
        return item
    raise LookupError


VERSION = "1"
