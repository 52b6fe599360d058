"""What `await_` does where it cannot suspend: refuse, closing the coroutine, with the way out.

The native `await_` calls `no_portal` where no portal of the current task is running, and
`_greenlets.await_in_foreign_greenlet` where one is but a greenlet started inside it is on top;
it asks `is_usable` where the portal that is running may be another task's.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn

from . import _messages
from ._fiberback import portal_of, set_hooks
from ._greenlets import await_in_foreign_greenlet
from ._libraries import current_library, current_task
from ._portals import usable_portal


def no_portal(awaitable: Any) -> NoReturn:
    if isinstance(awaitable, Coroutine):
        awaitable.close()  # no "was never awaited" warning on top of the error
    task = current_task()
    if task is not None:
        if portal_of(task) is not None:
            library = current_library()
            raise RuntimeError(_messages.MUST_YIELD.format(library=library))
        raise RuntimeError(_messages.NO_PORTAL)
    library = current_library()
    if library is None:
        raise RuntimeError(_messages.NO_LOOP)
    if library == "asyncio":
        raise RuntimeError(_messages.NO_TASK.format(library=library))
    raise RuntimeError(_messages.NO_PORTAL)


def is_usable() -> bool:
    """Asked where something on a portal may be driving a task of its own."""
    return usable_portal(current_task())


def install() -> None:
    set_hooks(
        no_portal=no_portal,
        foreign_greenlet=await_in_foreign_greenlet,
        is_usable=is_usable,
        current_task=current_task,
    )
