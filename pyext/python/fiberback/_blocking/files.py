"""Files, in the loop's executor: what opens one, transfers it as a whole, or has to wait for the disk.

On a disk of one's own most of that takes less time than to hand it over, so it is done only where it is asked for by
name. The objects of open files are in C: their methods block as ever.
"""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import shutil
import sys
from asyncio import _get_running_loop
from types import FrameType
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .executor import in_executor
from .waiter import waiter_for


def _by_executor(original: Any, close: Any = None) -> Any:
    def function(*args: Any, **kwds: Any) -> Any:
        if (
            (_get_running_loop() is None and not on_portal())
            or isinstance(args[0] if args else kwds.get("file"), int)  # a descriptor
            or waiter_for("files") is None
            or _must_not_suspend()
        ):
            return original(*args, **kwds)
        if close is None:
            return in_executor(original, *args, **kwds)
        return _opened(original, close, args, kwds)

    function.__wrapped__ = original  # type: ignore[attr-defined] # whose signature it has
    return named(function, original)


def _opened(original: Any, close: Any, args: Any, kwds: Any) -> Any:
    """If the caller is gone before the thread has opened it, nobody else would close it."""
    came: list[Any] = []  # the caller, who is gone, or what is open: who comes last closes that

    def opening() -> Any:
        opened = original(*args, **kwds)
        came.append(opened)
        if came[0] is None:
            close(opened)
        return opened

    try:
        return in_executor(opening)
    except BaseException:
        came.append(None)
        if came[0] is not None:
            close(came[0])
        raise


def _must_not_suspend() -> bool:
    """Whether the thread holds what is its own, not the task's: a module that is being imported, which its other tasks
    would be given as it is, or a lock in C, which they would wait for for ever."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == "<frozen importlib._bootstrap>":
            return True
        if code.co_name == "_get_default_tempdir" and frame.f_globals.get("__name__") == "tempfile":
            return True
        frame = frame.f_back
    return False


_open = _by_executor(open, lambda file: file.close())
REPLACEMENTS = [
    Replacement(builtins, "open", _open),
    Replacement(io, "open", _open, by_name=True),
    Replacement(os, "open", _by_executor(os.open, os.close), by_name=True),
    *(
        Replacement(os, name, _by_executor(getattr(os, name)), by_name=True)
        for name in ("fsync", "fdatasync")
        if hasattr(os, name)
    ),
    *(
        Replacement(pathlib.Path, name, _by_executor(getattr(pathlib.Path, name)))
        for name in ("read_bytes", "read_text", "write_bytes", "write_text")
    ),
    *(
        Replacement(shutil, name, _by_executor(getattr(shutil, name)), by_name=True)
        for name in ("copyfile", "copy", "copy2")
    ),
]
