"""Where tasks of one worker's loop wait until all have come."""

from __future__ import annotations

import asyncio

_met: dict[str, asyncio.Event] = {}
# How many have come to each.
come: dict[str, int] = {}


async def meet(key: str, count: int) -> None:
    """Returns when so many have come."""
    event = _met.setdefault(key, asyncio.Event())
    come[key] = come.get(key, 0) + 1
    if come[key] == count:
        event.set()
    await event.wait()
