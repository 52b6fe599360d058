"""Whether the thread of an event loop is blocked waiting for the thread that waits for the loop.

Asked when a loop does not answer for a while. Nothing needs to be prepared: the stacks of all
threads are looked at. A thread counts as blocked on what the waiting functions of the standard
library at the top of its stack wait for without a timeout: `Thread.join`, `Future.result`,
`Executor.shutdown`, `concurrent.futures.wait`. Who is to end that wait is followed from thread to
thread. Locks, events and queues do not tell whom they wait for, so they prove nothing.
"""

from __future__ import annotations

import concurrent.futures
import threading
import traceback
from concurrent.futures import Future
from types import FrameType
from typing import Any

from .._fiberback import current_frames, frames_from, locals_of
from .._user_frames import is_ours

_Future: Any = Future
_Thread: Any = threading.Thread
# The functions that wait for what their local variable of that name is.
_WAITS: dict[Any, str] = {
    _Future.result.__code__: "self",
    _Future.exception.__code__: "self",
    _Thread.join.__code__: "self",
    concurrent.futures.wait.__code__: "fs",
}
# More of the standard library's frames than this are not on top of a blocked call.
_DEPTH = 8


def work_future(frame: FrameType) -> Future[Any] | None:
    """The future of the executor's work item that runs on the stack that ends in `frame`."""
    for one in frames_from(frame, -1):
        if one.f_code.co_qualname.endswith("_WorkItem.run"):
            future = getattr(locals_of(one).get("self"), "future", None)
            if isinstance(future, Future):
                return future
    return None


def waits_for(frame: FrameType) -> list[Any]:
    """The threads and futures that the stack that ends in `frame` is blocked on for ever."""
    found: list[Any] = []
    for one in frames_from(frame, _DEPTH):
        name = _WAITS.get(one.f_code)
        if name is not None:
            local = locals_of(one)
            if local.get("timeout") is None and name in local:
                thing = local[name]
                found.extend(thing if name == "fs" else [thing])
    return found


def is_blocked_on(ident: int, mine: int) -> bool:
    """Whether thread `ident` waits, if by way of others, for thread `mine` or what it works at."""
    frames = current_frames()
    works = {id(work): other for other in frames if (work := work_future(frames[other]))}
    seen: set[int] = set()
    look = [ident]
    while look:
        other = look.pop()
        if other in seen or other not in frames:
            continue
        seen.add(other)
        for thing in waits_for(frames[other]):
            next_one = thing.ident if isinstance(thing, threading.Thread) else works.get(id(thing))
            if next_one == mine:
                return True
            if next_one is not None:
                look.append(next_one)
    return False


def stack_of(ident: int) -> str:
    """The innermost part of a thread's stack, as a traceback shows it."""
    frame = current_frames().get(ident)
    if frame is None:
        return "  (not running)\n"
    innermost = reversed(frames_from(frame, 24))
    stack = traceback.StackSummary.extract((one, one.f_lineno) for one in innermost)
    theirs = [entry for entry in stack if not is_ours(entry.filename)]
    return "".join(traceback.format_list(theirs[-8:]))


def name_of(ident: int | None) -> str:
    """How a thread's name is quoted in messages."""
    for thread in threading.enumerate():
        if thread.ident == ident:
            return repr(thread.name)
    return f"with id {ident}" if ident is not None else "of the loop"
