"""`Blocked`: what `watch` reports of a loop that somebody blocks."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from .. import _messages

_MOST_NAMES = 8


@dataclass(eq=False)
class Blocked:
    """Code that keeps an event loop from going on: what `watch` reports, once for each time.

    `str()` of it is the text that is logged.
    """

    seconds: float
    """For how long, so far. It is brought up to date until the loop goes on."""
    loop: str
    """The event loop, as its `repr` shows it."""
    thread: str
    """The name of the thread that it runs in."""
    task: str | None
    """The name of the task that blocks it; None for a callback."""
    call: str
    """What blocks: "time.sleep()", "lock.acquire()", or the function that computes."""
    instead: str
    """What to type instead."""
    frames: traceback.StackSummary
    """The stack of what blocks from the outermost frame, without a frame of this package's or of what runs the
    event loop."""
    waiting: list[str] = field(default_factory=list)
    """The names of the other tasks of the loop, none of which can go on meanwhile."""
    is_over: bool = False
    """The loop has gone on, or has ended."""

    def __str__(self) -> str:
        who = "a callback" if self.task is None else f"task {self.task!r}"
        stack = "".join(traceback.format_list(self.frames)) or "  (no frame to be seen)\n"
        return _messages.LOOP_BLOCKED.format(
            loop=self.loop,
            thread=self.thread,
            seconds=self.seconds,
            who=who,
            call=self.call,
            instead=self.instead,
            stack=stack,
            waiting=self._those_who_wait(),
        )

    def _those_who_wait(self) -> str:
        count = len(self.waiting)
        if not count:
            return "No other task waits."
        names = ", ".join(map(repr, self.waiting[:_MOST_NAMES]))
        more = f" and {count - _MOST_NAMES} more" if count > _MOST_NAMES else ""
        return f"{count} task{' waits' if count == 1 else 's wait'} meanwhile: {names}{more}"
