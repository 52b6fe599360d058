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
from typing import Any
from weakref import WeakKeyDictionary

from .._fiberback import current_frames, frames_from, local_of
from . import own_pool
from .channel import Channel

# Channels of work items whose loop was found, and the items of which we know that no loop awaits them.
_channels: WeakKeyDictionary[Future[Any], Channel] = WeakKeyDictionary()
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


def find_channel() -> Channel | None:
    """The channel to whoever awaits the work item that runs on this stack."""
    # The name that asgiref's have, too, and others made after them.
    future = getattr(local_of("_WorkItem.run", 0), "future", None)
    if not isinstance(future, Future):
        return None
    channel = _channels.get(future)
    if channel is not None:
        return channel
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
    channel = _channels[future] = Channel(result.get_loop(), result)
    future.add_done_callback(_is_over)
    return channel


def _is_over(future: Future[Any]) -> None:
    channel = _channels.pop(future, None)
    if channel is not None:
        channel.close()


def _is_submitting() -> bool:
    """Whether some other thread is on the way from submitting a work item to awaiting it."""
    mine = threading.get_ident()
    for ident, frame in current_frames().items():
        if ident != mine and any(one.f_code in _SUBMITS for one in frames_from(frame, 8)):
            return True
    return False
