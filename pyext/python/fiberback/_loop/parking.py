"""Parking: what the native `await_` needs of asyncio to wait without a portal.

It keeps a stock event loop going on other stacks while callers wait on theirs. The native side
runs the loop's callbacks; what `BaseEventLoop._run_once` does before it gets to them is `_poll`
here, written after it: the same attributes and methods, so that subclasses which override those
find themselves called.
"""

from __future__ import annotations

import asyncio
import collections
import heapq
import math
import sys
import types
import warnings
from asyncio import _get_running_loop, _set_running_loop, base_events, tasks
from typing import Any

from .. import _messages
from .._fiberback import run_hosted, set_parking
from .._pure import choose
from . import closing
from .library import is_trio_in_charge

_SLEEP_LIMIT = 24 * 3600.0  # seconds; some selectors refuse longer waits


def _poll(loop: Any, limit: float | None) -> None:
    """Wait for something to do, at most `limit` seconds, and make the handles of that ready."""
    _drop_cancelled_timers(loop)
    ready, timers = loop._ready, loop._scheduled
    timeout = limit
    if ready:
        timeout = 0
    elif timers and limit != 0:
        timeout = min(max(timers[0]._when - loop.time(), 0), limit or _SLEEP_LIMIT)
    loop._process_events(loop._selector.select(timeout))
    timers = loop._scheduled
    if timers:
        now = loop.time()
        due = now + max(loop._clock_resolution, math.ulp(now))
        while timers and timers[0]._when < due:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            ready.append(handle)


def _drop_cancelled_timers(loop: Any) -> None:
    timers = loop._scheduled
    cancelled = loop._timer_cancelled_count
    if (
        len(timers) > base_events._MIN_SCHEDULED_TIMER_HANDLES  # type: ignore[attr-defined]
        and cancelled / len(timers) > base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION  # type: ignore[attr-defined]
    ):
        kept = []
        for handle in timers:
            if handle._cancelled:
                handle._scheduled = False
            else:
                kept.append(handle)
        heapq.heapify(kept)
        loop._scheduled = kept
        loop._timer_cancelled_count = 0
        return
    while timers and timers[0]._cancelled:
        loop._timer_cancelled_count -= 1
        heapq.heappop(timers)._scheduled = False


def _end_wait(loop: Any, task: Any, future: Any, is_over: bool) -> bool:
    """The loop is to stop, and cannot while this caller is parked on the loop's own stack.

    It has some time, unless all tasks are cancelled next anyway. Whether it was cancelled.
    """
    if not _is_asyncio_run():
        if not is_over:
            return False
        what = repr(task) if task is not None else f"a callback that waits for {future!r}"
        warnings.warn(_messages.PARKED_AT_STOP.format(what=what), RuntimeWarning, stacklevel=2)
    if task is not None:
        task.cancel(_messages.PARKED_AT_STOP_CANCEL)
    elif future is not None:
        future.cancel(_messages.PARKED_AT_STOP_CANCEL)
    return True


def _is_asyncio_run() -> bool:
    """Whether the loop's caller cancels all tasks next, anyway."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _RUN_UNTIL_COMPLETE:
            caller = frame.f_back
            outer = caller.f_back if caller is not None else None
            return outer is not None and outer.f_code in _RUNS
        frame = frame.f_back
    return False


_RUN_UNTIL_COMPLETE = base_events.BaseEventLoop.run_until_complete.__code__
_RUNS = {asyncio.run.__code__}


def _pad(loop: Any, count: int) -> None:
    """Have the next `count` handles be ones that do nothing."""
    handle = asyncio.Handle(int, (), loop)
    handle.cancel()
    loop._ready.extendleft([handle] * count)


def _slow(loop: Any, handle: Any, seconds: float) -> None:
    if seconds >= loop.slow_callback_duration:
        base_events.logger.warning(  # type: ignore[attr-defined]
            "Executing %s took %.3f seconds",
            base_events._format_handle(handle),  # type: ignore[attr-defined]
            seconds,
        )


_STOCK = base_events.BaseEventLoop._run_once  # type: ignore[attr-defined]


def _run_once(self: Any) -> None:
    """A loop's `_run_once` while fiberback is enabled on it: every callback runs on a fiber."""
    run_hosted(self)


hosted_run_once = _run_once


def is_stock(loop: Any) -> bool:
    """Whether the loop runs its callbacks by stock asyncio's `_run_once`, or by ours."""
    function = getattr(getattr(loop, "_run_once", None), "__func__", None)
    return function is not None and (
        function is _STOCK
        or function is hosted_run_once
        or function is base_events.BaseEventLoop._run_once  # type: ignore[attr-defined]
    )


def can_park(loop: Any) -> bool:
    """Whether callers of `await_` can be parked on the loop."""
    return choose.implementation == "native" and is_stock(loop)


def is_hosted(loop: Any) -> bool:
    """Whether fiberback is enabled on the loop: its callbacks run on fibers, its tasks have portals."""
    function = getattr(getattr(loop, "_run_once", None), "__func__", None)
    return function is hosted_run_once


def install(is_future: Any, answer: Any) -> None:
    """With what to do about what callbacks await: see `in_callback`."""
    code = _STOCK.__code__
    names = code.co_varnames
    indices = tuple(names.index(name) for name in ("handle", "ntodo", "i", "t0"))
    set_parking(
        _poll,
        _end_wait,
        _pad,
        _slow,
        asyncio.Handle,
        tasks.__dict__,
        code,
        getattr(asyncio, "future_add_to_awaited_by", None),
        getattr(asyncio, "future_discard_from_awaited_by", None),
        asyncio.CancelledError,
        _get_running_loop,
        _STOCK,
        hosted_run_once,
        is_future,
        answer,
        is_trio_in_charge,
        _set_running_loop,
        closing.watch,
        *_stock_run(),
        _StandIn,
        Turn,
        collections.deque,
        _current_tasks(),
        indices,
    )


def _stock_run() -> tuple[Any, Any]:
    """`asyncio.Handle._run` and its code; twice None if it is not asyncio's own, or does other things."""
    run: Any = asyncio.Handle._run
    code: Any = getattr(run, "__code__", None)
    known = (
        type(run) is types.FunctionType
        and code.co_filename == asyncio.Handle.cancel.__code__.co_filename
        and code.co_qualname == "Handle._run"
        and code.co_names[:4] == ("_context", "run", "_callback", "_args")
    )
    return (run, code) if known else (None, None)


class Turn:
    """A callback that a runner runs, once: where its handle is called again, that is another one."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class _StandIn:
    """In place of a handle's context, where a callback's exception is raised once more."""

    __slots__ = ("run",)

    def __init__(self, run: Any) -> None:
        self.run = run


def _current_tasks() -> Any:
    """Up to 3.13, the one dict in which all of asyncio's functions, in C and in Python, keep what runs.

    `import _asyncio` before `asyncio` makes two: the import of `asyncio` begins in the middle of the other
    then (Modules/_asynciomodule.c), and takes from it only what is there by that time. Tasks note in one that they
    run, and `current_task()` looks into the other.
    """
    if sys.version_info >= (3, 14):
        return None
    current: Any = vars(tasks)["_current_tasks"]
    if getattr(sys.modules.get("_asyncio"), "_current_tasks", current) is not current:
        raise ImportError(_messages.ASYNCIO_IN_TWO)
    return current
