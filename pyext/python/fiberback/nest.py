"""Stands in for nest_asyncio: `asyncio.run` and its relations work inside a running event loop.

`import fiberback.nest as nest_asyncio` is all that changes; `nest_asyncio.apply()` and `run()` are those of
nest_asyncio 1.6 and nest-asyncio2 1.7. Where these re-enter the loop, so that inner calls finish before
outer ones go on, here the caller is suspended, and the loop goes on: calls finish in any order, may wait for
each other, and can be cancelled or timed out. Tasks and futures stay the ones in C.

Differences, all of them on purpose: uvloop works; a loop that does not run is not re-entered while another
one runs in its thread, but runs in its place, as there (that one stands still meanwhile); `asyncio.run`
sets the loop's debug mode for its own time only; nothing changes in `asyncio.get_event_loop`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import sys
import warnings
from asyncio import AbstractEventLoop, BaseEventLoop, _get_running_loop, runners
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from . import _messages
from ._fiberback import await_
from ._in_force import Handle, InForce
from ._portal.call_portal import coroutine_of
from ._replacements import Replacement
from ._run.enable import Enabled
from ._run.in_running_loop import in_place, suspend
from ._run.run import debugging
from ._run.run import run as _run_with_cleanup

__all__ = ["Applied", "apply", "run", "undo"]

T = TypeVar("T")

_in_force: InForce[_Patches] = InForce()
_stock_runner_run = runners.Runner.run


def apply(
    loop: AbstractEventLoop | None = None,
    *,
    run_close_loop: bool = False,
    error_on_mispatched: bool = False,
) -> Applied:
    """Have `asyncio.run`, `asyncio.Runner.run`, `loop.run_until_complete` and `loop.run_forever` work inside a
    running loop, in the whole process, until `undo()`.

    Every loop is served, asyncio's and uvloop's, from when it next begins to run; and `loop` at once. Every
    task gets a portal (`fiberback.enable(everywhere=True)`), so the caller may be as deep in synchronous code
    as it likes. `with apply():` undoes it at its end, unless it had been applied before. nest_asyncio's own
    `apply()`, called later by a library, finds all done.

    `run_close_loop`: where no loop runs, `asyncio.run` makes a loop and closes it, as it does by itself; and
    inside a running loop it ends the tasks that it has started. By default it keeps one loop, as
    nest_asyncio does: what it leaves running goes on in the next run; that loop is closed when the process
    ends. With `loop_factory`, `asyncio.run` does always what it does by itself.

    Where nest_asyncio has been applied before, its replacements stay, and there is no help: RuntimeWarning, or
    RuntimeError with `error_on_mispatched`. Raises TypeError for a `loop` that is none.
    """
    if loop is not None and not isinstance(loop, AbstractEventLoop):
        raise TypeError(_messages.ENABLE_NOT_A_LOOP.format(value=loop))
    with _in_force.lock:
        patches = _in_force.current
        if patches is not None:
            # As in nest-asyncio2: all have to ask for it.
            patches.closes_loop = patches.closes_loop and run_close_loop
            if loop is not None:
                patches.serve(type(loop))
            return Applied(_in_force, None)
        if hasattr(asyncio, "_nest_patched"):
            if error_on_mispatched:
                raise RuntimeError(_messages.NEST_MISPATCHED)
            warnings.warn(_messages.NEST_MISPATCHED, RuntimeWarning, stacklevel=2)
        patches = _in_force.current = _Patches(run_close_loop)
        if loop is not None:
            patches.serve(type(loop))
        return Applied(_in_force, patches)


def undo() -> None:
    """Undo `apply()`; does nothing where nothing has been applied. Calls that wait go on as they would have."""
    _in_force.take_back(_in_force.current)


def run(
    main: Awaitable[T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> T:
    """What `asyncio.run` is after `apply()`; works without that, too.

    Inside a running loop, `main` runs as a task of that loop, and the caller waits in `await_`; cancelling it
    cancels `main`. `loop_factory` is not used then. Tasks that `main` leaves behind go on.
    Where no loop runs: on the thread's current loop, or a new one, which stays (see `apply`).

    Raises what `main` raises, and what `await_` raises where it cannot wait.
    """
    patches = _in_force.current
    closes_loop = patches is not None and patches.closes_loop
    running = _get_running_loop()
    if running is not None:
        if closes_loop:
            return _run_with_cleanup(coroutine_of(main), debug=debug)
        with debugging(running, debug):
            return suspend(running, main)
    if loop_factory is not None:
        return _run_stock(main, debug, loop_factory)
    if closes_loop:
        before = _current_loop()
        try:
            return _run_stock(main, debug)
        finally:
            asyncio.set_event_loop(before)
    loop = _current_loop()
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        _kept.add(loop)
    with debugging(loop, debug):
        return _to_the_end(loop, main)


class Applied(Handle["_Patches"]):
    """What `apply` returns. As a context manager it undoes at its end what it did."""

    def undo(self) -> None:
        """Put back what was there before this `apply()`, but for what somebody else has replaced since."""
        self._take_back()


class _Patches:
    """What is replaced, and what was there before."""

    def __init__(self, closes_loop: bool) -> None:
        self.closes_loop = closes_loop
        self._replacements: list[Replacement] = []
        self._methods: set[Any] = set()
        self._enabled = _EveryLoop(self.serve)
        self._replace(asyncio, "run", run)
        self._replace(runners, "run", run)
        self._replace(runners.Runner, "run", _runner_run)
        self.serve(BaseEventLoop)
        # What nest_asyncio and nest-asyncio2 look for, before they patch anything.
        for place in (asyncio, BaseEventLoop):
            for mark in ("_nest_patched", "_nest_asyncio2"):
                self._replace(place, mark, __name__)

    def serve(self, cls: type) -> None:
        """Have the methods of a class of loops work in a running loop."""
        for name, make in _METHODS.items():
            owner = next(each for each in cls.__mro__ if name in vars(each))
            original = vars(owner)[name]
            if owner is AbstractEventLoop or original in self._methods:
                continue
            method = functools.wraps(original)(make(original))
            # A class in C has no room for it: then the class in Python that is derived from that.
            for place in reversed(cls.__mro__[: cls.__mro__.index(owner) + 1]):
                with contextlib.suppress(TypeError):
                    self._replace(place, name, method)
                    self._methods.add(method)
                    break

    def _replace(self, place: Any, name: str, value: Any) -> None:
        self._replacements.append(Replacement(place, name, value).put())

    def undo(self) -> None:
        for each in reversed(self._replacements):
            each.undo()
        self._enabled.disable()


class _EveryLoop(Enabled):
    """Portals for all tasks, and what else is to be done with each loop that begins to run."""

    def __init__(self, serve: Callable[[type], None]) -> None:
        self._serve = serve
        super().__init__(_get_running_loop(), everywhere=True)

    def add(self, loop: AbstractEventLoop) -> None:
        self._serve(type(loop))
        super().add(loop)


# --- what is in the places of asyncio's --------------------------------------------------------------


def _runner_run(
    self: runners.Runner, coro: Coroutine[Any, Any, T], *, context: Context | None = None
) -> T:
    running = _get_running_loop()
    if running is None:
        return _stock_runner_run(self, coro, context=context)
    return suspend(running, coro, context)


def _run_until_complete(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_until_complete(self: AbstractEventLoop, future: Awaitable[T]) -> T:
        running = _get_running_loop()
        if running is self:
            return suspend(self, future)
        result: T = in_place(running, original, self, future)
        return result

    return run_until_complete


def _run_forever(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_forever(self: AbstractEventLoop) -> None:
        running = _get_running_loop()
        if running is not self:
            in_place(running, original, self)
            return
        stopped = self.create_future()
        inner = _inner_runs.setdefault(self, [])
        inner.append(stopped)
        try:
            await_(stopped)
        finally:
            inner.remove(stopped)

    return run_forever


def _stop(original: Callable[..., Any]) -> Callable[..., Any]:
    def stop(self: AbstractEventLoop) -> None:
        for stopped in reversed(_inner_runs.get(self, ())):
            if not stopped.done():
                stopped.set_result(None)
                return
        original(self)

    return stop


_METHODS = {"run_until_complete": _run_until_complete, "run_forever": _run_forever, "stop": _stop}
# Those that wait in `run_forever` inside a running loop: `loop.stop()` ends the innermost.
_inner_runs: WeakKeyDictionary[AbstractEventLoop, list[asyncio.Future[None]]] = WeakKeyDictionary()


# --- where no loop runs ------------------------------------------------------------------------------


def _to_the_end(loop: AbstractEventLoop, main: Awaitable[T]) -> T:
    task = asyncio.ensure_future(main, loop=loop)
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)


def _run_stock(
    main: Awaitable[T],
    debug: bool | None,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> T:
    with runners.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return _stock_runner_run(runner, coroutine_of(main))


def _current_loop() -> AbstractEventLoop | None:
    """The thread's current loop, if it has one; none is made."""
    if sys.version_info >= (3, 14):
        try:
            return asyncio.get_event_loop()
        except RuntimeError:
            return None
    local: Any = getattr(asyncio.get_event_loop_policy(), "_local", None)
    loop: AbstractEventLoop | None = getattr(local, "_loop", None)
    return loop


_kept: WeakSet[AbstractEventLoop] = WeakSet()


@atexit.register
def _close_kept() -> None:
    for loop in list(_kept):
        if not loop.is_running():
            loop.close()
