"""What `await_` adds to the interpreter's words where it is given what cannot be awaited."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from .. import _messages


def cure(thing: Any) -> str:
    """Begins with what separates it from those words; empty where there is nothing to add."""
    if inspect.isroutine(thing):
        name = getattr(thing, "__qualname__", repr(thing)).rpartition("<locals>.")[2]
        return ": " + _messages.FORGOT_CALL.format(name=name)
    if isinstance(thing, (list, tuple, set, frozenset)) and any(map(inspect.isawaitable, thing)):
        return ": " + _messages.SEVERAL.format(kind=type(thing).__name__)
    # Not imported for this: whoever has such a future has imported it.
    futures = sys.modules.get("concurrent.futures")
    if futures is not None and isinstance(thing, futures.Future):
        return ": " + _messages.CONCURRENT_FUTURE
    return ""
