"""Stands in for greenback: its API with its errors, for programs written for greenback 1.3.

`import fiberback.greenback as greenback` is all that changes: every function here raises where
greenback raises and says what greenback says, even where `fiberback` itself could go on. Portals
made here and by `fiberback` serve each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
)
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from . import _fiberback
from ._await import wrappers as _wrappers
from ._fiberback import Portal
from ._loop import library as _library
from ._portal import call_portal as _call_portal
from ._portal import task_portal as _task_portal
from ._portal import trio_instrument as _trio_instrument

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

__version__ = "1.3.0"  # the greenback whose behaviour this module has

__all__ = [
    "AutoPortalInstrument",
    "async_context",
    "async_iter",
    "autoawait",
    "await_",
    "bestow_portal",
    "decorate_as_sync",
    "ensure_portal",
    "has_portal",
    "portals_for_children",
    "portals_for_tree",
    "with_portal_run",
    "with_portal_run_sync",
    "with_portal_run_tree",
]

_NO_PORTAL = (
    "You must create a greenback portal for this task in order to use 'greenback.await_()'. "
    "Try 'await greenback.ensure_portal()' or "
    "'await greenback.with_portal_run(some_fn, *args)'."
)
_MUST_YIELD = (
    "You must yield to the event loop (try 'await {library}.sleep(0)') after calling "
    "'greenback.bestow_portal()' on the current task before using the portal"
)
_TRIO_ONLY = "This function is only supported when running under Trio"


def _current_library() -> str:
    try:
        import sniffio  # greenback depends on it, and so do its users' `except` clauses
    except ImportError:
        library = _library.current_library()
        if library is None:
            raise RuntimeError("unknown async library, or not in async context") from None
        return library
    return str(sniffio.current_async_library())


def current_task() -> Any:
    """The running task; raises as greenback does where there is none."""
    library = _current_library()
    if library == "trio":
        import trio

        return trio.lowlevel.current_task()
    if library != "asyncio":
        raise RuntimeError(f"greenback does not support {library}")
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("No asyncio task is running")
    return task


def _portal(coro: Any) -> Portal:
    return Portal(coro)


def _is_known(task: Any) -> bool:
    """Whether the task has a portal, be it one that takes effect with its next step."""
    return _task_portal.has_portal_anywhere(task)


def await_(aw: Awaitable[T]) -> T:
    """Await `aw` from a sync function, in a task that has a portal."""
    try:
        task = current_task()
        if not _task_portal.usable_portal(task):
            if _is_known(task):
                raise RuntimeError(_MUST_YIELD.format(library=_current_library()))
            raise RuntimeError(_NO_PORTAL)
    except BaseException:
        if isinstance(aw, Coroutine):
            aw.close()
        raise
    steps: Awaitable[T] = aw
    if type(aw) is not CoroutineType and isinstance(aw, Coroutine):
        steps = _SteppedItself(aw)
    try:
        return _fiberback.await_(steps)
    except BaseException as error:
        trace = error.__traceback__
        if trace is None or trace.tb_next is None:
            raise
        raise error.with_traceback(trace.tb_next)  # noqa: B904 - it is the same exception


class _SteppedItself:
    """A coroutine of another kind than CPython's, stepped by its own `send` and `throw`.

    That is greenback's way; `await` and `fiberback.await_` step what its `__await__` returns.
    """

    __slots__ = ("close", "send", "throw")

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self.send = coro.send
        self.throw = coro.throw
        self.close = coro.close

    def __await__(self) -> _SteppedItself:
        return self

    def __iter__(self) -> _SteppedItself:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def bestow_portal(task: Any) -> None:
    """Give `task` a portal for the rest of its life, from its next step on."""
    if _is_known(task):
        return
    if not type(task).__module__.startswith("trio."):
        assert isinstance(task, asyncio.Task)
    _fiberback.bestow(task)


async def ensure_portal() -> None:
    """Give the current task a portal for the rest of its life. Always a checkpoint."""
    bestow_portal(current_task())
    await sys.modules[_current_library()].sleep(0)


def has_portal(task: Any = None) -> bool:
    """Whether `task`, by default the current one, can use `await_`. Never raises."""
    import sniffio

    try:
        running = current_task()
    except (RuntimeError, sniffio.AsyncLibraryNotFoundError):
        running = None
    if task is None or task is running:
        return running is not None and _task_portal.usable_portal(running)
    return _is_known(task)


async def with_portal_run(
    async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
) -> T:
    """`await async_fn(*args, **kwds)` with a portal for the length of that call."""
    task = current_task()
    if _is_known(task):
        return await async_fn(*args, **kwds)
    awaitable = async_fn(*args, **kwds)
    coro = awaitable if isinstance(awaitable, Coroutine) else _call_portal.as_coroutine(awaitable)
    result: T = await _call_portal.through(_portal(coro), task)
    return result


async def with_portal_run_sync(sync_fn: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> T:
    """`sync_fn(*args, **kwds)` with a portal for the length of that call."""
    task = current_task()
    if _is_known(task):
        return sync_fn(*args, **kwds)
    result: T = await _call_portal.through(_portal(_call_portal.call(sync_fn, args, kwds)), task)
    return result


def autoawait(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make an async function one that is called without `await`."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwds: P.kwargs) -> T:
        return await_(fn(*args, **kwds))

    return call


def decorate_as_sync(decorator: Callable[..., Any]) -> Callable[..., Any]:
    """Make a decorator for sync functions usable on an async function."""

    def decorate(async_fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        decorated = decorator(autoawait(async_fn))

        async def call(*args: Any, **kwds: Any) -> Any:
            return await with_portal_run_sync(decorated, *args, **kwds)

        return functools.wraps(decorated)(call)

    return decorate


class async_context(_wrappers.async_context[T_co]):
    """An async context manager, for a plain `with`."""

    __slots__ = ()
    _await = staticmethod(await_)


class async_iter(_wrappers.async_iter[T_co]):
    """An async iterable, for a plain `for`."""

    __slots__ = ()
    _await = staticmethod(await_)

    @classmethod
    def _with_generator_methods(cls) -> type[_wrappers.async_iter[T_co]]:
        return async_generator


class async_generator(_wrappers.async_generator_iter[T_co], async_iter[T_co]):
    """What `async_iter` makes of a source that is a full async generator."""

    __slots__ = ()
    _await = staticmethod(await_)


class AutoPortalInstrument(_trio_instrument.AutoPortalInstrument):
    """A Trio instrument that gives every new task of its scopes a portal."""

    _bestow = staticmethod(bestow_portal)


@contextlib.contextmanager
def portals_for_children() -> Iterator[None]:
    """Trio only: children of nurseries opened in this block have portals."""
    try:
        import trio

        task = trio.lowlevel.current_task()
    except Exception:
        raise RuntimeError(_TRIO_ONLY)  # noqa: B904 - greenback shows the cause as context
    with _trio_instrument.portals_for_children(task, AutoPortalInstrument):
        yield


@contextlib.asynccontextmanager
async def portals_for_tree() -> AsyncIterator[None]:
    """Trio only: this task and children of nurseries opened in this block have portals."""
    import trio

    with portals_for_children():
        if _is_known(current_task()):
            await trio.lowlevel.cancel_shielded_checkpoint()
            try:
                yield
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            async with _trio_instrument.detachable_portal(bestow_portal):
                yield


async def with_portal_run_tree(
    async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
) -> T:
    """Trio only: `with_portal_run`, and portals for the tasks started below it."""
    with portals_for_children():
        return await with_portal_run(async_fn, *args, **kwds)


# What greenback's own test-suite reaches for in its private modules.


class _TaskPortals:
    """Stands for greenback's table of tasks that have portals; truthy while any portal lives."""

    def __contains__(self, task: Any) -> bool:
        return _is_known(task)

    def __len__(self) -> int:
        return sum(type(thing) is Portal for thing in gc.get_objects())


task_portals = _TaskPortals()


def _aligned_ptr_offset_in_object(obj: object, referent: object) -> int | None:
    import ctypes

    words = obj.__sizeof__() // ctypes.sizeof(ctypes.c_void_p)
    layout = (ctypes.c_size_t * words).from_address(id(obj))
    for index in range(words):
        if layout[index] == id(referent):
            return index * ctypes.sizeof(ctypes.c_void_p)
    return None


_impl = _util = sys.modules[__name__]
