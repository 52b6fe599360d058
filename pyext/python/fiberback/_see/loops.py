"""The event loops of this process, asyncio's and Trio's, and the threads that they run in; as their frames tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

from .._fiberback import frames_from, locals_of
from .._thread import runner

_RUN = ("run_forever", "run_until_complete")


def in_threads(frames: Mapping[int, FrameType]) -> Iterator[tuple[int, Any]]:
    """(thread, loop or Trio's runner), the innermost first, of threads with these innermost frames."""
    for ident, top in frames.items():
        known: list[Any] = []
        for frame in frames_from(top, -1):
            for loop in _held(frame):
                if not any(loop is each for each in known):
                    known.append(loop)
                    yield ident, loop


def innermost(ident: int, top: FrameType, lines: Sequence[tuple[CodeType, Any]]) -> Any:
    """The innermost loop (or Trio's runner) that runs in thread `ident`, or None; `top` is the thread's innermost
    frame, `lines` what `lines_from` gives of it."""
    for at, (code, _) in enumerate(lines):
        if not _may_hold(code):
            continue
        for frame in frames_from(top, at + 1)[at:]:
            for loop in _held(frame):
                if is_trio(loop) or (loop.is_running() and _thread_id(loop, ident) == ident):
                    return loop
    return None


def _thread_id(loop: Any, otherwise: int) -> int | None:
    """Of the thread that it runs in; uvloop does not tell."""
    return getattr(loop, "_thread_id", otherwise)


def stopped() -> list[Any]:
    """Loops that threads run only while they wait for something."""
    return [each[0] for each in tuple(runner._open_loops.values())]


def is_trio(loop: Any) -> bool:
    return hasattr(loop, "init_task")


def is_asyncio(loop: Any) -> bool:
    return issubclass(type(loop), asyncio.AbstractEventLoop)


def _may_hold(code: CodeType) -> bool:
    return (
        code.co_name in _RUN
        or code.co_name == "unrolled_run"
        or any(name in code.co_names for name in _RUN)
    )


def _held(frame: FrameType) -> Iterator[Any]:
    code = frame.f_code
    if code.co_name == "unrolled_run":
        trio = locals_of(frame).get("runner")
        if hasattr(trio, "init_task"):
            yield trio
        return
    if not _may_hold(code):
        return
    held = locals_of(frame)
    own = getattr(held.get("self"), "__dict__", {})
    for thing in (*tuple(held.values()), *tuple(own.values())):
        if is_asyncio(thing):
            yield thing
