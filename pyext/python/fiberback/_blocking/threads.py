"""`threading.Thread.join`: nothing tells that a thread has ended, so it is asked, less and less often."""

from __future__ import annotations

import threading
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .poller import Wait
from .waiter import waiter_for

_join: Any = threading.Thread.join
# Seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


def join(self: threading.Thread, timeout: float | None = None) -> None:
    caller = None
    # What is refused is refused by the original.
    if (
        (_get_running_loop() is not None or on_portal())
        and self.is_alive()
        and self is not threading.current_thread()
        and (timeout is None or timeout > 0)
    ):
        caller = waiter_for("threads")
    if caller is not None:
        waits = Wait(caller, timeout)
        if not waits.until(lambda: not self.is_alive(), _FIRST_PAUSE, _LONGEST_PAUSE):
            return
    _join(self, timeout)


REPLACEMENTS = [Replacement(threading.Thread, "join", named(join, _join))]
