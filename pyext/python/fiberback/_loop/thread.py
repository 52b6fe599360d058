"""Which thread a loop runs in, as its frames tell.

Asked from other threads, and of loops that do not say: whoever runs a loop has it at hand.

`thread_of` goes through the frames of all threads, so no wait begins with it. A thread that waits for a
loop asks when it has waited for `channel._FIRST_LOOK` already, in pauses that grow, and only of a loop that has never
answered that channel; and so does code in a forked child, of a loop that its parent may have run.
"""

from __future__ import annotations

import asyncio
import threading
from types import FrameType
from typing import Any

from .._fiberback import current_frames, frames_from, locals_of


def thread_of(loop: asyncio.AbstractEventLoop) -> int | None:
    """The id of the thread in which `loop` runs, as far as it can be told from outside."""
    known: int | None = getattr(loop, "_thread_id", None)
    if known is not None:
        return known
    # uvloop does not say, nor does it leave frames. But those who run it do.
    task: Any = asyncio.current_task(loop)
    coro = task.get_coro() if task is not None else None
    step = getattr(coro, "cr_frame", None)
    mine = threading.get_ident()
    for ident, top in current_frames().items():
        if ident == mine:
            continue
        if any(frame is step or runs(frame, loop) for frame in frames_from(top, -1)):
            return ident
    return None


def runs(frame: FrameType, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the code of `frame` runs loops, and has this one at hand."""
    names = frame.f_code.co_names
    if "run_forever" not in names and "run_until_complete" not in names:
        return False
    held = locals_of(frame)
    own = getattr(held.get("self"), "__dict__", {})
    known = (*held.values(), *own.values(), *map(frame.f_globals.get, names))
    return any(thing is loop for thing in known)
