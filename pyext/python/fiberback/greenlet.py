"""Stands in for greenlet: its API, on fiberback's own fibers.

`import fiberback.greenlet as greenlet` is greenlet 3.5.6's module. A greenlet is a fiber here: no stack is
copied, so that a switch costs the same however deep the calls are, and `fiberback.await_` works in it as
anywhere else. Who has switched to the greenlet waits: its task, or the callback that it runs in.

`install()` has every `import greenlet` of the process give this module, for libraries that stand on greenlet
(SQLAlchemy, gevent, Playwright), native ones included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import _messages
from ._fiberback import greenlet as _greenlet
from ._fiberback import note_greenlet_replaced

__all__ = [
    "GreenletExit",
    "_C_API",
    "__version__",
    "error",
    "getcurrent",
    "gettrace",
    "greenlet",
    "install",
    "installed",
    "settrace",
]

__version__ = "3.5.6"  # the greenlet whose behaviour this module has

_C_API = _greenlet._C_API
GreenletExit = _greenlet.GreenletExit
error = _greenlet.error
getcurrent = _greenlet.getcurrent
greenlet = _greenlet.greenlet
gettrace = _greenlet.gettrace
settrace = _greenlet.settrace

CLOCKS_PER_SEC = _greenlet.CLOCKS_PER_SEC
GREENLET_USE_CONTEXT_VARS = _greenlet.GREENLET_USE_CONTEXT_VARS
GREENLET_USE_GC = _greenlet.GREENLET_USE_GC
GREENLET_USE_TRACING = _greenlet.GREENLET_USE_TRACING
enable_optional_cleanup = _greenlet.enable_optional_cleanup
get_clocks_used_doing_optional_cleanup = _greenlet.get_clocks_used_doing_optional_cleanup


class _Finder(MetaPathFinder):
    """Finds the module `greenlet`: this one. On `sys.meta_path`, before the finder of what is installed.

    It is imported when somebody imports it, and not before: some ask `sys.modules` whether somebody has.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Loader()) if fullname == "greenlet" else None


class _Loader(Loader):
    spec: ModuleSpec | None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.spec = sys.modules[__name__].__spec__
        return sys.modules[__name__]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has set the one that it has found
        sys.modules["greenlet._greenlet"] = _greenlet


_finder = _Finder()


def install() -> None:
    """Have `import greenlet` give this module, anywhere in the process and from now on.

    To be called before greenlet is imported for the first time: what has imported it keeps what it has got.
    Raises RuntimeError if it was. A second call does nothing.
    """
    if sys.modules.get("greenlet") is not None and not installed():
        raise RuntimeError(_messages.GREENLET_LOADED)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
        note_greenlet_replaced()


def installed() -> bool:
    """Whether `import greenlet` gives this module."""
    loaded = sys.modules.get("greenlet")
    return loaded is sys.modules[__name__] if loaded is not None else _finder in sys.meta_path
