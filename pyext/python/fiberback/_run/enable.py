"""`enable`: every task of a loop can `await_`, and the loop stops and goes on with callers parked.

On a stock loop two things are set, and set back: the task factory, so that new tasks have portals
(those that exist are given one), and `_run_once`, an instance attribute that runs the loop's
callbacks on fibers. Stock `run_forever` then runs on the thread's own stack with nothing but that
below it, so it can return whatever is parked. On any other loop (uvloop) it is the task factory
alone.

Everywhere, a loop is enabled when it begins to run: every loop, of any class, calls
`asyncio._set_running_loop` then, which the native module has itself told of. Stock loops that run in
other threads by now are met at their class's `_run_once`. Neither depends on event loop policies, on
who makes the loop or who runs it; so whoever starts somebody else's program (a server's command line,
`runpy.run_path`) prepares all of it by `with enable(everywhere=True):` around the call.
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

from .. import _messages
from .._fiberback import bestow, end_hosted, portal_of, unbestow, watch_loops
from .._loop.parking import can_park, hosted_run_once
from .._portal.task_factory import begin_for_all, end_for_all

_lock = threading.Lock()
_states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _State] = weakref.WeakKeyDictionary()
_everywhere: list[Enabled] = []
_BASE: Any = base_events.BaseEventLoop


class _State:
    """What was done to one loop."""

    def __init__(self, loop: Any) -> None:
        self.scopes = 0
        self._loop = weakref.ref(loop)
        self._given: list[weakref.ref[Any]] = []
        self._hosts = can_park(loop)

    def open(self) -> None:
        loop: Any = self._loop()
        begin_for_all(loop)
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
        end_for_all(loop)
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
        try:
            state.open()
        except BaseException:
            with _lock:
                del _states[loop]
            raise


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


def _begins(loop: asyncio.AbstractEventLoop) -> None:
    """Called with each loop that begins to run while fiberback is enabled everywhere."""
    for scope in list(_everywhere):
        scope.add(loop)


def _first_run_once(self: Any) -> None:
    """`BaseEventLoop._run_once` in that time."""
    _begins(self)
    own = vars(self).get("_run_once")
    if getattr(own, "__func__", None) is hosted_run_once:
        own()
    else:
        _STOCK(self)  # called by a subclass's


class Enabled:
    """What `enable` did; leaving the context, or `disable()`, undoes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None, everywhere: bool) -> None:
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._refused: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._is_everywhere = everywhere
        self._is_open = True
        if loop is not None:
            self.add(loop)
        if everywhere:
            with _lock:
                if not _everywhere:
                    watch_loops(_begins)
                    _BASE._run_once = _first_run_once
                _everywhere.append(self)

    def add(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop in self._loops or loop in self._refused:
            return
        try:
            _open(loop)
        except BaseException:
            self._refused.add(loop)  # once is enough to hear of it
            raise
        self._loops.add(loop)

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
                    watch_loops(None)
                    if _BASE._run_once is _first_run_once:
                        _BASE._run_once = _STOCK
        for loop in list(self._loops):
            _close(loop)

    def __repr__(self) -> str:
        what = ", ".join(["everywhere"] * self._is_everywhere + list(map(repr, self._loops)))
        return f"<fiberback.Enabled: {what if self._is_open else 'undone'}>"

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


def enable(
    loop: asyncio.AbstractEventLoop | None = None, *, everywhere: bool | None = None
) -> Enabled:
    """Have every task of `loop` be able to `await_`, and the loop stop and go on at any time.

    By default for the loop that runs in this thread. Where none does, or with `everywhere=True`, for
    every loop of the process, whatever its class and whoever makes and runs it, from when it next
    begins to run (stock loops in other threads from their next turn); so a server, a test runner or a
    notebook is prepared by one line, before it starts or in the module that it loads::

        fiberback.enable(everywhere=True)      # then uvicorn.run(app, loop="uvloop"), say

    Tasks that exist get a portal with their next step, new ones from the start. A task factory that is
    set, before or later, is kept inside, and `loop.get_task_factory()` gives that one; only on loops
    that take no attributes (`__slots__`) one that is set later has to be wrapped:
    `loop.set_task_factory(fiberback.create_task_factory(factory))`. Tasks that are made past the loop's
    `create_task`, by calling `asyncio.Task(...)`, get none.

    On a stock asyncio loop, callers of `await_` outside of tasks are parked on stacks that stopping the
    loop does not wait for. Other loops (uvloop) get the task factory only.

    Use the result as a context manager, or call its `disable()`: every attribute is as before then,
    unless somebody else has set it meanwhile. Scopes can overlap. Raises nothing for a loop that is
    enabled already; TypeError for what is no event loop; RuntimeError with `everywhere` where
    asyncio's C functions have been replaced.
    """
    if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(_messages.ENABLE_NOT_A_LOOP.format(value=loop))
    if loop is None:
        loop = _get_running_loop()
    if everywhere is None:
        everywhere = loop is None
    return Enabled(loop, everywhere)
