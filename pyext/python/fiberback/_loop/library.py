"""Which async library runs the current code.

Trio always brings sniffio, and tells it in which steps Trio is in charge; so while sniffio is not
imported, Trio is not running. asyncio is asked directly.

Either can run inside the other: `asyncio.run()` in synchronous code of a Trio task, `trio.run()` in a
callback of asyncio's, Trio as a guest of an asyncio loop. Then both say that they run, and sniffio
says "trio" each time; the stack tells which of them is nearer to the code that runs.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, _get_running_loop
from types import FrameType
from typing import Any

from .._modules import is_loaded
from .thread import runs


def current_library() -> str | None:
    """The running library's sniffio name ("asyncio", "trio", …), or None outside any."""
    if _in_charge() == "asyncio":
        return "asyncio"
    sniffio: Any = sys.modules.get("sniffio")
    if is_loaded("sniffio"):
        try:
            name: str = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            pass
        else:
            return name
    return "asyncio" if _get_running_loop() is not None else None


def is_trio_in_charge() -> bool:
    """Whether Trio runs this code, whatever runs Trio."""
    return _in_charge() == "trio"


def is_trio_running() -> bool:
    """Whether Trio, or another library that tells sniffio's thread-local, runs this code.

    Not what `current_library` says: sniffio's context variable goes along into worker threads.
    """
    return _in_charge() not in (None, "asyncio")


def _in_charge() -> str | None:
    """What sniffio's thread-local says, or "asyncio" where a loop of that is nearer."""
    # None while it is being imported, too.
    local = getattr(sys.modules.get("sniffio"), "thread_local", None)
    name: str | None = local.name if local is not None else None
    if name == "trio":
        loop = _get_running_loop()
        if loop is not None and _is_nearer_than_trio(loop, sys._getframe(1)):
            return "asyncio"
    return name


def _is_nearer_than_trio(loop: AbstractEventLoop, frame: FrameType | None) -> bool:
    """Asked only where both run on this thread: a wait without a portal looks through the frames from the code
    that waits to the loop that runs it, so it costs with that depth, and nothing for what is beyond."""
    while frame is not None:
        if frame.f_code.co_name == "unrolled_run" and (
            frame.f_globals.get("__name__") == "trio._core._run"
        ):
            return False
        if runs(frame, loop):
            return True
        frame = frame.f_back
    return False
