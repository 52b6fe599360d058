"""`no_await`: regions of code in which `await_` raises.

While a thread has regions open, the native `await_` asks `check` first. A region that was entered
below a coroutine (or an async generator) holds only while that one is running: while it is suspended
in a native `await`, the thread does other tasks' work. One that was entered outside every coroutine
holds for the thread until it is left.

So any number of regions may be open that do not hold here: those of tasks that are suspended in one. To
find what holds costs a look at the frames of the running stack, and nothing for each region or task.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from .. import _messages
from .._fiberback import set_guarded

T = TypeVar("T")
P = ParamSpec("P")

_SUSPENDABLE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class _Open:
    """A region that is open, once, as errors describe it."""

    __slots__ = ("described",)

    def __init__(self, described: str) -> None:
        self.described = described


class _Regions:
    """What is open in one thread; of each dict the last is the latest."""

    def __init__(self) -> None:
        # Entered outside every coroutine. (It is kept when it is empty: another thread may be about to
        # take the last one out of it.)
        self.of_thread: dict[_Open, None] = {}
        # Those that are bound to a coroutine, by its frame.
        self.of_frames: dict[FrameType, dict[_Open, None]] = {}

    def __bool__(self) -> bool:
        return bool(self.of_thread or self.of_frames)

    def add(self, region: _Open, frame: FrameType | None) -> None:
        bound = self.of_thread if frame is None else self.of_frames.setdefault(frame, {})
        bound[region] = None

    def remove(self, region: _Open, frame: FrameType | None) -> None:
        if frame is None:
            del self.of_thread[region]
            return
        bound = self.of_frames[frame]
        del bound[region]
        if not bound:
            del self.of_frames[frame]

    def in_force(self, frame: FrameType | None) -> _Open | None:
        """The region that holds for the code of `frame`; the innermost if there are several."""
        holds = self.of_thread
        # One that is bound to a coroutine was entered there or further in.
        while frame is not None and self.of_frames:
            bound = self.of_frames.get(frame)
            if bound is not None:
                holds = bound
                break
            frame = frame.f_back
        return next(reversed(holds), None)


class _Mine(threading.local):
    def __init__(self) -> None:
        self.open = _Regions()


_mine = _Mine()


class Region:
    """What `no_await` returns."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        # Where this region is entered: one may be entered again, inside itself or elsewhere.
        self._entered: list[tuple[_Regions, FrameType | None, _Open]] = []

    def __repr__(self) -> str:
        return f"fiberback.no_await({'' if self._name is None else repr(self._name)})"

    def __enter__(self) -> None:
        self._enter(sys._getframe(1))

    def _enter(self, frame: FrameType | None, where: str | None = None) -> None:
        where = where or _where(frame)
        while frame is not None and not frame.f_code.co_flags & _SUSPENDABLE:
            frame = frame.f_back
        region = _Open(self._described(where))
        _mine.open.add(region, frame)
        self._entered.append((_mine.open, frame, region))
        set_guarded(True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Where it was entered: a generator may be closed in another thread.
        regions, frame, region = self._entered.pop()
        regions.remove(region, frame)
        if not _mine.open:
            set_guarded(False)

    def __call__(self, fn: Callable[P, T]) -> Callable[P, T]:
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(_messages.NO_AWAIT_ASYNC.format(name=_name_of(fn)))
        if inspect.isgeneratorfunction(fn):
            raise TypeError(_messages.NO_AWAIT_GENERATOR.format(name=_name_of(fn)))
        code = getattr(inspect.unwrap(fn), "__code__", None)
        where = f"{_name_of(fn)}()"
        if code is not None:
            where += f", {code.co_filename}:{code.co_firstlineno}"

        @functools.wraps(fn)
        def call(*args: P.args, **kwds: P.kwargs) -> T:
            region = Region(self._name)
            region._enter(sys._getframe(1), where)
            try:
                return fn(*args, **kwds)
            finally:
                region.__exit__(None, None, None)

        return call

    def _described(self, where: str) -> str:
        return where if self._name is None else f"{self._name!r}, {where}"


def _name_of(fn: Any) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)


def _where(frame: FrameType | None) -> str:
    while frame is not None and frame.f_code.co_filename in _PLUMBING:
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}()"


_PLUMBING = {__file__, os.path.join(os.path.dirname(os.__file__), "contextlib.py")}


@overload
def no_await(name: str | None = None) -> Region: ...
@overload
def no_await(name: Callable[P, T], /) -> Callable[P, T]: ...
def no_await(name: Any = None) -> Any:
    """A region in which nothing waits: `await_` inside raises RuntimeError at once.

    asyncio promises that between two `await`s no other task runs; code below that may call `await_`
    takes the promise back. This restores it for a block, or for a function and all it calls::

        with fiberback.no_await("transfer"):
            account.balance -= amount
            other.balance += amount

        @fiberback.no_await
        def transfer(account, other, amount): ...

    Inside, `await_` raises in every mode, on a portal or not, in a loop or without one, and also where
    the awaitable is ready. It closes a coroutine that it is given. The error names the region: `name`,
    if given, and where it was entered. What the thread runs below the region counts as inside, an
    event loop run there included; other threads do not.

    A block in a coroutine or async generator holds while that one is running. If it is suspended in
    the block by a native `await`, which the reader sees, other tasks are not affected. A generator
    that yields in a block leaves it open, as with every context manager. So the decorator refuses
    generator functions and async functions, with TypeError: use a `with` block inside.

    While no region is open in a thread, `await_` costs what it costs without.
    """
    if callable(name):
        return Region(None)(name)
    return Region(name)


def check(awaitable: Any) -> None:
    """Raises RuntimeError if a region of this thread forbids `await_` here."""
    regions = _mine.open
    if not regions:  # the last one was left in another thread
        set_guarded(False)
        return
    region = regions.in_force(sys._getframe(1))
    if region is None:
        return
    if isinstance(awaitable, Coroutine):
        awaitable.close()
    raise RuntimeError(_messages.NO_AWAIT.format(region=region.described))


def forbids() -> bool:
    """Whether a region of this thread forbids `await_` here."""
    regions = _mine.open
    return bool(regions) and regions.in_force(sys._getframe(1)) is not None
