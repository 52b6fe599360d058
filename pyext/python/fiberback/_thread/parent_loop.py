"""The event loop, in another thread, that a thread works for.

In this order:

- what the thread was told: by `fiberback.to_thread`, or a `parent_loop` block;
- the loop that awaits the executor's work item that runs on this stack;
- Trio's and AnyIO's own worker threads;
- the context, where it was copied from a task of `fiberback.run`.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from .. import _messages
from .._fiberback import leak
from .._modules import is_loaded
from . import anyio_worker, executor_worker, generators, trio_worker
from .channel import Channel


class Parent(Protocol):
    def wait(self, awaitable: Any) -> Any: ...


class _Mine(threading.local):
    # None: a parent process's.
    told: tuple[Parent | None, ...] = ()
    # The stack of this thread is, in its outer part, a parent process's.
    is_forked = False
    channels: _Channels | None = None


class _Channels:
    """Channels of a thread that nobody closes before its end, by loop."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[asyncio.AbstractEventLoop, Channel] = WeakKeyDictionary()

    def __del__(self) -> None:
        for channel in self.of.values():
            channel.close()


_mine = _Mine()

# Of a process: a forked child gets another one.
_process = object()

# The loop, its process, and its thread: once the loop is over, that thread may use the context on its
# own.
_marked: contextvars.ContextVar[tuple[ref[asyncio.AbstractEventLoop], object, int] | None] = (
    contextvars.ContextVar("fiberback_parent_loop", default=None)
)


def mark(loop: asyncio.AbstractEventLoop) -> None:
    """Let code that runs in a copy of this context, in a thread without a loop, find `loop`."""
    _marked.set((ref(loop), _process, threading.get_ident()))


def find() -> Parent | None:
    told = _mine.told
    if told and told[-1] is not None:
        return told[-1]
    if not _mine.is_forked:
        channel = executor_worker.find_channel()
        if channel is not None:
            return channel
        if is_loaded("trio") and trio_worker.is_worker():
            return _TRIO
        if is_loaded("anyio"):
            channel = anyio_worker.find_channel()
            if channel is not None:
                return channel
    marked = _marked.get()
    if marked is None or marked[1] is not _process or marked[2] == threading.get_ident():
        return None
    loop = marked[0]()
    return channel_to(loop) if loop is not None else _GONE


def channel_to(loop: asyncio.AbstractEventLoop) -> Channel:
    if _mine.channels is None:
        _mine.channels = _Channels()
    of = _mine.channels.of
    channel = of.get(loop)
    if channel is None:
        for other in [each for each in of if each.is_closed()]:
            del of[other]
        channel = of[loop] = Channel(loop)
    return channel


class parent_loop:
    """A `with` block whose `await_` calls, in a thread where no event loop runs, run on `loop`.

    For threads that cannot know it otherwise: a plain `threading.Thread`, or a pool's threads::

        def worker(loop):
            with fiberback.parent_loop(loop):
                fiberback.await_(work())

        ThreadPoolExecutor(initializer=fiberback.parent_loop(loop).__enter__)

    All that a thread awaits in a block runs in one task, and in the thread's own context.
    `loop` is an asyncio or uvloop event loop that runs in another thread, or a `trio.TrioToken`.
    Raises TypeError for anything else. Blocks nest; each holds for the thread that enters it.
    """

    def __init__(self, loop: Any) -> None:
        if callable(getattr(loop, "call_soon_threadsafe", None)):
            self._loop: asyncio.AbstractEventLoop | None = loop
        elif callable(getattr(loop, "run_sync_soon", None)):
            self._loop, self._token = None, loop
        else:
            raise TypeError(_messages.NOT_A_LOOP.format(value=loop))

    def __repr__(self) -> str:
        return f"fiberback.parent_loop({self._token if self._loop is None else self._loop!r})"

    def __enter__(self) -> None:
        generators.note()
        parent: Any = (
            Channel(self._loop) if self._loop is not None else trio_worker.Channel(self._token)
        )
        _mine.told = (*_mine.told, parent)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        parent: Any
        *outer, parent = _mine.told
        _mine.told = tuple(outer)
        if parent is not None:
            parent.close()


class told:
    """`parent_loop` with a channel that somebody else made and closes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        generators.note()
        _mine.told = (*_mine.told, self._channel)

    def __exit__(self, *_: object) -> None:
        _mine.told = _mine.told[:-1]


class _Gone:
    def wait(self, awaitable: Any) -> Any:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise RuntimeError(_messages.LOOP_CLOSED)


_TRIO, _GONE = trio_worker.Worker(), _Gone()


def is_of_trio(parent: Any) -> bool:
    """Whether what `find` has found is a Trio run."""
    return isinstance(parent, (trio_worker.Worker, trio_worker.Channel))


def _after_fork() -> None:
    """In a forked child no loop runs that a thread of the parent worked for."""
    global _process
    _process = object()
    _mine.is_forked = True
    _mine.told = (None,) * len(_mine.told)
    leak(_mine.channels)  # which would be closed at their loops
    _mine.channels = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
