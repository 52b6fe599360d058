"""Which async library runs the current code, and in which of its tasks.

Trio always brings sniffio, and tells it in which steps Trio is in charge; so while sniffio is not
imported, Trio is not running. asyncio is asked directly.
"""

from __future__ import annotations

import sys
from asyncio import current_task as _asyncio_current_task
from asyncio import get_running_loop as _get_running_loop
from typing import Any


def current_library() -> str | None:
    """The running library's sniffio name ("asyncio", "trio", …), or None outside any."""
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        try:
            name: str = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            pass
        else:
            return name
    try:
        _get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"


def current_task() -> Any:
    """The running asyncio or Trio task; None in a loop callback or outside both libraries."""
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None and sniffio.thread_local.name == "trio":
        import trio

        try:
            return trio.lowlevel.current_task()
        except RuntimeError:
            return None
    try:
        return _asyncio_current_task()
    except RuntimeError:
        return None


def is_trio_running() -> bool:
    """Whether Trio, or another library that tells sniffio's thread-local, runs in this thread.

    Not what `current_library` says: sniffio's context variable goes along into worker threads.
    """
    sniffio: Any = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name is not None
