"""`gather` and `map`: the results of many tasks, in order."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Literal, TypeVar, overload

from .. import _messages
from . import child
from .task_group import TaskGroup, TaskHandle, check

T = TypeVar("T")
Item = TypeVar("Item")


@overload
def gather(
    *aws_or_fns: Awaitable[T] | Callable[[], Awaitable[T]],
    limit: int | None = ...,
    return_exceptions: Literal[False] = ...,
) -> list[T]: ...
@overload
def gather(
    *aws_or_fns: Callable[[], T], limit: int | None = ..., return_exceptions: Literal[False] = ...
) -> list[T]: ...
@overload
def gather(
    *aws_or_fns: Awaitable[T] | Callable[[], Awaitable[T]],
    limit: int | None = ...,
    return_exceptions: bool,
) -> list[T | BaseException]: ...
@overload
def gather(
    *aws_or_fns: Callable[[], T], limit: int | None = ..., return_exceptions: bool
) -> list[T | BaseException]: ...
def gather(
    *aws_or_fns: Any, limit: int | None = None, return_exceptions: bool = False
) -> list[Any]:
    """Wait for several things at once, from sync code; their results, in the order of the arguments.

    Each is an awaitable, or a function without arguments, sync or async; each runs in a task of its own, as
    in a `TaskGroup`, at most `limit` at once::

        page, feed = fiberback.gather(client.get("/page"), lambda: parse(load_feed()))

    As `asyncio.gather`, it raises the first exception itself. Unlike that, it leaves nothing behind: the others
    are cancelled first, and have ended; what these raise meanwhile is told in notes of the first. So it is
    when the caller is cancelled. With `return_exceptions=True`, exceptions are among the results, and
    nothing is cancelled for them.

    Raises TypeError for an argument that is neither, before anything is begun.
    """
    for each in aws_or_fns:
        if not (inspect.isawaitable(each) or callable(each)):
            _close(aws_or_fns)
            raise TypeError(_messages.GATHER_WHAT.format(value=each))
    try:
        return _all(((_begin, each) for each in aws_or_fns), limit, return_exceptions)
    finally:
        _close(aws_or_fns)


@overload
def map(
    fn: Callable[[Item], Awaitable[T]], items: Iterable[Item], /, *, limit: int | None = ...
) -> list[T]: ...
@overload
def map(
    fn: Callable[[Item], T], items: Iterable[Item], /, *, limit: int | None = ...
) -> list[T]: ...
def map(
    fn: Callable[[Any], Any], items: Iterable[Any], /, *, limit: int | None = None
) -> list[Any]:
    """`[fn(item) for item in items]`, each call in a task of its own, at most `limit` at once.

    `fn` is sync or async. Items are taken as there is room, by the calling code, so their iterator may
    `await_`. The results are in the order of the items. Failures and cancellation are as in `gather`. Raises
    TypeError for an `fn` that cannot be called. Not in `__all__`, because of the built-in function of the same
    name.
    """
    check(fn)
    return _all(((fn, item) for item in items), limit, False)


def _all(
    calls: Iterator[tuple[Callable[[Any], Any], Any]], limit: int | None, return_exceptions: bool
) -> list[Any]:
    failures: list[Exception] = []  # as they come
    run = _settled if return_exceptions else _noted
    handles: list[TaskHandle[Any]] = []
    try:
        with TaskGroup(limit=limit) as group:
            try:
                for fn, item in calls:
                    try:
                        handle = group.start(run, fn, item, failures)
                    except RuntimeError:
                        if failures:
                            break  # it starts no more; its end says why
                        raise
                    handles.append(handle)
            except Exception as error:
                failures.append(error)
                raise
    except BaseExceptionGroup:
        if not failures:
            raise
    if failures:  # raised here, out of the group's `except`: its context is its own
        first, *others = failures
        for other in others:
            first.add_note(f"Another task failed meanwhile: {other!r}")
        raise first
    return [_result(handle, return_exceptions) for handle in handles]


def _result(handle: TaskHandle[Any], return_exceptions: bool) -> Any:
    try:
        return handle.result()
    except (asyncio.CancelledError, CancelledError) as error:
        if return_exceptions:
            return error
        raise


async def _noted(fn: Callable[[Any], Any], item: Any, failures: list[Exception]) -> Any:
    try:
        return await child.call(fn, (item,), {})
    except Exception as error:
        failures.append(error)
        raise


async def _settled(fn: Callable[[Any], Any], item: Any, _failures: list[Exception]) -> Any:
    try:
        return await child.call(fn, (item,), {})
    except Exception as error:
        return error


def _begin(each: Any) -> Any:
    return each if inspect.isawaitable(each) else each()


def _close(given: tuple[Any, ...]) -> None:
    """What was not begun is not to be warned about."""
    for each in given:
        if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
            each.close()
