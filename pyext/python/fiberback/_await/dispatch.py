"""What `await_` does where it cannot suspend a portal, or must ask first.

The native `await_` calls `no_portal` where no portal of the current task is running; it asks
`is_usable` where the portal that is running may be another task's, `no_await.check` where regions
are open that may forbid it, `not_awaitable.cure` what to say of what is no awaitable, `awaited.check` where
a coroutine has called it, and
`wait_cycle.before_wait` where the current task is about to
be suspended until another task is done; `watchdog.after_wait` is told when that wait ends.

`no_portal` only finds out where it is: `in_loop` has the answer where a loop runs in this thread,
`without_loop` where none does. Where the native `await_` parks a callback, `in_callback` runs what that
awaits.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from typing import Any

from .._deadlock import wait_cycle, watchdog
from .._fiberback import set_external_event, set_hooks
from .._loop.current_task import current_task
from .._loop.external_event import ExternalEvent
from .._loop.library import is_trio_running
from .._loop.parking import install as _install_parking
from .._portal.task_portal import usable_portal
from . import awaited, in_callback, in_greenlet, in_loop, no_await, not_awaitable, without_loop


def no_portal(awaitable: Any) -> Any:
    if _get_running_loop() is not None or is_trio_running():
        return in_loop.await_without_portal(awaitable)
    return without_loop.await_without_loop(awaitable)


def is_usable() -> bool:
    """Asked where something on a portal may be driving a task of its own."""
    return usable_portal(current_task())


def install() -> None:
    _install_parking(in_callback.is_future, in_callback.answer)
    in_greenlet.prepare()
    set_external_event(ExternalEvent)
    set_hooks(
        no_portal=no_portal,
        is_usable=is_usable,
        guard=no_await.check,
        not_awaitable=not_awaitable.cure,
        awaited=awaited.check,
        before_wait=wait_cycle.before_wait,
        after_wait=watchdog.after_wait,
        future=asyncio.Future,
        pure_future=getattr(asyncio.futures, "_PyFuture", None),
        wait=getattr(asyncio.wait, "__code__", None),
        wait_for=getattr(asyncio.wait_for, "__code__", None),
        current_task=current_task,
    )
