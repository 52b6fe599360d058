"""`watch`: a thread that says who blocks an event loop.

For the time of a fork the thread is ended, as that of `dump_on`; afterwards both parent and child have one.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from .. import _counts, _messages
from .._fiberback import current_frames, frames_from, lines_from
from . import loops
from .beat import Beat, processor_time
from .blocked import Blocked
from .instead import instead_of
from .lines import Line, above_loop, summary
from .tasks import tasks_of

_logger = logging.getLogger("fiberback")

# Seconds between two looks, and the most of a processor that they may take.
_SHORTEST, _LONGEST, _SHARE = 0.005, 0.25, 0.05
_PATIENCE = 2.0  # seconds that a fork, or `stop`, waits for a report that is being written
_DEPTH = 50  # frames that tell what blocks


class Watch:
    """What `watch` returns: it watches until `stop()` is called, or its `with` block ends."""

    def __init__(self, threshold: float, report: Callable[[Blocked], object]) -> None:
        self._threshold = threshold
        self._report = report
        self._pause = min(max(threshold / 4, _SHORTEST), _LONGEST)
        self._beats: dict[tuple[int, int], Beat] = {}
        self._reported: list[Blocked] = []  # and not over
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        _watches.append(self)
        self._begin()

    def __repr__(self) -> str:
        state = "" if self in _watches else " (stopped)"
        return f"<fiberback.Watch: threshold={self._threshold:g}{state}>"

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no more. Nothing is reported once it has returned, unless a report takes longer than 2 s to be
        written. To be called from any thread, again, and by what is reported to."""
        if self in _watches:
            _watches.remove(self)
        self._end()

    def _begin(self) -> None:
        if self._thread is not None:
            return
        self._ending = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(self._ending,), name="fiberback-watch", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends
            return
        self._thread = thread

    def _end(self) -> None:
        thread, self._thread = self._thread, None
        self._ending.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def _begin_in_child(self) -> None:
        self._thread = None
        self._beats, self._reported = {}, []
        self._begin()

    def _run(self, ending: threading.Event) -> None:
        own = threading.get_ident()
        pause, took = self._pause, time.thread_time()
        begin, waited = time.monotonic(), processor_time(own)[1]
        while not ending.wait(pause):
            now = time.monotonic()
            stalled = now - begin - pause - (processor_time(own)[1] - waited)
            try:
                self._look(now, stalled if stalled > self._pause else 0.0, ending)
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
            pause, took = max(self._pause, (time.thread_time() - took) / _SHARE), time.thread_time()
            begin, waited = time.monotonic(), processor_time(own)[1]

    def _look(self, now: float, stalled: float, ending: threading.Event) -> None:
        beats: dict[tuple[int, int], Beat] = {}
        own = threading.get_ident()
        reports: list[tuple[Beat, Blocked]] = []
        frames = current_frames()
        for ident, top in frames.items():
            if ident == own:
                continue
            lines = lines_from(top, -1)
            loop = loops.innermost(ident, top, lines)
            if loop is None:
                continue
            key = ident, id(loop)
            known = self._beats.get(key)
            # The next loop may be where the one before it was.
            beat = known if known is not None and known.is_of(loop) else Beat(loop, ident)
            beats[key] = beat
            if beat.look(lines, self._threshold, now, stalled):
                reports.append((beat, _blocked(loop, ident, top, lines, beat.seconds(now))))
        del frames
        for key, beat in self._beats.items():
            if beats.get(key) is not beat:
                beat.end(now)
        self._beats = beats
        for blocked in self._reported:
            if blocked.is_over and self._report is _log:
                _logger.info(
                    "the event loop %s goes on, after %.2f s", blocked.loop, blocked.seconds
                )
        self._reported = [each for each in self._reported if not each.is_over]
        for beat, blocked in reports:
            if ending.is_set():
                return
            beat.blocked = blocked
            self._reported.append(blocked)
            _counts.loops_blocked += 1
            try:
                self._report(blocked)
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)


_watches: list[Watch] = []
_is_hooked = False


def watch(threshold: float = 0.1, *, report: Callable[[Blocked], object] | None = None) -> Watch:
    """Say who blocks an event loop, while it is blocked, once for each time::

        fiberback.watch(threshold=0.1)            # for the rest of the process

        with fiberback.watch(0.05) as watching:   # or until `watching.stop()`
            ...

    Code blocks a loop that keeps its thread, in C or in Python, for `threshold` seconds: by `time.sleep`, a lock, a
    socket, `future.result()`, or by computing. Each time the logger "fiberback" gets one warning, with the stack of
    that code, for how long it has been at it, what to type so that it waits (and the loop goes on), and which tasks
    wait meanwhile. `report`, if it is given, is called instead, with a `Blocked`, in the watching thread.

    Every loop of asyncio's, uvloop's and Trio's in every thread is watched, whenever it was begun. A loop that waits
    for something to do is not blocked, and none whose code stands at a debugger's prompt. `stats()["loops_blocked"]`
    counts the reports.

    A thread of its own looks at the other threads' frames four times within `threshold`, and takes at most a
    twentieth of a processor; nothing is added to any wait. Forked children are watched, too. What cannot be
    seen: C code that holds the GIL, and waits, without using the processor; and on uvloop a callback without any
    Python code.

    Raises TypeError or ValueError if `threshold` is no positive number, TypeError if `report` cannot be called.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise TypeError(_messages.WATCH_THRESHOLD.format(value=threshold))
    if not 0 < threshold < float("inf"):
        raise ValueError(_messages.WATCH_THRESHOLD.format(value=threshold))
    if report is not None and not callable(report):
        raise TypeError(_messages.WATCH_REPORT.format(value=report))
    global _is_hooked
    if not _is_hooked:
        _is_hooked = True
        os.register_at_fork(
            before=_end_all, after_in_parent=_begin_all, after_in_child=_begin_all_in_child
        )
        atexit.register(_end_all)
    return Watch(threshold, _log if report is None else report)


def _end_all() -> None:
    for each in tuple(_watches):
        each._end()


def _begin_all() -> None:
    for each in tuple(_watches):
        each._begin()


def _begin_all_in_child() -> None:
    for each in tuple(_watches):
        each._begin_in_child()


def _log(blocked: Blocked) -> None:
    _logger.warning("%s", blocked)


def _blocked(loop: Any, ident: int, top: FrameType, lines: list[Line], seconds: float) -> Blocked:
    if loops.is_trio(loop):
        tasks = [task for task in tuple(loop.tasks) if not str(task.name).startswith("<")]  # Trio's
        current = next((each for each in tasks if getattr(each.coro, "cr_running", False)), None)
        names = sorted(str(task.name) for task in tasks if task is not current)
        task_name = None if current is None else str(current.name)
    else:
        found = tasks_of(loop) or []
        try:
            current = asyncio.current_task(loop)
        except RuntimeError:
            current = None
        names = sorted(task.get_name() for task in found if task is not current)
        task_name = None if current is None else current.get_name()
    above = [*above_loop(lines)]
    call, instead = instead_of(frames_from(top, min(len(above), _DEPTH)))
    if loops.is_trio(loop):
        instead = instead.replace("asyncio.", "trio.")
    thread = getattr(threading, "_active", {}).get(ident)
    return Blocked(
        seconds=seconds,
        loop="Trio" if loops.is_trio(loop) else repr(loop),
        thread=thread.name if thread is not None else f"with id {ident}",
        task=task_name,
        call=call,
        instead=instead,
        frames=summary(reversed(above)),
        waiting=names,
    )
