"""What is in force, and for whom: in the whole process, or in one context and those that are copied of it.

The hooks stand in their places as long as anybody has them in force, for they cannot stand there for one task alone. Whether
one of them may wait is asked only where it would have to.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar, Token

from .. import _messages
from .._replacements import Replacement

_lock = threading.Lock()


class Scope:
    """Switches that are on, until `close`."""

    def __init__(
        self, switches: frozenset[str], replacements: dict[str, list[Replacement]]
    ) -> None:
        self._switches = switches
        self._replacements = replacements
        self._token: Token[Scope | None] | None = None
        self._outer: Scope | None = None
        self.is_open = False

    def __repr__(self) -> str:
        state = "" if self.is_open else " (undone)"
        return f"<fiberback.blocking: {', '.join(sorted(self._switches))}{state}>"

    def has(self, switch: str) -> bool:
        scope: Scope | None = self
        while scope is not None:
            if scope.is_open and switch in scope._switches:
                return True
            scope = scope._outer
        return False

    def open(self) -> None:
        with _lock:
            if self.is_open:
                raise RuntimeError(_messages.BLOCKING_ENTERED)
            self.is_open = True
            for switch in sorted(self._switches):
                count = _counts.get(switch, 0)
                _counts[switch] = count + 1
                if not count:
                    for replacement in self._replacements[switch]:
                        replacement.put()

    def close(self) -> None:
        with _lock:
            if not self.is_open:
                return
            self.is_open = False
            for switch in sorted(self._switches, reverse=True):
                _counts[switch] -= 1
                if not _counts[switch]:
                    for replacement in reversed(self._replacements[switch]):
                        replacement.undo()

    def enter(self) -> None:
        """Have it hold in the current context, and in those that will be copied of it."""
        self.open()
        self._outer = _of_context.get()
        self._token = _of_context.set(self)

    def exit(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            with contextlib.suppress(ValueError):  # left in another context than it was entered in
                _of_context.reset(token)
        self.close()


# How many have each switch on.
_counts: dict[str, int] = {}
_of_context: ContextVar[Scope | None] = ContextVar("fiberback.blocking", default=None)
_of_process: list[Scope] = []


def add_to_process(scope: Scope) -> None:
    scope.open()
    _of_process.append(scope)


def remove_from_process(scope: Scope) -> None:
    if scope in _of_process:
        _of_process.remove(scope)
    scope.close()


def is_on(switch: str) -> bool:
    """Whether the current code is in a scope in which `switch` is on."""
    for scope in _of_process:
        if scope.has(switch):
            return True
    inner = _of_context.get()
    return inner is not None and inner.has(switch)
