"""Threads of executors: `asyncio.to_thread`, `loop.run_in_executor`.

Each work item has a channel of its own, to the loop that awaits it: its future has a callback from
asyncio that names that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import threading
import time
from concurrent.futures import Future
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from .._fiberback import current_frames, frames_from, local_of
from . import own_pool
from .channel import Channel

# Channels of work items whose loop was found, and the items of which we know that no loop awaits them.
_channels: WeakKeyDictionary[Future[Any], Channel] = WeakKeyDictionary()
_unawaited: WeakKeyDictionary[Future[Any], bool] = WeakKeyDictionary()
# Seconds; asyncio needs microseconds from submitting a work item to the callback on its future. After the first of
# these it is asked whether it is this item that is being submitted: that is some more work.
_SUBMITTING, _LONGEST_SUBMITTING = 0.25, 30.0
_executor: Any = concurrent.futures.thread.ThreadPoolExecutor
_base_loop: Any = asyncio.BaseEventLoop
_SUBMIT, _WRAP = _executor.submit.__code__, asyncio.futures.wrap_future.__code__
_SUBMITS = {_SUBMIT, _base_loop.run_in_executor.__code__, _WRAP}


def find_channel() -> Channel | None:
    """The channel to whoever awaits the work item that runs on this stack."""
    # The name that asgiref's have, too, and others made after them.
    item = local_of("_WorkItem.run", 0)
    future = getattr(item, "future", None)
    if not isinstance(future, Future):
        return None
    channel = _channels.get(future)
    if channel is not None:
        return channel
    begin = time.monotonic()
    result = own_pool.awaited_through(future)
    while result is None and future not in _unawaited:
        # The item may have begun before whoever submitted it got to adding the callback.
        passed = time.monotonic() - begin
        submitting = passed < _LONGEST_SUBMITTING and _is_submitting(
            item if passed > _SUBMITTING else None
        )
        result = own_pool.awaited_through(future)
        if result is None and not submitting:
            _unawaited[future] = True
        elif result is None:
            time.sleep(0.0005)
    if result is None:
        return None
    channel = _channels[future] = Channel(result.get_loop(), result)
    future.add_done_callback(_is_over)
    return channel


def _is_over(future: Future[Any]) -> None:
    channel = _channels.pop(future, None)
    if channel is not None:
        channel.close()


def _is_submitting(item: Any = None) -> bool:
    """Whether some other thread is on the way from submitting a work item, this one if given, to awaiting it."""
    mine = threading.get_ident()
    for ident, frame in current_frames().items():
        if ident == mine:
            continue
        for one in frames_from(frame, 8):
            if one.f_code in _SUBMITS and (item is None or _submits(one, item)):
                return True
    return False


def _submits(frame: FrameType, item: Any) -> bool:
    """Whether a call of one of those functions submits that item, or wraps its future."""
    names = frame.f_locals
    if frame.f_code is _SUBMIT:
        return names.get("f") is item.future
    if frame.f_code is _WRAP:
        return names.get("future") is item.future
    # A tuple with the function, its arguments and its keywords since 3.14.
    task = getattr(item, "task", None)
    function = task[0] if isinstance(task, tuple) and task else getattr(item, "fn", None)
    return names.get("func") is function
