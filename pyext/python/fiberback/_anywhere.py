"""`await_` in a thread where no event loop runs.

If the thread works for a loop that runs in another one, the awaitable is run there; `_parents`
knows. So is a task or future that belongs to such a loop. Otherwise this thread's own runner,
`_runners`, runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from . import _parents, _runners


def await_without_loop(awaitable: Any) -> Any:
    if not isinstance(awaitable, Awaitable) and not asyncio.iscoroutine(awaitable):
        return _runners.run_here(awaitable)  # which raises what `await` raises
    parent = _parents.find()
    if parent is None and asyncio.isfuture(awaitable):
        loop = awaitable.get_loop()
        if loop.is_running() and not _runners.is_own(loop):
            parent = _parents.line_to(loop)
    if parent is not None:
        return parent.wait(awaitable)
    return _runners.run_here(awaitable)
