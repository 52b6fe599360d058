"""Children: `subprocess.Popen`, `os.waitpid` and `os.wait`.

That one child has ended is told by a file, where there is `os.pidfd_open` (Linux 5.3); else, and for any of several, it is
asked, less and less often.
"""

from __future__ import annotations

import os
import subprocess
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from . import poller
from .waiter import waiter_for

_waitpid: Any = getattr(os, "waitpid", None)
_wait: Any = getattr(os, "wait", None)
_popen_wait: Any = vars(subprocess.Popen).get("_wait")
_communicate: Any = subprocess.Popen.communicate
# Seconds.
_FIRST_PAUSE, _LONGEST_PAUSE, _FOR_EVER = 0.001, 0.05, 1e8


def _ended(pid: int, waits: poller.Wait, is_over: Callable[[], bool]) -> bool:
    """Whether the child has ended, or something else is to be known of it, before the time was up."""
    if pid > 0 and poller.IS_THERE and hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # a kernel without it, or nobody's child
            pass
        else:
            try:
                return waits.until_ready((fd, poller.IN)) or is_over()
            finally:
                os.close(fd)
    return waits.until(is_over, _FIRST_PAUSE, _LONGEST_PAUSE) or is_over()


def popen_wait(self: Any, timeout: float | None) -> Any:
    if (
        self.returncode is not None
        or (_get_running_loop() is None and not on_portal())
        or self.poll() is not None
    ):
        return _popen_wait(self, timeout)
    caller = waiter_for("subprocess")
    if caller is None:
        return _popen_wait(self, timeout)
    waits = poller.Wait(caller, timeout)
    while self.poll() is None:
        if not _ended(self.pid, waits, lambda: self.poll() is not None):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
    return _popen_wait(self, None)


def communicate(self: Any, input: Any = None, timeout: float | None = None) -> Any:
    if timeout is None and (_get_running_loop() is not None or on_portal()):
        # Without a timeout a single pipe is read as a file, which blocks.
        timeout = _FOR_EVER
    return _communicate(self, input, timeout)


def waitpid(pid: int, options: int, /) -> Any:
    if (_get_running_loop() is None and not on_portal()) or options:
        return _waitpid(pid, options)
    found = _waitpid(pid, os.WNOHANG)
    if found[0]:
        return found
    caller = waiter_for("subprocess")
    if caller is None:
        return _waitpid(pid, options)

    def look() -> bool:
        nonlocal found
        if not found[0]:
            found = _waitpid(pid, os.WNOHANG)
        return bool(found[0])

    waits = poller.Wait(caller, None)
    while not look():
        _ended(pid, waits, look)
    return found


def wait() -> Any:
    return waitpid(-1, 0)


REPLACEMENTS = [Replacement(subprocess.Popen, "communicate", named(communicate, _communicate))]
if _waitpid is not None and hasattr(os, "WNOHANG"):
    REPLACEMENTS += [
        Replacement(subprocess.Popen, "_wait", named(popen_wait, _popen_wait)),
        Replacement(os, "waitpid", named(waitpid, _waitpid), by_name=True),
        Replacement(os, "wait", named(wait, _wait), by_name=True),
    ]
