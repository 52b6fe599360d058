"""`python -m fiberback dump PID`: a dump of another process.

From CPython 3.14 on that process runs a script of ours (`sys.remote_exec`), which writes the dump to a file, in its
main thread, when that executes Python code next. If it waits in a system call, that is interrupted by stopping
it for a moment as a debugger does: epoll_wait(2), in which asyncio and Trio wait, returns then (signal(7)), CPython
runs the script, and goes on waiting. (Other calls are begun again, by the kernel or by uvloop.) Before 3.14, and where
that is not allowed, the process is sent the signal that it has called `dump_on` for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time
from typing import Any

from .. import _messages

_SCRIPT = """\
def _fiberback_dump():
    import os, sys
    module = sys.modules.get("fiberback")
    try:
        text = "" if module is None else module.dump(format={format!r})
    except Exception as error:
        text = "Error: " + repr(error)
    with open({path!r} + ".part", "w", errors="backslashreplace") as file:
        file.write(text)
    os.replace({path!r} + ".part", {path!r})

_fiberback_dump()
del _fiberback_dump
"""

# Seconds until the process is interrupted, and until it is given up.
_PATIENCE, _GIVE_UP = 0.3, 10.0

_PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # sys/ptrace.h
_WALL = 0x40000000


def dump_of(pid: int, format: str) -> str:
    """The dump of process `pid`. Raises OSError if it cannot be had, and RuntimeError if its CPython does not
    answer: both say what to do instead."""
    remote_exec: Any = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        raise RuntimeError(_messages.DUMP_BEFORE_314.format(pid=pid))
    with tempfile.TemporaryDirectory(prefix="fiberback-") as folder:
        path, script = os.path.join(folder, "dump"), os.path.join(folder, "script.py")
        with open(script, "w") as file:
            file.write(_SCRIPT.format(path=path, format=format))
        # The process may be another user's, if we are root.
        owner = os.stat(f"/proc/{pid}") if os.path.isdir("/proc") else None
        if owner is not None and os.geteuid() == 0:
            os.chown(folder, owner.st_uid, owner.st_gid)
            os.chown(script, owner.st_uid, owner.st_gid)
        remote_exec(pid, script)
        since, interrupted = time.monotonic(), False
        while not os.path.exists(path):
            waited = time.monotonic() - since
            if waited > _PATIENCE and not interrupted:
                interrupted = True
                _interrupt(pid)
            if waited > _GIVE_UP:
                raise RuntimeError(_messages.DUMP_NO_ANSWER.format(pid=pid, seconds=_GIVE_UP))
            time.sleep(0.01)
        with open(path) as file:
            text = file.read()
    if not text:
        raise RuntimeError(_messages.DUMP_NOT_LOADED.format(pid=pid))
    return text


def _interrupt(pid: int) -> None:
    """Has the system call that the process's main thread waits in return; nothing if that is not allowed."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    ptrace = library.ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long
    if ptrace(_PTRACE_SEIZE, pid, None, None) != 0:
        return
    try:
        if ptrace(_PTRACE_INTERRUPT, pid, None, None) == 0:
            os.waitpid(pid, _WALL)
    finally:
        ptrace(_PTRACE_DETACH, pid, None, None)


def send_signal(pid: int, name: str) -> str:
    """Sends the signal that the process dumps on. Returns what to tell. Raises OSError if it cannot be sent, and
    RuntimeError if the process does not handle it: it would be ended."""
    signum = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(signum, signal.Signals):
        raise RuntimeError(_messages.DUMP_NO_SIGNAL.format(name=name))
    if not _catches(pid, signum):
        raise RuntimeError(_messages.DUMP_NOT_CAUGHT.format(pid=pid, name=signum.name))
    os.kill(pid, signum)
    return f"{signum.name} sent to process {pid}: it writes the dump to its standard error, or where it has chosen"


def _catches(pid: int, signum: int) -> bool:
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    except FileNotFoundError:  # the process has ended, which `kill` tells, or this is no Linux
        pass
    return True
