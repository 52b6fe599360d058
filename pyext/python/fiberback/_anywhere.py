"""`await_` in a thread where no event loop runs.

If the thread works for a loop that runs in another one, the awaitable is run there; `_parents`
knows. So is a task or future that belongs to such a loop. Otherwise this thread's own runner,
`_runners`, runs it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from . import _parents, _portals, _runners


def await_without_loop(awaitable: Any) -> Any:
    if not inspect.isawaitable(awaitable):
        _portals.as_coroutine(awaitable).send(None)  # raises what `await` raises
    parent = _parents.find()
    if parent is None and asyncio.isfuture(awaitable):
        loop = awaitable.get_loop()
        if loop.is_running() and not _runners.is_own(loop):
            parent = _parents.line_to(loop)
    if parent is not None:
        return parent.wait(awaitable)
    return _runners.run_here(awaitable)
