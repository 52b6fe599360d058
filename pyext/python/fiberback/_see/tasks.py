"""The tasks of a loop that may run in another thread, which adds to them meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .. import _counts

_TRIES, _PAUSE = (
    50,
    0.0002,
)  # asyncio itself tries a thousand times, without letting the others go on


def tasks_of(loop: Any) -> list[Any] | None:
    """All that have not ended; None, which is counted, if they cannot be listed."""
    for attempt in range(_TRIES):
        try:
            return list(asyncio.all_tasks(loop))
        except RuntimeError:  # "Set changed size during iteration"
            if attempt:
                time.sleep(_PAUSE)
    _counts.looks_given_up += 1
    return None
