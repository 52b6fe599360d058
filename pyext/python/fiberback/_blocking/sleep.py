"""`time.sleep`."""

from __future__ import annotations

import operator
import time
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .waiter import waiter_for

_sleep = time.sleep


def sleep(seconds: Any, /) -> None:
    if _get_running_loop() is None and not on_portal():
        _sleep(seconds)
        return
    if not isinstance(seconds, (int, float)) and hasattr(type(seconds), "__index__"):
        seconds = operator.index(seconds)
    # What is no number, or less than nothing, is refused by the original.
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        _sleep(seconds)
        return
    caller = waiter_for("sleep")
    if caller is None:
        _sleep(seconds)
    else:
        caller.wait(seconds)


REPLACEMENTS = [Replacement(time, "sleep", named(sleep, _sleep), by_name=True)]
