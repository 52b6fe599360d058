"""Errors that nobody can be given: told to `sys.unraisablehook`."""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace
from typing import Any


def report(error: BaseException, thing: object) -> None:
    if sys.unraisablehook is sys.__unraisablehook__:  # takes nothing that was not made in C
        print(f"Exception ignored in: {thing!r}", file=sys.stderr)
        traceback.print_exception(error)
        return
    told: Any = SimpleNamespace(
        exc_type=type(error),
        exc_value=error,
        exc_traceback=error.__traceback__,
        err_msg=None,
        object=thing,
    )
    try:
        sys.unraisablehook(told)
    except Exception:
        traceback.print_exc()
