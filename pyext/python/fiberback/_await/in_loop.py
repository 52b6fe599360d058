"""`await_` in a thread where an event loop runs, but no portal of the current task: refused."""

from __future__ import annotations

import sys
from asyncio import _get_running_loop
from collections.abc import Coroutine
from typing import Any, NoReturn

from .. import _messages
from .._fiberback import portal_of
from .._loop import forked
from .._loop.current_task import current_task
from .._loop.library import current_library
from .._loop.parking import is_stock
from .._portal.task_factory import is_for_all
from .._pure import choose

# Trio's own system task, in which the callbacks of `run_sync_soon` are called (trio/_core/_entry_queue.py).
_RUNS_CALLBACKS = "<TrioToken.run_sync_soon task>"


def await_without_portal(awaitable: Any) -> NoReturn:
    if isinstance(awaitable, Coroutine):
        awaitable.close()  # no "was never awaited" warning on top of the error
    raise RuntimeError(_why())


def _why() -> str:
    """What is the matter in this place, and what to do about it here."""
    task = current_task()
    library = current_library()
    if library == "trio" and forked.is_on_parents_trio():
        return _messages.TRIO_FORKED
    if not choose.can_switch:
        return _messages.NEEDS_GREENLET
    if task is not None and portal_of(task) is not None:
        return _messages.MUST_YIELD.format(library=library)
    if library == "trio":
        is_callback = task is None or getattr(task, "name", None) == _RUNS_CALLBACKS
        return _messages.TRIO_NO_TASK if is_callback else _messages.TRIO_NO_PORTAL
    loop = _get_running_loop()
    if library != "asyncio" or loop is None:
        return _messages.NO_PORTAL.format(library=library)
    if is_stock(loop) and choose.implementation == "pure" and not is_for_all(loop):
        return _messages.PURE_NO_PARKING
    if task is None:
        return _messages.LOOP_NO_TASK.format(loop=_name_of(loop))
    if getattr(loop, "_nest_patched", None) is True:
        return _messages.NEST_ASYNCIO
    if is_for_all(loop):
        return _messages.TASK_PAST_LOOP.format(loop=_name_of(loop))
    return _messages.LOOP_NO_PORTAL.format(loop=_name_of(loop), factory=_factory_of(loop))


def _factory_of(loop: Any) -> str:
    """What makes such loops, to be typed."""
    package = type(loop).__module__.partition(".")[0]
    if hasattr(sys.modules.get(package), "new_event_loop"):
        return f"{package}.new_event_loop"
    return type(loop).__qualname__


def _name_of(loop: Any) -> str:
    """Its class, and whose function runs its callbacks if that is not the class's own."""
    name = f"{type(loop).__module__}.{type(loop).__qualname__}"
    run_once = getattr(loop, "_run_once", None)
    owner = getattr(run_once, "__module__", None)
    if owner not in (None, "asyncio.base_events", type(loop).__module__):
        name += f" (whose _run_once is {owner}'s)"
    return name
