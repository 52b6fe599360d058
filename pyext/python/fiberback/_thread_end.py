"""Something to do when this thread ends, still in it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any


class AtThreadEnd:
    """Calls `function` when it dies, which it is to do with the locals (`threading.local`) of the thread
    that made it. Not in a forked child, nor when the interpreter goes first."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._thread = threading.current_thread()
        self._owner = (os.getpid(), threading.get_ident())

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        ident = threading.get_ident()
        if is_finalizing() or self._owner != (os.getpid(), ident):
            return
        # `threading` has struck the thread off its list by now. With `current_thread()`, what is
        # called here would enter a dummy in its place, and nothing would ever remove that.
        threads: dict[int, Any] = getattr(threading, "_active", {})
        is_struck = threads.setdefault(ident, self._thread) is self._thread
        try:
            self._function()
        finally:
            if is_struck:
                threads.pop(ident, None)
