"""Which of the two ways a loop and gevent's hub are in one thread."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from asyncio import AbstractEventLoop

import gevent.selectors


def is_on_gevent(event_loop: AbstractEventLoop) -> bool:
    """Whether the loop's code, where it waits for files, lets gevent's hub go on; else the loop drives the hub."""
    selector = getattr(event_loop, "_selector", None)
    return isinstance(selector, gevent.selectors.GeventSelector)


def nothing() -> None:
    """Called by a loop that has to see what there is by now."""
