"""Celery's stacks of current tasks and requests, kept in contexts where Celery keeps them for threads or greenlets.

So each asyncio task has its own. One that a body starts, or a thread that it hands its context to, begins with a copy
of its parent's: `current_task` and `self.request` are there, too, and what it pushes is its own.
"""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import threading
from asyncio import _get_running_loop, current_task
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from celery.exceptions import ImproperlyConfigured
from celery.utils import threads

from .. import _messages


def _me() -> int:
    """Differs between any two that run now: tasks, and threads that run none."""
    loop = _get_running_loop()
    task = current_task(loop) if loop is not None else None
    return threading.get_ident() if task is None else -id(task)


class _ContextStorage:
    """In the place of a `Local`'s dictionary, which has the attributes of each thread by its ident."""

    def __init__(self) -> None:
        # Whose it is, and its attributes. An id may come again when its owner is gone, and then this is nobody's.
        self._held: ContextVar[tuple[int, dict[str, Any]] | None]
        self._held = ContextVar("fiberback_celery_stack", default=None)

    def __getitem__(self, ident: Any) -> dict[str, Any]:
        held = self._held.get()
        if held is None:
            raise KeyError(ident)
        me = _me()
        if held[0] != me:
            held = me, {name: list(stack) for name, stack in held[1].items()}
            self._held.set(held)
        return held[1]

    def __setitem__(self, ident: Any, values: dict[str, Any]) -> None:
        self._held.set((_me(), values))

    def pop(self, ident: Any, default: Any = None) -> Any:
        held = self._held.get()
        self._held.set(None)
        return default if held is None else held[1]

    def items(self) -> Iterator[Any]:
        held = self._held.get()
        return iter(() if held is None else (held,))


def keep_in_contexts(stack: Any) -> None:
    """Does nothing the second time. Nothing may be on `stack` in any thread."""
    if not isinstance(stack, threads._LocalStack):
        # USE_FAST_LOCALS
        raise ImproperlyConfigured(_messages.CELERY_FAST_LOCALS)
    local = stack._local
    if not isinstance(local.__storage__, _ContextStorage):
        object.__setattr__(local, "__storage__", _ContextStorage())
