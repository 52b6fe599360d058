"""Where the calls of a face wait: on one loop, that of the first one, so that its connections live there.

Before the first wait an object has no home. That wait goes wherever `sync` would have it go: to the loop that
runs here, to that which this thread works for, or to the thread's own runner. From then on the object's calls,
and those of all that came out of it, wait for that loop, from whatever thread they are made.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from dataclasses import dataclass
from inspect import CORO_CREATED, getcoroutinestate
from types import CoroutineType
from typing import Any, Literal

from .. import _messages
from .._fiberback import await_
from .._loop import forked
from .._loop.library import is_trio_running
from .._sync import call, caller
from .._sync.loop_thread import LoopThread
from .._thread import parent_loop, runner
from .kinds import is_waited_for


@dataclass(frozen=True)
class Options:
    """What `syncify` was told."""

    fallback: Literal["raise", "thread"] = "raise"
    home: LoopThread | asyncio.AbstractEventLoop | None = None
    needs_loop: bool = False


class Home:
    """The loop of an object, and of what came out of it."""

    __slots__ = ("_loop", "options")

    def __init__(self, options: Options) -> None:
        self.options = options
        self._loop = options.home if not isinstance(options.home, LoopThread) else None

    def is_settled(self) -> bool:
        return self._loop is not None

    def settle(self) -> None:
        """The loop that runs here is the home, if there is none yet."""
        if self._loop is None and not is_trio_running():
            self._loop = _get_running_loop()

    def share(self, other: Home) -> None:
        """Live where `other` does, if this has no home yet: one is given to the other."""
        if self._loop is None:
            self._loop = other._loop

    def wait(self, awaitable: Any) -> Any:
        """The awaitable's result."""
        loop = self._loop
        if loop is None:
            return self._first(awaitable)
        if _get_running_loop() is loop:
            return await_(awaitable)
        return self._elsewhere(loop, awaitable)

    def _first(self, awaitable: Any) -> Any:
        options = self.options
        coro: Any = _settled(self, awaitable)
        try:
            if isinstance(options.home, LoopThread):
                return options.home.run(coro)
            if options.needs_loop and not has_loop():
                raise RuntimeError(_messages.FACE_NO_LOOP)
            return call.wait(coro, options.fallback)
        finally:
            if coro.cr_frame is not None:
                coro.close()
            if type(awaitable) is CoroutineType and getcoroutinestate(awaitable) == CORO_CREATED:
                awaitable.close()  # refused

    def _elsewhere(self, loop: asyncio.AbstractEventLoop, awaitable: Any) -> Any:
        if loop.is_closed() or forked.is_parents(loop):
            self._loop = None  # what lived there is gone
            return self._first(awaitable)
        here = _get_running_loop() is not None or is_trio_running()
        if not here and runner.is_own(loop):
            return runner.run_here(awaitable)
        if _runs_in_another_thread(loop):
            if not here and getattr(parent_loop.find(), "loop", None) is loop:
                return await_(awaitable)  # in the one task of this thread's there
            return caller.wait(loop, awaitable)
        if type(awaitable) is CoroutineType:
            awaitable.close()
        raise RuntimeError(_messages.FACE_HOME.format(loop=loop))

    def run(self, function: Callable[..., Any], args: Any, kwds: Any) -> Any:
        """`function(*args, **kwds)`, where it may touch the loop, and its result, once that has come."""
        loop = self._loop
        here = _get_running_loop()
        if loop is not None and loop is not here and self._is_reached(loop, here):
            return self.wait(_run(function, args, kwds))
        if loop is None and isinstance(self.options.home, LoopThread):
            return self.wait(_run(function, args, kwds))
        try:
            result = function(*args, **kwds)
        except RuntimeError as error:
            # What `asyncio.get_running_loop` says, for the function, or for `create_task`.
            if loop is not None or here is not None or error.args != ("no running event loop",):
                raise
            _close_what_was_to_start(error)
        else:
            return self.wait(result) if is_waited_for(result) else result
        return self.wait(_run(function, args, kwds))

    def _is_reached(self, loop: asyncio.AbstractEventLoop, here: Any) -> bool:
        """Whether code can be sent to the home, or it stands still, so that code elsewhere disturbs nothing."""
        if loop.is_closed() or forked.is_parents(loop):
            return False
        return (here is None and runner.is_own(loop)) or _runs_in_another_thread(loop)


def has_loop() -> bool:
    """Whether a loop runs here, or one for which this thread works."""
    return _get_running_loop() is not None or is_trio_running() or parent_loop.find() is not None


def _runs_in_another_thread(loop: asyncio.AbstractEventLoop) -> bool:
    """Not in this one, below the code that waits, where it cannot go on; but Trio's guests can."""
    if not loop.is_running():
        return False
    here = getattr(loop, "_thread_id", None) == threading.get_ident()
    return not here or is_trio_running()


def _close_what_was_to_start(error: BaseException) -> None:
    """The coroutine that `create_task` was given, which would warn that nobody awaited it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    coro = traceback.tb_frame.f_locals.get("coro") if traceback is not None else None
    if type(coro) is CoroutineType and getcoroutinestate(coro) == CORO_CREATED:
        coro.close()


# Coroutine functions, so that who runs them finds async generators among their arguments.
async def _settled(home: Home, awaitable: Any) -> Any:
    home.settle()
    return await awaitable


async def _run(function: Callable[..., Any], args: Any, kwds: Any) -> Any:
    result = function(*args, **kwds)
    return await result if is_waited_for(result) else result
