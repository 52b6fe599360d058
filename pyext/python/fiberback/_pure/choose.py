"""Which module is `fiberback._fiberback`: the native one, or where there is none `module`.

Answered once, when the package's `__init__.py` imports this file, before anything else; what is imported then is
the same in both cases, and nothing of this room stands between the native module and who calls it.

A native module that is there and refuses this interpreter raises ImportError, as it does: whoever has put
it there is to know. `FIBERBACK_PURE=1` in the environment has the fallback used in any case.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

implementation: Literal["native", "pure"] = "native"
# Whether there is something to switch stacks with, so that portals serve.
can_switch = True
# In Pyodide: whether this code is where it can switch stacks.
can_run_sync: Callable[[], bool] | None = None

_NAME = __name__.partition(".")[0] + "._fiberback"
_VARIABLE = "FIBERBACK_PURE"


def _choose() -> None:
    """Import it, whichever it is; `implementation` says which then."""
    if os.environ.get(_VARIABLE, "") not in ("", "0"):
        _take_pure()
        return
    try:
        import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
    except ImportError as error:
        if hasattr(error, "add_note"):
            error.add_note(
                f"({_VARIABLE}=1 in the environment has fiberback do without that module.)"
            )
        raise
    else:
        return
    _take_pure()
    from .. import _messages

    python = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    text = _messages.PURE_USED.format(python=python)
    warnings.warn(text, ImportWarning, stacklevel=2)


def _take_pure() -> None:
    global implementation, can_switch, can_run_sync
    from . import module, pyodide, switching

    implementation, can_switch = "pure", switching.can_switch
    if pyodide.is_here:
        can_run_sync = pyodide.can_wait
    sys.modules[_NAME] = module
    package: Any = sys.modules[_NAME.partition(".")[0]]
    package._fiberback = module


_choose()
