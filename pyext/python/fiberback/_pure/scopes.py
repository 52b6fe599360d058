"""`with_portal_run…`: which portals serve a task for the length of one call.

Such a portal is not the task's coroutine, so asking the task does not tell. It is noted here until its
coroutine has ended or it is dropped; calls in one task nest. Neither keeps the other alive.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, ref

_of_tasks: WeakKeyDictionary[Any, list[ref[Any]]] = WeakKeyDictionary()


def enter(portal: Any, task: Any) -> None:
    """`portal` serves `task` from now on."""
    if portal._task is None:
        portal._task = ref(task)
        _of_tasks.setdefault(task, []).append(portal._ref)


def leave(portal: Any) -> None:
    """Forgets a portal, if it was noted."""
    if portal._task is None:
        return
    task = portal._task()
    portal._task = None
    serving = _of_tasks.get(task) if task is not None else None
    if serving is not None:
        serving.remove(portal._ref)
        if not serving:
            del _of_tasks[task]


def portal_for(task: Any) -> Any:
    """The portal of the innermost call in progress that serves `task`, or None."""
    try:
        serving = _of_tasks.get(task)
    except TypeError:  # what is no task, and cannot be hashed or referred to weakly
        return None
    while serving:
        portal = serving[-1]()
        if portal is not None:
            return portal
        serving.pop()
    return None
