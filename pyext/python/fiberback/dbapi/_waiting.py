"""Whether code that is running now waits on an event loop, may block its thread, or can do neither."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from .. import _messages, can_await
from .._thread import parent_loop


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that runs in this thread; None where blocking the thread is what is wanted.

    Raises RuntimeError under Trio, which the async drivers do not know, and which blocking would stop.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        local = getattr(sys.modules.get("sniffio"), "thread_local", None)
        if local is not None and local.name == "trio":
            raise RuntimeError(_messages.DRIVER_NEEDS_ASYNCIO)
    return loop


def refuse_trio() -> None:
    """Raises RuntimeError under Trio and in a thread that works for it: for a driver that needs asyncio even
    where nothing else would be blocked."""
    if running_loop() is None and parent_loop.is_of_trio(parent_loop.find()):
        raise RuntimeError(_messages.DRIVER_NEEDS_ASYNCIO)


def can_wait() -> bool:
    """Whether a database call made now would neither be refused nor stop an event loop."""
    return asyncio._get_running_loop() is None or can_await()


def should_wait() -> bool:
    """The same, but not in a loop's callback: those that clean up are best over at once."""
    if asyncio._get_running_loop() is None:
        return True
    return asyncio.current_task() is not None and can_await()


def current_task() -> asyncio.Task[Any] | None:
    """The running asyncio task; None in a loop's callback and where no loop runs."""
    if asyncio._get_running_loop() is None:
        return None
    return asyncio.current_task()
