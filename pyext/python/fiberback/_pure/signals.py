"""Signals that are told to a thread by a pipe: by Python's own handler, when the main thread next runs code."""

from __future__ import annotations

import os
import signal
from typing import Any

_before: dict[int, Any] = {}


def write_on_signal(signum: int, fd: int, /) -> None:
    """Have the signal's number written to a file as one byte, in place of what the signal does; with -1, have it
    do what it did before."""
    if fd < 0:
        if signum in _before:
            signal.signal(signum, _before.pop(signum))
        return

    def write(number: int, _: object) -> None:
        os.write(fd, bytes([number]))

    before = signal.signal(signum, write)
    _before.setdefault(signum, before)
