"""The portal of a task: whether it has one, and giving it one for the rest of its life.

A task has a portal in one of two ways. Either its own coroutine was replaced by a `Portal`
(`ensure_portal`, `bestow_portal`, the task factories): asking the task tells. Or part of what it
runs is driven through a `Portal` (`call_portal`), which the native layer notes until that has
ended: `scoped_portal` tells.
"""

from __future__ import annotations

from typing import Any

from .. import _messages
from .._fiberback import bestow, current_portal, portal_of, scoped_portal
from .._loop.current_task import current_task
from .._loop.library import current_library


def usable_portal(task: Any) -> bool:
    """Whether code running now in `task`, the current one, is on a portal of that task."""
    portal = current_portal()
    if portal is None:
        return False
    if task is None:
        # A library we know nothing about drives the portal; then being on it must do.
        return current_library() not in ("asyncio", "trio")
    return portal is portal_of(task) or portal is scoped_portal(task)


def has_portal_anywhere(task: Any) -> bool:
    """Whether `task` has a portal, be it one that takes effect with its next step."""
    done = getattr(task, "done", None)
    if done is not None and done():
        return False
    return portal_of(task) is not None or scoped_portal(task) is not None


def has_portal(task: Any = None) -> bool:
    """Whether `task`, by default the current one, can use `await_`.

    Never raises: outside every task the answer is False. For a task other than the current one
    a portal that takes effect with its next step counts; for the current one it does not yet.
    Meaning as in greenback.
    """
    running = current_task()
    if task is None or task is running:
        return usable_portal(running)
    return has_portal_anywhere(task)


def bestow_portal(task: Any) -> None:
    """Give `task`, an `asyncio.Task` or a Trio task, a portal for the rest of its life.

    If it has one, nothing happens. The portal works from the task's next step on, so a task that
    bestows one on itself must yield to its event loop before it can `await_`; `ensure_portal`
    does that. Raises TypeError for anything that is not such a task, and RuntimeError for a task
    whose coroutine cannot be replaced. Meaning as in greenback.
    """
    if scoped_portal(task) is None:
        bestow(task)


async def ensure_portal() -> None:
    """Give the current task a portal for the rest of its life, unless it has one.

    Always a checkpoint: other tasks run, and cancellation is delivered here. Raises RuntimeError
    outside asyncio and Trio. Meaning as in greenback.
    """
    task = current_task()
    if task is None:
        library = current_library()
        if library is None or library == "asyncio":
            raise RuntimeError(_messages.NO_CURRENT_TASK)
        raise RuntimeError(_messages.UNSUPPORTED_LIBRARY.format(library=library))
    if not usable_portal(task):
        bestow(task)
    if current_library() == "trio":
        import trio

        await trio.lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)
