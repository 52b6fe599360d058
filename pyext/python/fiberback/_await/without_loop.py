"""`await_` in a thread where no event loop runs.

If the thread works for a loop that runs in another one, the awaitable is run there; `parent_loop`
knows. So is a task or future that belongs to such a loop. Otherwise this thread's own runner,
`runner`, runs it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from .. import _messages
from .._loop import forked
from .._portal.call_portal import as_coroutine
from .._thread import parent_loop, runner
from .not_awaitable import cure


def await_without_loop(awaitable: Any) -> Any:
    if not inspect.isawaitable(awaitable):
        try:
            as_coroutine(awaitable).send(None)
        except TypeError as error:  # in the words of `await`
            raise TypeError(f"{error}{cure(awaitable)}") from None
    parent = parent_loop.find()
    if parent is None and asyncio.isfuture(awaitable):
        loop = awaitable.get_loop()
        if loop.is_running() and not (runner.is_own(loop) or forked.is_parents(loop)):
            parent = parent_loop.channel_to(loop)
        elif not runner.is_own(loop) and not awaitable.done():
            raise RuntimeError(_messages.FUTURE_OF_IDLE_LOOP.format(loop=loop))
    if parent is not None:
        return parent.wait(awaitable)
    return runner.run_here(awaitable)
