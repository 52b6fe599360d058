"""Attributes of classes and modules that are replaced, and put back.

So that nothing tells that they had been replaced; what somebody else has put there meanwhile is left to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Self

_MISSING = object()
# They wait for the loop, or run it: what they have imported by name stays what it was.
_LOOPS = {"asyncio", "uvloop", "trio", "anyio", "sniffio", "outcome", "gevent", "fiberback"}
# These make the loops' own parts, or are what hooks and imports are made of.
_OWN = {"threading", "_thread", "_socket", "_ssl", "selectors", "importlib", "posix", "nt"}


class Replacement:
    """The attribute `name` of `owner`, a class or module. With `by_name` all modules that have imported the same by
    the same name are served alike, whether before or meanwhile."""

    def __init__(self, owner: Any, name: str, ours: Any, *, by_name: bool = False) -> None:
        self._owner = owner
        self._name = name
        self._ours = ours
        self._by_name = by_name
        self._before: Any = _MISSING

    def put(self) -> Self:
        """Raises TypeError where the owner is a class in C."""
        self._before = vars(self._owner).get(self._name, _MISSING)
        setattr(self._owner, self._name, self._ours)
        if self._by_name:
            self._exchange(self._before, self._ours, {*_LOOPS, *_OWN})
        return self

    def undo(self) -> None:
        """Put back what was there before."""
        if vars(self._owner).get(self._name, _MISSING) is self._ours:
            if self._before is _MISSING:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._before)
        if self._by_name:
            # A loop's library that was imported meanwhile has got ours.
            self._exchange(self._ours, self._before, {"fiberback"})

    def _exchange(self, old: Any, new: Any, left_out: set[str]) -> None:
        for names in _namespaces(left_out):
            if names.get(self._name, _MISSING) is old:
                names[self._name] = new


def _namespaces(left_out: set[str]) -> Iterator[dict[str, Any]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in left_out:
            continue
        try:
            # Not by the module's own way: one that is to be imported when it is first used would be.
            names = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue
        if type(names) is dict:
            yield names


def named(function: Any, original: Any) -> Any:
    """`function`, which looks like what it stands in for."""
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        value = getattr(original, attribute, None)
        if isinstance(value, str):
            setattr(function, attribute, value)
    return function
