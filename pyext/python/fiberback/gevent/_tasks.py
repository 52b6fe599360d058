"""Tasks that run each in a greenlet of its own: `enable`, `run`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .._portal.task_factory import begin_for_all, wrap_coroutines
from ._coroutine import in_greenlet
from ._hub import drive


def in_greenlets(event_loop: asyncio.AbstractEventLoop) -> None:
    """From now on each new task of the loop runs in a greenlet, and has a portal, on which `await_` waits."""
    if wrap_coroutines(event_loop, in_greenlet):
        begin_for_all(event_loop)


def enable() -> None:
    """Have the running event loop drive gevent's hub, and run each task that begins from now on in a greenlet.

    A task factory that the loop has, or is given later, goes on making the tasks. Raises RuntimeError if no loop
    runs, or if gevent's hub cannot be driven: it is on libuv, or on a backend without a file.
    """
    event_loop = asyncio.get_running_loop()
    drive(event_loop)
    in_greenlets(event_loop)


def run(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
    """`asyncio.run(main)`, in a loop that drives gevent's hub, each task in a greenlet of its own."""

    async def prepared() -> Any:
        enable()
        return await asyncio.ensure_future(main)

    return asyncio.run(prepared(), debug=debug)
