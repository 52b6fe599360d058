"""`django.db.connections` with connections for each task, where Django keeps them for each thread.

Django's own storage is thread-local and, on an event loop, a context variable: a task's children would
inherit its connection, and with it its transaction, and nobody would close it.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import logging
from typing import Any

from django.db import connections

from ..dbapi._tasks import TaskLocal
from ..dbapi._waiting import current_task

logger = logging.getLogger("fiberback.django")


class TaskConnections:
    """The attributes of this object are the task's database wrappers, by alias."""

    def __init__(self, outside_tasks: Any) -> None:
        vars(self)["_outside_tasks"] = outside_tasks
        vars(self)["_of_tasks"] = TaskLocal[dict[str, Any]](dict, _end)

    def __getattr__(self, alias: str) -> Any:
        if current_task() is None:
            return getattr(self._outside_tasks, alias)
        try:
            return self._of_tasks.get()[alias]
        except KeyError:
            raise AttributeError(alias) from None

    def __setattr__(self, alias: str, wrapper: Any) -> None:
        if current_task() is None:
            setattr(self._outside_tasks, alias, wrapper)
        else:
            self._of_tasks.get()[alias] = wrapper

    def __delattr__(self, alias: str) -> None:
        if current_task() is None:
            delattr(self._outside_tasks, alias)
        elif self._of_tasks.get().pop(alias, None) is None:
            raise AttributeError(alias)


def _end(wrappers: dict[str, Any]) -> None:
    """The task is over, and nothing can wait here: closing needs no answer from the server."""
    for alias, wrapper in wrappers.items():
        connection, wrapper.connection = wrapper.connection, None
        if connection is None:
            continue
        try:
            pool = getattr(connection, "_pool", None)
            if pool is not None:
                pool.putconn(connection)
            else:
                connection.close()
        except Exception:
            logger.exception("closing the connection %r of a finished task", alias)


def install() -> None:
    """Does nothing the second time."""
    if not isinstance(connections._connections, TaskConnections):
        connections._connections = TaskConnections(connections._connections)
