"""The tasks of a loop that may run in another thread, which adds to them meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .. import _counts

# asyncio itself tries a thousand times, without letting the others go on.
_TRIES = 50
_PAUSE = 0.0002  # seconds


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
