"""The event loop, in another thread, that a thread works for.

In this order:

- what the thread was told: by `fiberback.to_thread`, or a `parent_loop` block;
- the loop that awaits the executor's work item that runs on this stack (`asyncio.to_thread`,
  `loop.run_in_executor`): the item's future has a callback from asyncio that names it;
- Trio's and AnyIO's own worker threads;
- the context, where it was copied from a task of `fiberback.run`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextvars
import os
import sys
import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from .. import _messages
from .._deadlock import blocked_thread
from .._fiberback import frames_from, leak
from .._modules import is_loaded
from . import anyio_worker, generators, own_pool, trio_worker
from .channel import Line


class Parent(Protocol):
    def wait(self, awaitable: Any) -> Any: ...


class _Mine(threading.local):
    # None: a parent process's.
    told: tuple[Parent | None, ...] = ()
    # The stack of this thread is, in its outer part, a parent process's.
    is_forked = False
    lines: _Lines | None = None


class _Lines:
    """Lines of a thread that nobody closes before its end, by loop."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = WeakKeyDictionary()

    def __del__(self) -> None:
        for line in self.of.values():
            line.close()


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
        line = _of_work_item()
        if line is not None:
            return line
        if is_loaded("trio") and trio_worker.is_worker():
            return _TRIO
        if is_loaded("anyio"):
            line = anyio_worker.find_line(sys._getframe(1))
            if line is not None:
                return line
    marked = _marked.get()
    if marked is None or marked[1] is not _process or marked[2] == threading.get_ident():
        return None
    loop = marked[0]()
    return line_to(loop) if loop is not None else _GONE


def line_to(loop: asyncio.AbstractEventLoop) -> Line:
    if _mine.lines is None:
        _mine.lines = _Lines()
    of = _mine.lines.of
    line = of.get(loop)
    if line is None:
        for other in [each for each in of if each.is_closed()]:
            del of[other]
        line = of[loop] = Line(loop)
    return line


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
        parent: Any = Line(self._loop) if self._loop is not None else trio_worker.Line(self._token)
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
    """`parent_loop` with a line that somebody else made and closes."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> None:
        generators.note()
        _mine.told = (*_mine.told, self._line)

    def __exit__(self, *_: object) -> None:
        _mine.told = _mine.told[:-1]


# Executors' work items.

# Lines of work items whose loop was found, and the items of which we know that no loop awaits them.
_lines: WeakKeyDictionary[Future[Any], Line] = WeakKeyDictionary()
_unawaited: WeakKeyDictionary[Future[Any], bool] = WeakKeyDictionary()
# Seconds; asyncio needs microseconds from submitting a work item to the callback on its future.
_SUBMITTING = 0.25
_executor: Any = concurrent.futures.thread.ThreadPoolExecutor
_base_loop: Any = asyncio.BaseEventLoop
_SUBMITS = {
    _executor.submit.__code__,
    _base_loop.run_in_executor.__code__,
    asyncio.futures.wrap_future.__code__,
}


def _of_work_item() -> Line | None:
    future = blocked_thread.work_future(sys._getframe(1))
    if future is None:
        return None
    line = _lines.get(future)
    if line is not None:
        return line
    until = time.monotonic() + _SUBMITTING
    result = own_pool.awaited_through(future)
    while result is None and future not in _unawaited:
        # The item may have begun before whoever submitted it got to adding the callback.
        submitting = _is_submitting()
        result = own_pool.awaited_through(future)
        if result is None and (not submitting or time.monotonic() > until):
            _unawaited[future] = True
        elif result is None:
            time.sleep(0.0005)
    if result is None:
        return None
    line = _lines[future] = Line(result.get_loop(), result)
    future.add_done_callback(_is_over)
    return line


def _is_over(future: Future[Any]) -> None:
    line = _lines.pop(future, None)
    if line is not None:
        line.close()


def _is_submitting() -> bool:
    """Whether some other thread is on the way from submitting a work item to awaiting it."""
    mine = threading.get_ident()
    for ident, frame in sys._current_frames().items():
        if ident != mine and any(one.f_code in _SUBMITS for one in frames_from(frame, 8)):
            return True
    return False


class _Gone:
    def wait(self, awaitable: Any) -> Any:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise RuntimeError(_messages.LOOP_CLOSED)


_TRIO, _GONE = trio_worker.Worker(), _Gone()


def is_of_trio(parent: Any) -> bool:
    """Whether what `find` has found is a Trio run."""
    return isinstance(parent, (trio_worker.Worker, trio_worker.Line))


def _after_fork() -> None:
    """In a forked child no loop runs that a thread of the parent worked for."""
    global _process
    _process = object()
    _mine.is_forked = True
    _mine.told = (None,) * len(_mine.told)
    leak(_mine.lines)  # which would be closed at their loops
    _mine.lines = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
