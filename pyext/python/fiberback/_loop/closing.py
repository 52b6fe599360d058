"""The end of a loop on which callers are parked: they are told, and so is whoever reads warnings.

Callers parked on fibers outlive a run of the loop, waiting for the next. If the loop is closed instead,
or its thread or the interpreter ends, there is none. `close` is not to be patched, but it lets go of the loop's
own socket, the one that wakes its selector, first of all: a weak reference to that tells. At that
moment the loop is still open, so that callers which clean up can schedule what they like.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import sys
import threading
import warnings
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, ref

from .. import _messages
from .._fiberback import close_parked, parked_on
from .._thread_end import AtThreadEnd
from .._user_frames import stack_level

# More than so many are not named.
_MOST = 10
# How far below `close` its own steps may be.
_DEPTH = 8


class _Watched:
    """What is known of a loop on which callers have been parked."""

    def __init__(self, loop: Any) -> None:
        self._loop = ref(loop)
        self.thread = threading.get_ident()
        self._look_out(loop)

    def _look_out(self, loop: Any) -> None:
        thing = getattr(loop, "_csock", None) or getattr(loop, "_selector", None)
        self._thing = ref(thing, self._is_gone) if thing is not None else None

    def _is_gone(self, _: Any) -> None:
        loop: Any = self._loop()
        if loop is None:
            return
        if loop.is_closed() or _is_being_closed(loop):
            _watched.pop(loop, None)
            _end(loop, self.thread, _messages.LOOP_WAS_CLOSED)
        else:
            self._look_out(loop)  # it was given another one


class _Mine(threading.local):
    at_end: AtThreadEnd | None = None


_mine = _Mine()
_watched: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watched] = WeakKeyDictionary()


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """See to it that callers that are parked on `loop` when it is closed do not wait for ever."""
    known = _watched.get(loop)
    if known is None or known.thread != threading.get_ident():
        _watched[loop] = _Watched(loop)
    if _mine.at_end is None and threading.current_thread() is not threading.main_thread():
        _mine.at_end = AtThreadEnd(functools.partial(_end_all, _messages.THREAD_ENDS))


def _is_being_closed(loop: Any) -> bool:
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_code.co_name == "close" and frame.f_locals.get("self") is loop:
            return True
        frame = frame.f_back
    return False


def _end(loop: asyncio.AbstractEventLoop, thread: int, reason: str) -> None:
    if thread != threading.get_ident():
        there = [task for task in asyncio.all_tasks(loop) if _is_parked(task)]
        if there:
            what = _names([(task, None) for task in there])
            text = _messages.PARKED_AT_CLOSE_ELSEWHERE.format(what=what)
            warnings.warn(text, RuntimeWarning, stacklevel=stack_level())
        return
    parked = parked_on(loop)
    if not parked:
        return
    text = _messages.PARKED_AT_CLOSE.format(reason=reason, what=_names(parked))
    del parked
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=stack_level())
    finally:
        close_parked(loop)


def _is_parked(task: Any) -> bool:
    callbacks = getattr(getattr(task, "_fut_waiter", None), "_callbacks", None) or ()
    return any(
        type(callback).__module__ == "fiberback._fiberback"
        and getattr(callback, "__self__", None) is task
        for callback, _ in callbacks
    )


def _names(parked: list[tuple[Any, Any]]) -> str:
    names = [
        repr(task) if task is not None else f"a callback that waits for {future!r}"
        for task, future in parked[:_MOST]
    ]
    if len(parked) > _MOST:
        names.append(f"{len(parked) - _MOST} more")
    return ", ".join(names)


def _end_all(reason: str) -> None:
    """Of this thread."""
    for loop, known in list(_watched.items()):
        if known.thread == threading.get_ident() and not loop.is_closed():
            _end(loop, known.thread, reason)


def end_at_exit() -> None:
    """An exit handler."""
    _end_all(_messages.LOOP_AT_EXIT)


atexit.register(end_at_exit)
