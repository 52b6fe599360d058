"""`await_` in a thread where an event loop runs, but no portal of the current task: refused."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn

from .. import _messages
from .._fiberback import portal_of
from .._loop.library import current_library, current_task


def await_without_portal(awaitable: Any) -> NoReturn:
    if isinstance(awaitable, Coroutine):
        awaitable.close()  # no "was never awaited" warning on top of the error
    task = current_task()
    if task is not None:
        if portal_of(task) is not None:
            library = current_library()
            raise RuntimeError(_messages.MUST_YIELD.format(library=library))
        raise RuntimeError(_messages.NO_PORTAL)
    library = current_library()
    if library == "asyncio":
        raise RuntimeError(_messages.NO_TASK.format(library=library))
    raise RuntimeError(_messages.NO_PORTAL)
