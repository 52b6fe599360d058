"""Errors that nobody can be given: told to `sys.unraisablehook`."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any


def report(error: BaseException, thing: object) -> None:
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
        sys.__unraisablehook__(told)
