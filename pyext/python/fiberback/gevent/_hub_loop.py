"""The hub's loop, which tells who drives the hub of what is to come."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import heapq
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Driver(Protocol):
    """Who drives the hub."""

    def soon(self) -> None:
        """Has the hub go on soon."""


# What of a loop's has it something to do soon.
_TO_COME = frozenset({"async_", "child", "io", "run_callback", "signal", "stat"})


class HubLoop:
    """The hub's loop, which tells who drives the hub of what is to come."""

    def __init__(self, loop: Any, *, is_late: bool = False) -> None:
        self._loop = loop
        # It may have timers that nobody knows of: then it is looked at all the time.
        self._most = 0.02 if is_late else None
        self._due: list[float] = []
        self._repeated: weakref.WeakSet[Any] = weakref.WeakSet()
        self.drive: Driver | None = None
        base: Any = type(loop.timer(0))

        def start(timer: Any, callback: Callable[..., Any], *args: Any, **named: Any) -> None:
            base.start(timer, callback, *args, **named)
            self.comes_in(timer.seconds)

        def again(timer: Any, callback: Callable[..., Any], *args: Any, **named: Any) -> None:
            base.again(timer, callback, *args, **named)
            self.comes_in(timer.interval)

        self._timer_class: Any = type("timer", (base,), {"start": start, "again": again})

    def __getattr__(self, name: str) -> Any:
        if self.drive is not None and name in _TO_COME:
            self.drive.soon()
        return getattr(self._loop, name)

    def timer(
        self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None
    ) -> Any:
        timer = self._timer_class(self._loop, after, repeat, ref, priority)
        timer.seconds, timer.interval = after, repeat
        if repeat:
            self._repeated.add(timer)
        return timer

    def comes_in(self, seconds: float) -> None:
        """There will be something to do after so many seconds."""
        # A little later than asked for, so that it is due by then.
        heapq.heappush(self._due, time.monotonic() + max(seconds, 0.0) + 1e-4)
        if self.drive is not None:
            self.drive.soon()

    def next_due(self, looked: float) -> float | None:
        """Seconds until there is something to do, if that is known; the hub has last begun to look at `looked`."""
        # What has come since then may not have been seen.
        while self._due and self._due[0] <= looked:
            heapq.heappop(self._due)
        dues = [timer.interval for timer in self._repeated if timer.active]
        if self._due:
            dues.append(max(self._due[0] - time.monotonic(), 0.0))
        if self._most is not None:
            dues.append(self._most)
        return min(dues, default=None)
