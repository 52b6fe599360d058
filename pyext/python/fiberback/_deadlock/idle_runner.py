"""Work for a thread's own runner, given while another event loop runs in that thread.

A client that was opened outside every loop (in a sync fixture of pytest, say) belongs to the runner's
loop. Used in a task of another loop of the same thread, it may put something into a queue there, or set
an event, and wait for what a background task of its own does then: for ever, because the runner's loop
does not run. asyncio notices only where a future of one loop is awaited on the other.

So a loop that belongs to a runner, and does not run, has watched what it can be asked for: calls, timers,
files. What was asked of it from another loop and is not begun after a while, or when a timer is due, is told:
by an error in the task that has asked, if nothing on its loop could ever wake it; else by a warning.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
import warnings
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any
from weakref import ref

from .. import _messages
from .._loop.current_task import current_task
from .._loop.parking import is_stock
from . import watchdog

# Seconds from the first time that something is asked of the loop to the first look, and between two.
_LOOK = 0.5

# What a loop is asked by. The others call these.
_ASKED_BY = ("call_soon", "call_soon_threadsafe", "call_at", "_add_reader", "_add_writer")


class IdleRunner:
    """What is asked of one loop while it does not run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._thread = threading.get_ident()
        self._asked: Callable[[], Any] | None = None
        self._due = 0.0  # when what was asked for cannot have been done, by `time.monotonic`
        self._timer: asyncio.TimerHandle | None = None
        self._can_be_watched = True
        # The loop that was warned of since this one stopped: an error is told each time, a warning once.
        self._warned: Callable[[], Any] = _nothing

    def begins(self) -> None:
        """The loop has stopped."""
        loop: Any = self._loop()
        if self._can_be_watched and loop is not None and not loop.is_closed():
            try:
                for name in _ASKED_BY:
                    if hasattr(loop, name):
                        setattr(loop, name, functools.partial(self._ask, name))
            except AttributeError:  # it takes none: a loop of somebody else's with `__slots__`
                self._can_be_watched = False

    def ends(self) -> None:
        """The loop is about to run."""
        self._asked = None
        self._warned = _nothing
        attributes = vars(self._loop())
        for name in _ASKED_BY:
            attributes.pop(name, None)

    def _ask(self, name: str, *args: Any, **kwds: Any) -> Any:
        loop: Any = self._loop()
        answer = getattr(type(loop), name)(loop, *args, **kwds)
        other = _get_running_loop()
        if other is None or other is loop or threading.get_ident() != self._thread:
            return answer
        seconds = _LOOK
        if name == "call_at":
            seconds += max(0.0, answer.when() - loop.time())
        due = time.monotonic() + seconds
        if self._asked is None or due < self._due:
            if self._asked is not None and self._timer is not None:
                self._timer.cancel()
            task = current_task()
            self._asked = functools.partial(_nothing) if task is None else ref(task)
            self._due = due
            self._look_later(other, self._asked, seconds)
        return answer

    def _look_later(
        self, other: asyncio.AbstractEventLoop, asked: Callable[[], Any], seconds: float = _LOOK
    ) -> None:
        context = contextvars.Context()
        self._timer = other.call_later(seconds, self._look, other, asked, context=context)

    def _look(self, other: Any, asked: Callable[[], Any]) -> None:
        loop: Any = self._loop()
        if self._asked is not asked or loop is None or loop.is_closed():
            return  # it has run since
        if getattr(other, "_ready", None):  # what has asked may be at work
            self._look_later(other, asked)
            return
        self._asked = None
        task = asked()
        name = "a callback" if task is None else f"task {task.get_name()!r}"
        message = _messages.RUNNER_IDLE.format(loop=loop, who=name, other=other)
        waits_for = _leaf(task)
        if waits_for is None or not _is_asleep(other):
            if self._warned() is not other:
                self._warned = ref(other)
                warnings.warn(message, RuntimeWarning, stacklevel=1)
        else:
            watchdog.wake_with(RuntimeError(message), *waits_for)


def _nothing() -> None:
    """Where a weak reference would be."""


def _leaf(task: Any) -> tuple[Any, Any] | None:
    """The task that `task` waits for, over any number of others, and the future that that one waits for."""
    seen = set()
    while isinstance(task, asyncio.Task) and not task.done() and task not in seen:
        seen.add(task)
        future: Any = getattr(task, "_fut_waiter", None)
        if type(future) is asyncio.Future and not future.done():
            return task, future
        task = future
    return None


def _is_asleep(loop: Any) -> bool:
    """Whether nothing but a signal could wake the loop: no timer, no file, no other thread."""
    return (
        is_stock(loop)
        and all(handle.cancelled() or watchdog.is_look(handle) for handle in loop._scheduled)
        # The loop's own socket, on which it is woken, is among them.
        and len(loop._selector.get_map()) <= 1
        and not getattr(loop, "_signal_handlers", None)
        and threading.active_count() == 1
    )
