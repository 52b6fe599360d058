"""What is on a stack: the user's frames, from the outermost, neither ours nor those that run the event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import thread
from types import CodeType
from typing import Any, TypeAlias

from .._fiberback import Portal, suspended_lines
from .._thread.contexts import InContext
from .._user_frames import is_ours

# The code of a frame and its current line (None if it has none); from the innermost in what the native module
# gives.
Line: TypeAlias = tuple[CodeType, "int | None"]

_ASYNCIO = os.path.dirname(asyncio.__file__)
# What a future's `__await__` is, in Python.
_FUTURES = os.path.join(_ASYNCIO, "futures.py")
# Below the code that a loop runs: asyncio's, whatever runs uvloop's, and Trio's.
_LOOPS = tuple(
    os.path.join(_ASYNCIO, name)
    for name in (
        "events.py",
        "base_events.py",
        "runners.py",
        "unix_events.py",
        "selector_events.py",
    )
)
# Below the code that a thread runs.
_THREADS = (threading.__file__, thread.__file__)
_TRIO = os.path.join("trio", "_core", "_run.py")
# What runs in place of asyncio's own step of a task where that is not in C.
_PURE_STEPS = ("Task.__step", "Task.__step_run_and_handle_result", "Task.__wakeup")
# Objects that stand between an `await` and what it awaits, and show that to the collector alone.
_BETWEEN = {
    "coroutine_wrapper",
    "async_generator_asend",
    "async_generator_athrow",
    "anext_awaitable",
}
# More than this is a circle.
_MOST = 10_000


def is_loops(code: CodeType) -> bool:
    file = code.co_filename
    return (
        file in _LOOPS
        or file.endswith(_TRIO)
        or (code.co_qualname in _PURE_STEPS and file.startswith(_ASYNCIO))
    )


def is_shown(code: CodeType) -> bool:
    file = code.co_filename
    return not (is_ours(file) or file == "<fiberback>" or file == _FUTURES)


def above_loop(lines: Iterable[Line]) -> Iterator[Line]:
    """Of a stack from the innermost frame, what is above the code that runs the loop."""
    for line in lines:
        if is_loops(line[0]):
            return
        yield line


def above_thread(lines: list[Line]) -> list[Line]:
    """Of a stack from the innermost frame, what is above the frames that every thread begins with."""
    end = len(lines)
    while end and lines[end - 1][0].co_filename in _THREADS:
        end -= 1
    return lines[:end]


def summary(lines: Iterable[Line]) -> traceback.StackSummary:
    """The user's frames, as `traceback` has them; source lines are read when they are asked for."""
    return traceback.StackSummary.from_list(
        traceback.FrameSummary(code.co_filename, line, code.co_qualname, lookup_line=False)
        for code, line in lines
        if is_shown(code)
    )


class Walk:
    """From a coroutine (or portal) down to what it waits for in the end."""

    def __init__(self, coro: Any) -> None:
        self.lines: list[Line] = []
        """From the outermost frame."""
        self.portals: list[Portal] = []
        self.innermost: Any = None
        """The last coroutine or generator on the way."""
        self.end: Any = None
        """What that awaits: a future, or what else is no coroutine; None if it runs, or has ended."""
        seen: set[int] = set()
        thing = coro
        while thing is not None and id(thing) not in seen and len(seen) < _MOST:
            seen.add(id(thing))
            self.end = thing
            thing = self._pass(thing)

    def _pass(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is Portal:
            self.portals.append(thing)
            lines = suspended_lines(thing)
            if lines is None:
                self.end = None
                return thing.wrapped
            self.lines.extend(reversed(lines))
            self.end = None
            return thing.cr_await
        for frame_name, inner_name in _NAMES:
            try:
                frame = getattr(thing, frame_name)
            except Exception:
                continue
            self.end = None
            if getattr(frame, "f_code", None) is _IN_CONTEXT:
                return frame.f_locals["coro"]
            if frame is not None and frame.f_code.co_filename == _FUTURES:
                return frame.f_locals.get("self")
            self.innermost = thing
            if frame is not None and hasattr(frame, "f_code"):
                self.lines.append((frame.f_code, frame.f_lineno))
            return getattr(thing, inner_name, None)
        if kind.__name__ == "FutureIter":
            return next(filter(asyncio.isfuture, gc.get_referents(thing)), None)
        if kind.__name__ in _BETWEEN:
            for inner in gc.get_referents(thing):
                if any(hasattr(inner, name) for name, _ in _NAMES):
                    return inner
        return None


# A thread's awaitable, stepped by hand in the thread's context.
_IN_CONTEXT = InContext.__await__.__code__
_NAMES = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))
