"""Task factories for asyncio: every task begins inside a portal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from . import messages
from .portal import Portal

_class: Any = None


def task_class() -> Any:
    """The class of the tasks that the task factories make: asyncio.Task, or a subclass that makes up for a
    defect of CPython's."""
    global _class
    if _class is None:
        _class = asyncio.Task
        # 3.13.0's calls `set_name(name)` on what a task factory returns, even if `name` is None.
        if "set_name" in asyncio.BaseEventLoop.create_task.__code__.co_names:

            class Task(asyncio.Task[Any]):
                __module__ = "fiberback"

                def set_name(self, value: object, /) -> None:
                    if value is not None:
                        super().set_name(value)

            _class = Task
    return _class


def _portal_around(coro: Any) -> Any:
    try:
        return Portal(coro)
    except TypeError:
        return coro  # the task says what is wrong with it


def task_factory(*args: Any, **kwargs: Any) -> Any:
    """An asyncio.Task with a portal.

    For `loop.set_task_factory(fiberback.task_factory)`. `fiberback.enable(loop)` does that, serves tasks
    that exist already, and can be undone.
    """
    if len(args) != 2:
        raise TypeError(messages.FACTORY_CALL)
    loop, coro = args
    # 3.13.0 passes `name=None` on, which `Task` would take for the name "None".
    given = {name: value for name, value in kwargs.items() if value is not None}
    return task_class()(_portal_around(coro), loop=loop, **given)


def eager_task_factory(*args: Any, **kwargs: Any) -> Any:
    """An asyncio.Task with a portal that starts at once (Python 3.12 and newer)."""
    return task_factory(*args, **{**kwargs, "eager_start": True})


def create_task_factory(inner: Callable[..., Any] | None, /) -> Callable[..., Any]:
    """A task factory that gives 'inner' coroutines with portals.

    'inner' is a task factory, or None for ordinary tasks::

        loop.set_task_factory(fiberback.create_task_factory(asyncio.eager_task_factory))
    """
    if inner is None:
        return task_factory
    if not callable(inner):
        raise TypeError("a task factory must be a callable or None")

    def factory(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 2:
            raise TypeError(messages.FACTORY_CALL)
        return inner(args[0], _portal_around(args[1]), **kwargs)

    return factory
