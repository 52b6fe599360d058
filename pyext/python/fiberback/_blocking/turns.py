"""Turns that the loop gets before the next task begins: many that begin in one turn, and compute for long before they
first wait, would keep it from all others.

Who gives way waits in a queue of the loop's, of which one goes on in each turn: so a turn takes about as long as what one
of them does before it waits, and whatever else the loop has to do comes in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, ref

from .._portal import call_portal
from .._replacements import Replacement
from .scope import is_on
from .waiter import Waiter, again

# Seconds of one turn after which nobody begins any more.
LONGEST = 0.01


class _Turns:
    """Of one loop."""

    def __init__(self) -> None:
        # When somebody first began in this turn.
        self._begun: float | None = None
        self._waiting: deque[Waiter] = deque()

    def before(self, caller: Waiter) -> Awaitable[None] | None:
        """What a caller who is about to begin has to await, if anything."""
        if self._begun is None:
            self._begin(caller)
        elif monotonic() - self._begun >= LONGEST and not caller.is_cancelled():
            return self._give_way(caller)
        return None

    def _begin(self, caller: Waiter) -> None:
        self._begun = monotonic()
        caller.in_next_turn(self._next)

    def _next(self) -> None:
        self._begun = None
        while self._waiting:
            caller = self._waiting.popleft()
            if not caller.is_woken:
                self._begin(caller)
                caller.wake_in_loop()
                break

    async def _give_way(self, caller: Waiter) -> None:
        self._waiting.append(caller)
        try:
            await caller.woken()
        finally:
            caller.is_woken = True  # who is cancelled is passed over


# Of those in which somebody has begun in this turn: what they are to call next keeps it, and who waits in it keeps the loop.
_of_loops: WeakKeyDictionary[Any, ref[_Turns]] = WeakKeyDictionary()


def _before_sync_call() -> Awaitable[None] | None:
    caller = again() if is_on("turns") else None
    if caller is None:
        return None
    known = _of_loops.get(caller.loop)
    turns = known() if known is not None else None
    if turns is None:
        turns = _Turns()
        _of_loops[caller.loop] = ref(turns)
    return turns.before(caller)


REPLACEMENTS = [Replacement(call_portal, "before_sync_call", _before_sync_call)]
