"""Stands in for devlib: the names of `devlib.utils.asyn`, for code that has blocking and async callers.

`from fiberback import devlib as asyn` is all that changes. `asyncf` makes one async function two, `f(...)` that
waits and `f.asyn(...)`; `run` may be called where an event loop runs, and that goes on. Waits are those of
`fiberback.sync(..., fallback="thread")`: in the caller's task and loop wherever that can be. Nothing is bound to
the thread that made it, no greenlet is needed, and no task factory is installed.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import inspect
import itertools
import os.path
import pathlib
from asyncio import Task
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from . import _messages
from ._await.wrappers import async_context, async_generator_iter
from ._portal.call_portal import as_coroutine, coroutine_of, with_portal_run
from ._sync.call import SyncFunction, sync

__all__ = [
    "AsyncManager",
    "ConcurrentAccessBase",
    "PathAccess",
    "allow_nested_run",
    "asynccontextmanager",
    "asyncf",
    "compose",
    "create_task",
    "memoized_method",
    "run",
]

T = TypeVar("T")
K = TypeVar("K")
P = ParamSpec("P")


def run(coro: Awaitable[T]) -> T:
    """Wait for `coro`, any awaitable, in sync code: also where an event loop runs, which goes on meanwhile.

    It runs in the caller's context: what it sets there is set afterwards. Where the caller's own loop cannot
    wait (uvloop without a portal), that one is blocked, while the loop of a helper thread runs `coro`; see
    `fiberback.sync`. Raises what `coro` raises, and what `fiberback.sync` does.
    """
    return sync(as_coroutine(coro) if inspect.isasyncgen(coro) else coro, fallback="thread")


def allow_nested_run(coro: Awaitable[T]) -> Coroutine[Any, Any, T]:
    """`coro` with a portal: sync code below it may `run` on any loop, uvloop's too. May be awaited in any thread."""
    return with_portal_run(lambda: coro)


def compose(*coros: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """`await compose(f, g)(x)` is `await f(await g(x))`; functions that are not async may be among them."""

    async def composed(*args: Any, **kwds: Any) -> Any:
        *others, first = coros or (_itself,)
        value = first(*args, **kwds)
        while True:
            if inspect.isawaitable(value):
                value = await value
            if not others:
                return value
            value = others.pop()(value)

    return composed


def _itself(value: T) -> T:
    return value


class _Blocking(SyncFunction[P, T]):
    """What `asyncf` makes: of an async generator function, one whose call gives a plain generator."""

    def __init__(self, asyn: Callable[P, Any]) -> None:
        super().__init__(asyn, "thread")

    def __call__(self, *args: P.args, **kwds: P.kwargs) -> T:
        value: Any = self.asyn(*args, **kwds)
        waited: T = run(value) if not isinstance(value, AsyncGenerator) else cast("T", _iter(value))
        return waited

    def _bound(self, asyn: Callable[..., Any]) -> _Blocking[..., T]:
        return _Blocking(asyn)

    def __getattr__(self, name: str) -> Any:
        if name == "asyn" or name.startswith("__"):  # it is not to look like an async function
            raise AttributeError(name)
        return getattr(self.asyn, name)

    def __repr__(self) -> str:
        return f"fiberback.devlib.asyncf({self.asyn!r})"


def asyncf(f: Callable[P, Awaitable[T]]) -> SyncFunction[P, T]:
    """A function that waits, of an async one, which stays there as `.asyn`; as `fiberback.sync` has it.

    On functions and methods; of class methods, `.asyn` is bound where it is above `@classmethod`. Of an async
    generator function, the call gives a generator. Other attributes are the async function's::

        @asyncf
        async def pull(path): ...

        pull("a")               # from sync code, whatever runs there
        await pull.asyn("a")    # from async code
    """
    return _Blocking(f)


class _Iter(async_generator_iter[T]):
    __slots__ = ()
    _await = staticmethod(run)


def _iter(source: AsyncIterator[T]) -> _Iter[T]:
    wrapped: _Iter[T] = object.__new__(_Iter)
    wrapped._source = source
    return wrapped


class _Context(async_context[T]):
    """For `async with` and for a plain `with`."""

    __slots__ = ()
    _await = staticmethod(run)

    async def __aenter__(self) -> T:
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)


def asynccontextmanager(f: Callable[P, AsyncIterator[T]]) -> Callable[P, _Context[T]]:
    """`contextlib.asynccontextmanager`, whose managers serve in a plain `with`, too."""
    make: Callable[P, AbstractAsyncContextManager[T]] = contextlib.asynccontextmanager(f)

    @functools.wraps(f)
    def wrapper(*args: P.args, **kwds: P.kwargs) -> _Context[T]:
        return _Context(make(*args, **kwds))

    return wrapper


class memoized_method(Generic[P, T]):
    """A method, async or not, whose results are kept in each object, by its arguments, which are hashable."""

    def __init__(self, f: Callable[P, T]) -> None:
        functools.update_wrapper(self, f)
        signature = inspect.signature(f)
        self._name = f.__name__
        is_async = inspect.iscoroutinefunction(f)

        def look_up(args: Any, kwds: Any) -> tuple[dict[Any, Any], Any]:
            bound = signature.bind(*args, **kwds)
            bound.apply_defaults()
            cache = vars(args[0]).setdefault(f"__memoization_cache_of_{self._name}", {})
            return cache, (bound.args[1:], tuple(sorted(bound.kwargs.items())))

        @functools.wraps(f)
        def method(*args: P.args, **kwds: P.kwargs) -> Any:
            cache, key = look_up(args, kwds)
            if key not in cache:
                cache[key] = f(*args, **kwds)
            return cache[key]

        @functools.wraps(f)
        async def async_method(*args: P.args, **kwds: P.kwargs) -> Any:
            cache, key = look_up(args, kwds)
            if key not in cache:
                awaitable: Any = f(*args, **kwds)
                cache[key] = await awaitable
            return cache[key]

        self.f: Callable[..., Any] = async_method if is_async else method

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __call__(self, *args: P.args, **kwds: P.kwargs) -> T:
        result: T = self.f(*args, **kwds)
        return result

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., T]:
        bound: Callable[..., T] = self.f.__get__(instance, owner)
        return bound


def create_task(awaitable: Awaitable[T], name: str | None = None) -> Task[T]:
    """A task of the running loop for any awaitable, called `name`, or as what is awaited is called."""
    task = (
        awaitable if isinstance(awaitable, Task) else asyncio.create_task(coroutine_of(awaitable))
    )
    task.set_name(name or getattr(awaitable, "__qualname__", None) or task.get_name())
    return task


class ConcurrentAccessBase(abc.ABC):
    """An access to a resource, of which two may get in each other's way."""

    @abc.abstractmethod
    def overlap_with(self, other: Any) -> bool:
        """Whether it gets in the way of `other`, which is of this class."""


class PathAccess(ConcurrentAccessBase):
    """Reading (`mode="r"`) or writing (`"w"`) below `path`, in the `namespace` "host" or "target".

    Two overlap if one of them writes and one path is the other, or lies below it.
    """

    def __init__(self, namespace: str, path: str, mode: str) -> None:
        if namespace not in ("host", "target") or mode not in ("r", "w"):
            raise ValueError(_messages.DEVLIB_ACCESS.format(namespace=namespace, mode=mode))
        self.namespace = namespace
        self.mode = mode
        self.path = os.path.abspath(path) if namespace == "host" else os.path.normpath(path)

    def overlap_with(self, other: PathAccess) -> bool:
        if self.namespace != other.namespace or "w" not in (self.mode, other.mode):
            return False
        mine, theirs = pathlib.Path(self.path), pathlib.Path(other.path)
        if self.namespace == "host":
            mine, theirs = mine.resolve(), theirs.resolve()
        return mine.is_relative_to(theirs) or theirs.is_relative_to(mine)

    def __str__(self) -> str:
        return f"{self.path} ({'read' if self.mode == 'r' else 'write'})"

    def __repr__(self) -> str:
        return f"fiberback.devlib.PathAccess({self.namespace!r}, {self.path!r}, {self.mode!r})"


class _Branch:
    """One of the things that a manager runs concurrently, and what has been accessed in it."""

    def __init__(self, manager: AsyncManager, name: str, outer: _Branch | None) -> None:
        self.manager = manager
        self.name = name
        self.outer = outer
        self.accesses: set[ConcurrentAccessBase] = set()


# Followed by whatever the branch starts: tasks, threads, blocking calls.
_branch: ContextVar[_Branch | None] = ContextVar("fiberback.devlib", default=None)


class AsyncManager:
    """Runs awaitables concurrently, and tells if they have got in each other's way."""

    def track_access(self, access: ConcurrentAccessBase) -> None:
        """Note an access by what runs here; `concurrently` compares it with those of the others."""
        branch = self._current()
        if branch is not None:
            branch.accesses.add(access)

    def _current(self) -> _Branch | None:
        branch = _branch.get()
        while branch is not None and branch.manager is not self:
            branch = branch.outer
        return branch

    async def concurrently(self, awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
        """The results, in order. The first error cancels the others, and is raised when they have ended.

        Raises RuntimeError if two of them, or what they have started, have accessed what overlaps.
        """
        awaitables = list(awaitables)
        if len(awaitables) == 1:
            return [await awaitables[0]]
        outer = _branch.get()
        branches: list[_Branch] = []
        tasks: list[Task[Any]] = []
        try:
            for each in awaitables:
                name = getattr(each, "__qualname__", None) or type(each).__qualname__
                branch = _Branch(self, name, outer)
                branches.append(branch)
                token = _branch.set(branch)
                try:
                    tasks.append(create_task(each, name))
                finally:
                    _branch.reset(token)
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            self._check(branches)

    def _check(self, branches: list[_Branch]) -> None:
        for one, other in itertools.combinations(branches, 2):
            for mine, theirs in itertools.product(one.accesses, other.accesses):
                if isinstance(theirs, type(mine)) and mine.overlap_with(theirs):
                    raise RuntimeError(
                        _messages.DEVLIB_OVERLAP.format(
                            mine=mine, one=one.name, theirs=theirs, other=other.name
                        )
                    )
        current = self._current()
        if current is not None:
            current.accesses.update(*(each.accesses for each in branches))

    async def map_concurrently(
        self, f: Callable[[K], Awaitable[T]], keys: Iterable[K]
    ) -> dict[K, T]:
        """`f` of each of `keys`, `concurrently`: a dictionary of the results."""
        keys = list(keys)
        return dict(zip(keys, await self.concurrently(map(f, keys)), strict=True))
