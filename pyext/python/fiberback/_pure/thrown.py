"""The exception that `throw(typ, val, tb)` of a coroutine means."""

from __future__ import annotations

from types import TracebackType
from typing import Any


def exception_of(typ: Any, val: Any = None, tb: Any = None) -> BaseException:
    """The exception that `throw(typ, val, tb)` means."""
    if tb is not None and not isinstance(tb, TracebackType):
        raise TypeError("throw() third argument must be a traceback object")
    if isinstance(typ, BaseException):
        if val is not None:
            raise TypeError("instance exception may not have a separate value")
        error = typ
    elif isinstance(typ, type) and issubclass(typ, BaseException):
        if isinstance(val, typ):
            error = val
        elif val is None:
            error = typ()
        else:
            error = typ(*val) if isinstance(val, tuple) else typ(val)
    else:
        raise TypeError(
            "exceptions must be classes or instances deriving from BaseException, not "
            f"{type(typ).__name__}"
        )
    return error if tb is None else error.with_traceback(tb)
