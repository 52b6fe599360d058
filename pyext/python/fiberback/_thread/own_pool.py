"""A pool whose threads all wait in `await_`, and what they wait for is work for that very pool.

Nobody could ever do it but one of these threads. So a thread that has waited for a while looks whether
its pool is in that state, and does that work on top of its stack. Only what it waits for itself, and
what would have had its turn before that: anything else may need what the waiting code has locked.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import thread as pools
from types import CodeType, FrameType
from typing import Any

from .._deadlock import wait_cycle
from .._fiberback import local_of

_pools: Any = pools
_WORKER: CodeType = _pools._worker.__code__
_REFERENCE = _WORKER.co_varnames.index("executor_reference")

# Seconds between two looks.
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 0.5

# The threads that look.
_waiting: set[int] = set()


def of_stack() -> Any:
    """The pool that this thread belongs to, or None."""
    reference = local_of(_WORKER, _REFERENCE)
    return reference() if reference is not None else None


def help_out(frame: FrameType | None, task: asyncio.Task[Any] | None) -> bool:
    """Do what `task`, for which this thread waits, waits for, if no thread is left for that.

    Whether anything was done. `frame` is the end of the thread's stack.
    """
    worker = _worker_of(frame)
    if worker is None or task is None:
        return False
    _waiting.add(threading.get_ident())
    try:
        return _help_out(worker, task)
    except (AttributeError, KeyError):  # no pool of the standard library's
        return False


def is_in_pool() -> bool:
    """Whether this thread is a pool's."""
    return local_of(_WORKER, _REFERENCE) is not None


class Helper:
    """Helps out now and then while a pool's thread runs a loop of its own for `host`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Any) -> None:
        self._host = host
        self._loop = loop
        self._context = contextvars.Context()
        self._pause = _FIRST_LOOK
        self._set()

    def _set(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._look, context=self._context)

    def _look(self) -> None:
        helped = help_out(sys._getframe(), self._host.task)
        self._pause = _FIRST_LOOK if helped else min(2 * self._pause, _LONGEST_LOOK)
        self._set()

    def end(self) -> None:
        self._timer.cancel()
        waits_no_more()


def waits_no_more() -> None:
    _waiting.discard(threading.get_ident())


def _help_out(worker: FrameType, task: asyncio.Task[Any]) -> bool:
    local = worker.f_locals
    pool, work = local["executor_reference"](), local["work_queue"]
    if pool is None or work.empty() or len(pool._threads) < pool._max_workers:
        return False
    if any(thread.ident not in _waiting for thread in pool._threads):
        return False
    context = (local["ctx"],) if "ctx" in local else ()
    waiting = _waiting.copy()
    _waiting.discard(threading.get_ident())
    try:
        items = _take(pool, work, task)
        for item in items:
            item.run(*context)
    finally:
        _waiting.update(waiting & {threading.get_ident()})
    return bool(items)


def _take(pool: Any, work: Any, task: asyncio.Task[Any]) -> list[Any]:
    """Out of the queue what is to be done, in order. Nobody adds to it meanwhile."""
    with pool._shutdown_lock:
        items = []
        while True:
            try:
                items.append(work.get_nowait())
            except queue.Empty:
                break
        count = max(
            (at + 1 for at, item in enumerate(items) if _is_waited_for(item, task)), default=0
        )
        taken = []
        for at, item in enumerate(items):
            if at < count and item is not None:
                taken.append(item)
            else:
                work.put(item)
        return taken


def _is_waited_for(item: Any, task: asyncio.Task[Any]) -> bool:
    result = awaited_through(item.future) if item is not None else None
    return result is not None and wait_cycle.find_circle(result, task) is not None


def _worker_of(frame: FrameType | None) -> FrameType | None:
    while frame is not None:
        if frame.f_code is _WORKER:
            return frame
        frame = frame.f_back
    return None


def awaited_through(future: Future[Any]) -> asyncio.Future[Any] | None:
    """asyncio's future that is set when `future` is, if there is one.

    The callback that `asyncio.wrap_future` puts on `future` is a closure over it.
    """
    for callback in list(getattr(future, "_done_callbacks", ())):
        code = getattr(callback, "__code__", None)
        if code is None or code.co_filename != asyncio.futures.__file__:
            continue
        for name, cell in zip(code.co_freevars, callback.__closure__ or (), strict=False):
            if name == "destination" and asyncio.isfuture(cell.cell_contents):
                found: asyncio.Future[Any] = cell.cell_contents
                return found
    return None
