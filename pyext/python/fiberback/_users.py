"""Which frames are the user's: neither ours nor asyncio's. For messages and warnings to point to."""

from __future__ import annotations

import asyncio
import os
import sys
from types import FrameType

_NOT_USERS = (os.path.dirname(__file__), os.path.dirname(asyncio.__file__))


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
