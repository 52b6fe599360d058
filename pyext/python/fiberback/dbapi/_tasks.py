"""One value for each task, where sync libraries keep one for each thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from ._waiting import current_task

T = TypeVar("T")


class TaskLocal(Generic[T]):
    """A value for each asyncio task, and for each thread outside tasks, made when first asked for.

    A task's children have values of their own: unlike a context variable it is not inherited. At the
    end of the task, however it ends, `end(value)` is called on the loop, outside every task, where
    nothing can wait.
    """

    def __init__(self, make: Callable[[], T], end: Callable[[T], None]) -> None:
        self._make = make
        self._end = end
        # Written only in the task's own thread; each access is one atomic step.
        self._of_tasks: WeakKeyDictionary[asyncio.Task[Any], T] = WeakKeyDictionary()
        self._of_threads = threading.local()

    def get(self) -> T:
        task = current_task()
        if task is None:
            try:
                value: T = self._of_threads.value
            except AttributeError:
                value = self._of_threads.value = self._make()
            return value
        try:
            return self._of_tasks[task]
        except KeyError:
            value = self._of_tasks[task] = self._make()
            task.add_done_callback(self._ended)
            return value

    def _ended(self, task: asyncio.Task[Any]) -> None:
        value = self._of_tasks.pop(task, None)
        if value is not None:
            self._end(value)
