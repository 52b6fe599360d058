"""Whether `await_` can wait here: for code that must choose before it has something to wait for."""

from __future__ import annotations

from asyncio import _get_running_loop

from .._loop.library import is_trio_running
from .._loop.parking import can_park
from .._portal.task_portal import has_portal
from .._pure import choose


def can_await() -> bool:
    """Whether `await_`, called here, would wait rather than raise RuntimeError.

    True on a portal, in tasks and callbacks of a stock asyncio loop, and in threads where no loop runs;
    False in tasks of uvloop and Trio without a portal. Never raises. Of a `no_await` region it knows
    nothing.
    """
    if choose.can_run_sync is not None:
        return choose.can_run_sync()
    if has_portal():
        return True
    if is_trio_running():
        return False
    loop = _get_running_loop()
    return loop is None or can_park(loop)
