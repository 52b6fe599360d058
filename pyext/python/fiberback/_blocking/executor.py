"""The loop's executor, for what cannot be suspended itself: the caller waits for a thread."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from .._fiberback import await_
from .._loop.library import is_trio_in_charge


def in_executor(function: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
    """What it returns there, with the caller's context variables. Where the executor has been shut down, for the loop
    ends, it is called here."""
    if is_trio_in_charge():
        import trio

        return await_(
            trio.to_thread.run_sync(lambda: function(*args, **kwds), abandon_on_cancel=True)
        )
    loop: Any = _get_running_loop()
    context = copy_context()
    try:
        future = loop.run_in_executor(None, lambda: context.run(function, *args, **kwds))
    except RuntimeError:
        return function(*args, **kwds)
    return await_(future)
