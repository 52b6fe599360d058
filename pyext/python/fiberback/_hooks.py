"""What `await_` does where it cannot suspend a portal, or must ask first.

The native `await_` calls `no_portal` where no portal of the current task is running;
it asks `is_usable` where the portal that is running may be another task's, `_guards.check` where
regions are open that may forbid it, and `_deadlock.before_wait` where the current task is about to
be suspended until another task is done; `_watch.after_wait` is told when that wait ends.

`no_portal` only finds out where it is: `_in_loop` has the answer where a loop runs in this thread,
`_anywhere` where none does.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from typing import Any

from . import _anywhere, _deadlock, _greenlets, _guards, _in_loop, _watch
from ._fiberback import set_hooks
from ._libraries import current_task, is_trio_running
from ._parking import install as _install_parking
from ._portals import usable_portal


def no_portal(awaitable: Any) -> Any:
    if _get_running_loop() is not None or is_trio_running():
        return _in_loop.await_without_portal(awaitable)
    return _anywhere.await_without_loop(awaitable)


def is_usable() -> bool:
    """Asked where something on a portal may be driving a task of its own."""
    return usable_portal(current_task())


def install() -> None:
    _greenlets.meet()
    _install_parking()
    set_hooks(
        no_portal=no_portal,
        is_usable=is_usable,
        guard=_guards.check,
        before_wait=_deadlock.before_wait,
        after_wait=_watch.after_wait,
        future=asyncio.Future,
        pure_future=getattr(asyncio.futures, "_PyFuture", None),
        wait=getattr(asyncio.wait, "__code__", None),
        wait_for=getattr(asyncio.wait_for, "__code__", None),
        current_task=current_task,
    )
