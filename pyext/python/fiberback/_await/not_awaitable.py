"""What `await_` adds to the interpreter's words where it is given what cannot be awaited."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from .. import _messages


def cure(thing: Any) -> str:
    """Begins with what separates it from those words; empty where there is nothing to add."""
    text = _cure(thing)
    return text and ": " + text


def _cure(thing: Any) -> str:
    # The second knows a functools.partial, too.
    if inspect.isroutine(thing) or inspect.iscoroutinefunction(thing):
        return _messages.FORGOT_CALL.format(name=_messages.typed(thing))
    if isinstance(thing, (list, tuple, set, frozenset)) and any(map(inspect.isawaitable, thing)):
        return _messages.SEVERAL.format(kind=type(thing).__name__)
    # Not imported for this: whoever has such a future has imported it.
    futures = sys.modules.get("concurrent.futures")
    if futures is not None and isinstance(thing, futures.Future):
        return _messages.CONCURRENT_FUTURE
    if hasattr(type(thing), "__aenter__"):
        return _messages.ASYNC_CONTEXT
    if hasattr(type(thing), "__aiter__"):
        return _messages.ASYNC_ITERATOR
    return ""
