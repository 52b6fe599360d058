"""Stands in for loop-in-a-thread recipes: `LoopThread`, an event loop in a thread of its own.

For asyncio-thread-runner's `ThreadRunner`, and for what people write with
`asyncio.run_coroutine_threadsafe` and a daemon thread.
"""

from __future__ import annotations

from ._sync.loop_thread import LoopThread as LoopThread

__all__ = ["LoopThread"]

LoopThread.__module__ = __name__
