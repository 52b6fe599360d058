"""Which task runs the current code: asyncio's, or Trio's."""

from __future__ import annotations

from asyncio import tasks
from typing import Any

from .library import is_trio_in_charge


def current_task() -> Any:
    """The running asyncio or Trio task; None in a loop callback or outside both libraries."""
    if is_trio_in_charge():
        import trio

        try:
            return trio.lowlevel.current_task()
        except RuntimeError:
            return None
    try:
        return tasks.current_task()  # looked up now: some put the pure-Python one in its place
    except RuntimeError:
        return None
