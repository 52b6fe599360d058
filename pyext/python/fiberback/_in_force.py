"""What one call puts in force in the whole process, until that call's own handle takes it back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Undoable(Protocol):
    def undo(self) -> None:
        """Put back what was there before."""


T = TypeVar("T", bound=Undoable)


class InForce(Generic[T]):
    """At most one at a time. Looked at and changed with `lock` held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.current: T | None = None

    def put(self, make: Callable[[], T]) -> T | None:
        """Put in force what `make` does, and return that; None where something has been in force before."""
        with self.lock:
            if self.current is not None:
                return None
            self.current = make()
            return self.current

    def take_back(self, own: T | None) -> None:
        """Undo that, once; nothing else."""
        with self.lock:
            if own is not None and own is self.current:
                self.current = None
                own.undo()


class Handle(Generic[T]):
    """What the call returns: as a context manager it undoes at its end what the call did; `own` is None if that
    had been in force before."""

    def __init__(self, in_force: InForce[T], own: T | None) -> None:
        self._in_force = in_force
        self._own = own

    def _take_back(self) -> None:
        """Once, and only what this call has put there."""
        self._in_force.take_back(self._own)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._take_back()
