"""Which frames are the user's: neither ours nor asyncio's. For messages and warnings to point to."""

from __future__ import annotations

import asyncio
import os
import sys
from types import FrameType

# With the separator at the end: a neighbour's name may begin like ours.
_OURS = os.path.join(os.path.dirname(__file__), "")
_NOT_USERS = (_OURS, os.path.join(os.path.dirname(asyncio.__file__), ""))


def is_ours(filename: str) -> bool:
    """Whether the code of a file, as `co_filename` names it, is this package's, of whatever room."""
    return filename.startswith(_OURS)


def is_users(frame: FrameType) -> bool:
    """Whether the code of `frame` is the user's."""
    return not frame.f_code.co_filename.startswith(_NOT_USERS)


def stack_level() -> int:
    """A `stacklevel` for the caller's warning that points to the innermost code of the user's."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and not is_users(frame):
        level, frame = level + 1, frame.f_back
    return level
