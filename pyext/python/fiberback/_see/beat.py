"""Whether an event loop goes on: it is given something to call, and looked at until it has done so.

Only while it may be busy: a loop that idles in its selector is not woken. What the code is that it does not come back
from, the thread's frames tell: as long as the outermost one above the loop's own is the same, so is the code.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from types import CodeType
from typing import Any
from weakref import ref

from .. import _counts, _messages
from .._fiberback import is_in_turn
from .._loop.parking import _poll
from . import loops
from .blocked import Blocked
from .lines import Line, is_loops, is_shown

_STDLIB = os.path.dirname(os.__file__)
_DEBUGGERS = tuple(os.path.join(_STDLIB, name) for name in ("bdb.py", "pdb.py", "code.py"))
_DEBUGGERS_FOLDERS = ("pydevd", "debugpy", os.path.join("IPython", "core", "debugger"))


class Beat:
    """One loop in one thread, as long as it runs there."""

    def __init__(self, loop: Any, ident: int) -> None:
        self._loop = ref(loop)
        self._ident = ident
        self._processor = processor_time(ident)
        self._answer: list[float] | None = None  # empty until the loop answers
        self._code: CodeType | None = None
        self._since = 0.0
        self._is_muted = False
        self._is_unwatched = False
        self.blocked: Blocked | None = None
        """What was reported of it, while it lasts."""

    def is_of(self, loop: Any) -> bool:
        return self._loop() is loop

    def look(self, lines: Sequence[Line], threshold: float, now: float, stalled: float) -> bool:
        """Whether there is something new to report, given the thread's lines from the innermost. For `stalled`
        seconds up to now no look could be had, though there was a processor for it."""
        if self._is_unwatched:
            return False
        processor = processor_time(self._ident)
        # With what it has waited for a processor: somebody may well hold the GIL meanwhile.
        has_run = 2 * (sum(processor) - sum(self._processor)) >= stalled
        waited = processor[1] - self._processor[1]
        self._processor = processor
        if self._answer:
            self.end(self._answer[0])
        code = self._outermost(lines)
        if code is None:  # it idles
            if self._answer is None:
                self.end(now)
            self._code = None
            return False
        if self._answer is None:
            # Code that holds the GIL was at it while nobody could look.
            self._since = now - (stalled if has_run else 0.0)
            self._ask()
        elif code is not self._code:
            self.end(now)
            self._since = now
        elif not has_run:  # nothing ran: the process was stopped
            self._since += stalled
        elif not stalled:  # the machine is busy: that is no fault of the code's
            self._since = min(now, self._since + waited)
        self._code = code
        if self.blocked is not None:
            self.blocked.seconds = now - self._since
            return False
        if self._is_muted or self._answer or now - self._since < threshold:
            return False
        if any(_is_debuggers(line[0]) for line in lines):
            self._is_muted = True
            return False
        return True

    def seconds(self, now: float) -> float:
        return now - self._since

    def end(self, at: float) -> None:
        """The loop has gone on."""
        if self._answer:
            self._answer = None
        self._is_muted = False
        if self.blocked is not None:
            self.blocked.seconds = max(self.blocked.seconds, at - self._since)
            self.blocked.is_over = True
            self.blocked = None

    def _outermost(self, lines: Sequence[Line]) -> CodeType | None:
        """The code that the loop has called; None if it idles, or shows none."""
        if _is_idle(lines):
            return None
        found = None
        for code, _ in lines:
            if is_loops(code):
                # A callback in C has no frame, but for the one of the handle that calls it; on a runner not even that.
                is_in_c = found is None and (
                    code.co_qualname == "Handle._run" or is_in_turn(self._loop())
                )
                return code if is_in_c else found
            if is_shown(code):
                found = code
        return found

    def _ask(self) -> None:
        loop: Any = self._loop()
        answer: list[float] = []

        def beat() -> None:
            answer.append(time.monotonic())

        try:
            if loops.is_trio(loop):
                loop.entry_queue.run_sync_soon(beat)
            else:
                loop.call_soon_threadsafe(beat, context=contextvars.Context())
        except NotImplementedError as error:
            return self._cannot_be_asked(loop, error)
        except RuntimeError:  # it has just ended
            return
        except Exception as error:  # it has no such method
            return self._cannot_be_asked(loop, error)
        self._answer = answer

    def _cannot_be_asked(self, loop: Any, error: Exception) -> None:
        self._is_unwatched = True
        _counts.loops_unwatched += 1
        if _counts.loops_unwatched == 1:
            text = _messages.LOOP_UNWATCHED.format(loop=repr(loop), error=repr(error))
            logging.getLogger("fiberback").warning("%s", text)


_POLLS = {"_run_once", "unrolled_run", "get_events"}


def _is_idle(lines: Sequence[Line]) -> bool:
    if len(lines) < 2:
        return True
    (top, _), (below, _) = lines[0], lines[1]
    if top.co_name == "select" and top.co_filename.endswith("selectors.py"):
        return below.co_name in _POLLS or below is _poll.__code__
    return top.co_name == "get_events" and is_loops(below)


def _is_debuggers(code: CodeType) -> bool:
    file = code.co_filename
    return file in _DEBUGGERS or any(each in file for each in _DEBUGGERS_FOLDERS)


def processor_time(ident: int) -> tuple[float, float]:
    """Seconds that the thread has run for, and has waited for a processor; 0.0 where the system does not tell."""
    thread = getattr(threading, "_active", {}).get(ident)
    if sys.platform == "linux" and thread is not None and thread.native_id is not None:
        try:
            with open(f"/proc/self/task/{thread.native_id}/schedstat", "rb", buffering=0) as file:
                ran, waited, _ = file.read(100).split()
                return int(ran) / 1e9, int(waited) / 1e9
        except (OSError, ValueError):
            pass
    return 0.0, 0.0
