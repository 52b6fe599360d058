"""Something to do at the interpreter's exit when every exit handler is done.

`atexit` calls handlers in the opposite order of their registration, so those that were registered
before ours come after it; and there is no registering at the beginning of the line. Our handler, when
its turn comes, makes it so all the same: on CPython 3.11 to 3.13 it has those before it called first,
by `atexit._run_exitfuncs()`, which empties the line that our caller goes through; later releases go
through a copy of the line, to whose end it adds what is to be done.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Collection
from typing import Any

Handler = Callable[[], object]


def after_all_handlers(
    current: Handler, function: Handler, behind: Collection[Callable[..., object]] = ()
) -> None:
    """Calls `function` when the exit handlers that were registered before `current` are done.

    To be called by `current`, an exit handler that takes no arguments. The handlers in `behind` are
    called after `function` instead of before. Where the line cannot be reached, `function` is called
    at once.
    """
    if sys.version_info >= (3, 14):
        if not _append(current, function, behind):
            function()
        return
    # A handler is compared with what is to be unregistered; the earliest comes first.
    earlier: Any = _EarlierThan(current, behind)  # no callable, as `unregister` would have it
    atexit.unregister(earlier)
    atexit._run_exitfuncs()
    function()
    for handler in reversed(earlier.behind):
        handler()


class _EarlierThan:
    """Equal to `current`, to the handlers that were registered after it, and to those in `behind`.

    The former are being called, or have been.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, current: Handler, behind: Collection[Callable[..., object]]) -> None:
        self._current = current
        self._behind = behind
        self._is_reached = False
        self.behind: list[Callable[..., object]] = []

    def __eq__(self, handler: object) -> bool:
        self._is_reached = self._is_reached or handler is self._current
        if self._is_reached:
            return True
        if any(handler is each for each in self._behind):
            self.behind.append(handler)  # type: ignore[arg-type]
            return True
        return False


def _append(current: Handler, function: Handler, behind: Collection[Callable[..., object]]) -> bool:
    """Whether a line with `current` in it was found: a list of (function, arguments, keywords)."""
    is_done = False

    def once() -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            function()

    found = False
    for entry in gc.get_referrers(current):
        if type(entry) is not tuple or len(entry) != 3 or entry[0] is not current:
            continue
        for line in gc.get_referrers(entry):
            if type(line) is not list or not all(_is_entry(each) for each in line):
                continue
            last = [each for each in line if any(each[0] is handler for handler in behind)]
            for each in last:
                del line[_index(line, each)]
            line.append((once, *entry[1:]))
            line.extend(last)
            found = True
    return found


def _is_entry(value: Any) -> bool:
    return type(value) is tuple and len(value) == 3 and callable(value[0])


def _index(line: list[Any], entry: Any) -> int:
    return next(index for index, each in enumerate(line) if each is entry)
