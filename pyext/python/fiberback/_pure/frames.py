"""Frames, of this thread and of others, and of stacks that are suspended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

from .step import below

_OURS = os.path.join(os.path.dirname(__file__), "")


def current_frames() -> dict[int, FrameType]:
    """The topmost frame of each thread, by the thread's id."""
    return sys._current_frames()


def frames_from(frame: FrameType | None, most: int, /) -> list[FrameType]:
    """A frame, its caller, and so on, 'most' of them or all if it is negative."""
    found: list[FrameType] = []
    while frame is not None and len(found) != most:
        found.append(frame)
        frame = below(frame)
    return found


def lines_from(frame: FrameType | None, most: int, /) -> list[tuple[CodeType, int | None]]:
    """The code and the line of a frame, of its caller, and so on, as frames_from()."""
    return [(each.f_code, each.f_lineno) for each in frames_from(frame, most)]


def of_suspended(stack: Any) -> FrameType | None:
    """The innermost frame of a suspended stack: the function that has called await_()."""
    frame: FrameType | None = stack.top.gr_frame if stack.top is not None else None
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return frame


def locals_of(frame: FrameType, /) -> Mapping[str, Any]:
    """The f_locals of a frame."""
    return frame.f_locals


def local_of(code: CodeType | str, index: int, /) -> Any:
    """That local variable of the innermost frame of this thread that executes 'code', or code whose qualified
    name ends so; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        executes = frame.f_code
        if executes is code or (isinstance(code, str) and executes.co_qualname.endswith(code)):
            names = executes.co_varnames
            return frame.f_locals.get(names[index]) if index < len(names) else None
        frame = below(frame)
    return None
