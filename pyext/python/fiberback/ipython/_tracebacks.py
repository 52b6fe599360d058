"""Tracebacks that a shell shows, without the frames of this package: what users see is their code and what
it has called."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

from .._user_frames import is_ours


@contextlib.contextmanager
def of_users_only(shell: Any) -> Iterator[None]:
    """Have `shell.showtraceback` show such ones, and `%debug` stop there."""
    original = shell.showtraceback

    @functools.wraps(original)
    def showtraceback(exc_tuple: Any = None, *args: Any, **kwds: Any) -> Any:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        _clean(error, set())
        if exc_tuple and error is not None:
            exc_tuple = (exc_tuple[0], error, error.__traceback__)
        return original(exc_tuple, *args, **kwds)

    before = vars(shell).get("showtraceback")
    shell.showtraceback = showtraceback
    try:
        yield
    finally:
        if vars(shell).get("showtraceback") is showtraceback:
            if before is None:
                del shell.showtraceback
            else:
                shell.showtraceback = before


def _clean(error: BaseException | None, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    kept = []
    traceback = error.__traceback__
    while traceback is not None:
        if not is_ours(traceback.tb_frame.f_code.co_filename):
            kept.append(traceback)
        traceback = traceback.tb_next
    if kept:
        for each, following in zip(kept, [*kept[1:], None], strict=True):
            each.tb_next = following
        error.__traceback__ = kept[0]
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        _clean(other, seen)
