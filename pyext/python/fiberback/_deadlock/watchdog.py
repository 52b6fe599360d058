"""Waits for tasks, looked at now and then for as long as they last: may they have become a circle?

Each loop has one timer for all of its waits. It is there only while one of them lasts: with the last
one it is taken out of the loop, so that the loop is afterwards as it was before. A handle that is
merely cancelled would stay in asyncio's heap, and be counted. So in loops that have that heap, the
handle is put in and taken out right there; it is used again and again, and knows the loop weakly.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, ref

from .._fiberback import position
from .._loop.parking import is_stock

# Seconds from the beginning of the first wait to the first look, and the longest time between two.
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 2.0

_heapq: Any = heapq  # whose own functions for a place in the middle are not in its stubs
_BASE = asyncio.BaseEventLoop

# Given a task and what it waits for, what to raise in it instead of letting it wait on.
Verdict: TypeAlias = Callable[[Any, Any], Exception | None]
# Makes one for the waits of one look: between these nothing changes.
Verdicts: TypeAlias = Callable[[], Verdict]
# A wait: where it is watched, the task, and what it waits for.
Wait: TypeAlias = tuple["_Watch", ref[Any], ref[Any]]


def after_wait(wait: Wait) -> None:
    """The wait that `add` returned has ended, however."""
    watch = wait[0]
    waits = watch.waits
    waits.pop(id(wait), None)
    if not waits:
        watch.timer.withdraw()


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, verdicts: Verdicts) -> None:
        self.loop = ref(loop)
        self._verdicts = verdicts
        self.waits: dict[int, Wait] = {}
        self._pause = _FIRST_LOOK
        self.timer: _HeapTimer | _Timer = (
            _HeapTimer(loop, self._look) if _has_heap(loop) else _Timer(loop, self._look)
        )

    def add(self, task: Any, future: Any) -> Wait:
        wait = (self, ref(task), ref(future))
        self.waits[id(wait)] = wait
        if not self.timer.is_set:
            self._pause = _FIRST_LOOK
            self.timer.set(_FIRST_LOOK)
        return wait

    def _look(self) -> None:
        self.timer.is_set = False
        verdict = self._verdicts()
        for key, (_, task_ref, future_ref) in list(self.waits.items()):
            task, future = task_ref(), future_ref()
            if task is None or future is None or task.done() or task._fut_waiter is not future:
                self.waits.pop(key, None)
                continue
            error = verdict(task, future)
            if error is not None:
                self.waits.pop(key, None)
                wake_with(error, task, future)
        if self.waits:
            self._pause = min(2 * self._pause, _LONGEST_LOOK)
            self.timer.set(self._pause)


def is_look(handle: Any) -> bool:
    """Whether the timer is a watch's, which wakes nobody whom it has no error for."""
    return getattr(handle._callback, "__func__", None) is _Watch._look


def wake_with(error: Exception, task: Any, future: Any) -> None:
    """Raises `error` in `task` where it waits for `future`."""
    loop = task.get_loop()
    for callback, context in list(future._callbacks or ()):
        if getattr(callback, "__self__", None) is task:
            future.remove_done_callback(callback)
            failed = loop.create_future()
            failed.set_exception(error)
            loop.call_soon(callback, failed, context=context)
            return


def _has_heap(loop: Any) -> bool:
    """Whether what `_scheduled` holds is what the loop calls, by asyncio's own code."""
    if not isinstance(getattr(loop, "_scheduled", None), list):
        return False
    of = type(loop)
    return is_stock(loop) or (of.call_later is _BASE.call_later and of.call_at is _BASE.call_at)


class _HeapTimer:
    """One call in the future, on a loop that keeps such calls in asyncio's heap."""

    def __init__(self, loop: Any, function: Any) -> None:
        self._loop = ref(loop)
        self._function = function
        self._handle: Any = None
        self.is_set = False

    def set(self, seconds: float) -> None:
        loop: Any = self._loop()  # it runs
        handle = self._handle
        if handle is None or handle._cancelled:
            # In a context of its own, which keeps nothing of a task's alive.
            context = contextvars.Context()
            proxy: Any = weakref.proxy(loop)
            handle = asyncio.TimerHandle(0, self._function, (), proxy, context)
            self._handle = handle
        handle._when = loop.time() + seconds
        handle._scheduled = True
        heapq.heappush(loop._scheduled, handle)
        self.is_set = True

    def withdraw(self) -> None:
        loop: Any = self._loop()
        handle = self._handle
        if loop is None or not self.is_set:
            return
        if handle._cancelled:  # by somebody else: the loop has counted it, and drops it
            self.is_set = False
            return
        # Once it is due it is among the ready ones, whose number the loop has counted: there it
        # stays until its turn, and does nothing then.
        if not handle._scheduled:
            return
        self.is_set = False
        handle._scheduled = False
        heap = loop._scheduled
        at = position(heap, handle)
        if at < 0:
            return  # the loop was closed
        last = heap.pop()
        if last is handle:
            return
        if at == 0:
            heapq.heapreplace(heap, last)
        else:
            heap[at] = last
            _heapq._siftup(heap, at)
            _heapq._siftdown(heap, 0, at)


class _Timer:
    """The same on any other loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Any) -> None:
        self._loop = ref(loop)
        self._function = function
        self._context = contextvars.Context()
        self._handle: Any = None  # a weak reference, because a handle keeps its loop alive
        self.is_set = False

    def set(self, seconds: float) -> None:
        loop: Any = self._loop()  # it runs
        self._handle = ref(loop.call_later(seconds, self._function, context=self._context))
        self.is_set = True

    def withdraw(self) -> None:
        handle = self._handle() if self.is_set else None
        if handle is not None:
            self.is_set = False
            handle.cancel()


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
# The one that was asked for last. It knows its loop weakly, so it keeps nothing alive.
_latest: _Watch | None = None


def watch_of(loop: asyncio.AbstractEventLoop, verdicts: Verdicts) -> _Watch:
    """The watch of a loop; `verdicts` makes what tells what is wrong with a wait, if anything."""
    global _latest
    watch = _latest
    if watch is None or watch.loop() is not loop:
        watch = _watches.get(loop)
        if watch is None:
            watch = _watches[loop] = _Watch(loop, verdicts)
        _latest = watch
    return watch
