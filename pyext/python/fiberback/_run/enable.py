"""`enable`: every task of a loop can `await_`, and the loop stops and goes on with callers parked.

On a stock loop two things are set, and set back: the task factory, so that new tasks have portals
(those that exist are given one), and `_run_once`, an instance attribute that runs the loop's
callbacks on fibers. Stock `run_forever` then runs on the thread's own stack with nothing but that
below it, so it can return whatever is parked. On any other loop (uvloop) it is the task factory
alone.

Without a loop, it is the class's `_run_once` that is set: a loop is enabled when it first runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
import weakref
from asyncio import _get_running_loop, base_events
from types import TracebackType
from typing import Any

from .._fiberback import bestow, create_task_factory, end_hosted, portal_of, unbestow
from .._loop.parking import hosted_run_once, is_stock

_lock = threading.Lock()
_states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _State] = weakref.WeakKeyDictionary()
_everywhere: list[Enabled] = []
_BASE: Any = base_events.BaseEventLoop


class _State:
    """What was done to one loop."""

    def __init__(self, loop: Any) -> None:
        self.scopes = 0
        self._loop = weakref.ref(loop)
        self._inner = loop.get_task_factory()
        self._factory = create_task_factory(self._inner)
        self._given: list[weakref.ref[Any]] = []
        self._hosts = is_stock(loop)

    def open(self) -> None:
        loop: Any = self._loop()
        loop.set_task_factory(self._factory)
        for task in _tasks_of(loop):
            with contextlib.suppress(RuntimeError, TypeError):  # somebody else's kind of task
                if portal_of(task) is None:
                    bestow(task)
                    self._given.append(weakref.ref(task))
        if self._hosts:
            loop._run_once = types.MethodType(hosted_run_once, loop)

    def close(self) -> None:
        loop: Any = self._loop()
        if loop is None:
            return
        if loop.get_task_factory() is self._factory:
            loop.set_task_factory(self._inner)
        if not self._hosts:
            return
        run_once = loop.__dict__.get("_run_once")
        if getattr(run_once, "__func__", None) is hosted_run_once:
            del loop._run_once
        # A task in the middle of await_() keeps its portal until that is done, and with it.
        for ref in self._given:
            task = ref()
            if task is not None and not task.done():
                with contextlib.suppress(RuntimeError, TypeError):
                    unbestow(task)
        running = _get_running_loop()
        if running is not None and running is loop:
            end_hosted(running)


def _tasks_of(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks(loop)


def _open(loop: asyncio.AbstractEventLoop) -> None:
    with _lock:
        state = _states.get(loop)
        is_new = state is None
        if state is None:
            state = _states[loop] = _State(loop)
        state.scopes += 1
    if is_new:
        state.open()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    with _lock:
        state = _states.get(loop)
        if state is None:
            return
        state.scopes -= 1
        if state.scopes:
            return
        del _states[loop]
    state.close()


def _first_run_once(self: Any) -> None:
    """`BaseEventLoop._run_once` while fiberback is enabled everywhere."""
    for scope in list(_everywhere):
        scope.add(self)
    self._run_once()


class Enabled:
    """What `enable` did; leaving the context, or `disable()`, undoes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._is_everywhere = loop is None
        self._is_open = True
        if loop is not None:
            self.add(loop)
            return
        with _lock:
            if not _everywhere:
                _BASE._run_once = _first_run_once
            _everywhere.append(self)

    def add(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop not in self._loops:
            self._loops.add(loop)
            _open(loop)

    def disable(self) -> None:
        """Undo it. Tasks that are suspended in `await_` go on as they would have. Does nothing when
        it has been undone."""
        if not self._is_open:
            return
        self._is_open = False
        if self._is_everywhere:
            with _lock:
                _everywhere.remove(self)
                if not _everywhere:
                    _BASE._run_once = _STOCK
        for loop in list(self._loops):
            _close(loop)

    def __enter__(self) -> Enabled:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()


_STOCK = _BASE._run_once


def enable(loop: asyncio.AbstractEventLoop | None = None) -> Enabled:
    """Have every task of `loop` be able to `await_`, and the loop stop and go on at any time.

    By default for the loop that runs in this thread; where none does, for every stock asyncio loop
    of the process from its next run on. Tasks that exist get a portal with their next step, new ones
    from the start; a task factory that is set is kept inside. On a stock asyncio loop, callers of
    `await_` outside of tasks are parked on stacks that stopping the loop does not wait for. Other
    loops (uvloop) have to be passed, or to be running, and get the task factory only.

    Use the result as a context manager, or call its `disable()`: every attribute is as before then,
    unless somebody else has set it meanwhile. Scopes can overlap. Raises nothing for a loop that is
    enabled already; AttributeError for what is no event loop.
    """
    return Enabled(loop if loop is not None else _get_running_loop())
