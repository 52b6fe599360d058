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
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .dns import in_executor
from .waiter import waiter_for


def _in_executor(original: Any) -> Any:
    def function(*args: Any, **kwds: Any) -> Any:
        if (_get_running_loop() is None and not on_portal()) or waiter_for("files") is None:
            return original(*args, **kwds)
        return in_executor(original, *args, **kwds)

    function.__wrapped__ = original  # type: ignore[attr-defined] # whose signature it has
    return named(function, original)


_open = _in_executor(open)
REPLACEMENTS = [
    Replacement(builtins, "open", _open),
    Replacement(io, "open", _open, by_name=True),
    *(
        Replacement(os, name, _in_executor(getattr(os, name)), by_name=True)
        for name in ("open", "fsync", "fdatasync")
        if hasattr(os, name)
    ),
    *(
        Replacement(pathlib.Path, name, _in_executor(getattr(pathlib.Path, name)))
        for name in ("read_bytes", "read_text", "write_bytes", "write_text")
    ),
    *(
        Replacement(shutil, name, _in_executor(getattr(shutil, name)), by_name=True)
        for name in ("copyfile", "copy", "copy2")
    ),
]
