"""What Celery's tracer calls: a task's body, which may be an `async def`.

The tracer is one sync line, `fun(*args, **kwargs)`. What that gives is awaited below it. Where a body calls another task
as the function that it is, it gets what that returns, a coroutine to be awaited say.
"""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
from inspect import isawaitable
from typing import Any

from celery._state import _task_stack
from celery.app.trace import build_tracer

from .._fiberback import await_
from ._job import current_job
from ._locals import keep_in_contexts

# Those of Celery's own that call another task for each of many arguments.
_MAPS = ("celery.map", "celery.starmap")


class Bodies:
    """The tasks of an app that are prepared, until `undo()`."""

    def __init__(self, app: Any, hostname: str | None) -> None:
        self._app = app
        self._hostname = hostname
        self._prepared: dict[str, tuple[Any, str, Any]] = {}
        keep_in_contexts(_task_stack)
        for name in list(app.tasks):
            self.task(name)

    def task(self, name: str) -> Any:
        """The task of that name, prepared."""
        task = self._app.tasks[name]
        known = self._prepared.get(name)
        if known is None or known[0] is not task:
            self._prepare(name, task)
        return task

    def _prepare(self, name: str, task: Any) -> None:
        keep_in_contexts(task.request_stack)
        # `autoretry_for` has put a `run` of its own around it, which is to see what the body raises.
        attribute = "_orig_run" if hasattr(task, "_orig_run") else "run"
        own = vars(task).get(attribute)
        setattr(task, attribute, _awaited(task, getattr(task, attribute)))
        self._prepared[name] = task, attribute, own
        if task.__trace__ is not None:  # it was there before the pool, or is registered late
            task.__trace__ = build_tracer(
                name, task, self._app.loader, self._hostname, app=self._app
            )

    def undo(self) -> None:
        for task, attribute, own in self._prepared.values():
            if own is None:
                delattr(task, attribute)
            else:
                setattr(task, attribute, own)
            task.__trace__ = None
        self._prepared.clear()


def _awaited(task: Any, body: Any) -> Any:
    @functools.wraps(body)
    def run(*args: Any, **kwds: Any) -> Any:
        job = current_job.get()
        if job is None:
            return body(*args, **kwds)
        try:
            result = body(*args, **kwds)
            if isawaitable(result) and not task.request.called_directly:
                return await_(result)
            if task.name in _MAPS:
                return [await_(each) if isawaitable(each) else each for each in result]
            return result
        except asyncio.CancelledError:
            limit = job.cancelled_as()
            if limit is None:
                raise
            raise limit from None
        finally:
            job.body_is_over()

    return run
