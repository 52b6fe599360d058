"""`await_` in greenlets: the native side must meet the greenlet package when it is imported.

greenlet takes a thread's C stack for one piece, and moves parts of it. The native side sees to it
that greenlets are switched on the thread's own stack, whoever switches, and knows then for whom a
greenlet waits. For that it must be there before the first switch: `import greenlet` may happen on a
fiber, and be followed by one at once. Hence the finder on `sys.meta_path`: it finds nothing itself,
and goes when it has done its part.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .. import _messages
from .._fiberback import meet_greenlet

_NAME = "greenlet._greenlet"  # the extension module


def prepare() -> None:
    """Meet greenlet now if it is loaded, else when it will be."""
    module = sys.modules.get(_NAME)
    if module is not None:
        _meet(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _meet(module: ModuleType) -> None:
    try:
        meet_greenlet(module)
    except (AttributeError, RuntimeError, ValueError) as error:
        text = _messages.UNKNOWN_GREENLET.format(error=error)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _NAME:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if find is None or isinstance(finder, _Finder):
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Another loader, but for what it does once: then everything is as that one has made it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _meet(module)
        sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _Finder)]
