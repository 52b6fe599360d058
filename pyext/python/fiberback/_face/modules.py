"""The sync face of a module: what is read from it is the face of what the async module has under that name."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any

from .functions import function_face
from .home import Home, Options
from .inward import into
from .outward import face


class ModuleFace(ModuleType):
    """`asyn` is the async module."""

    _fiberback_module: ModuleType
    asyn: ModuleType

    def __init__(self, asyn: ModuleType, options: Options, package: str | None = None) -> None:
        super().__init__(asyn.__name__, asyn.__doc__)
        state = vars(self)
        for name in ("__loader__", "__package__", "__spec__"):
            state.pop(name, None)
        state["_fiberback_module"] = state["asyn"] = asyn
        state["_fiberback_options"] = options
        state["_fiberback_package"] = package or asyn.__name__
        state["_fiberback_faces"] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fiberback_module, name)
        known = self._fiberback_faces.get(name)
        if known is None or known[0] is not value:
            known = self._fiberback_faces[name] = (value, self._fiberback_face_of(value))
        return known[1]

    def _fiberback_face_of(self, value: Any) -> Any:
        options, package = self._fiberback_options, self._fiberback_package
        if isinstance(value, ModuleType):
            return (
                ModuleFace(value, options, package)
                if _is_within(value.__name__, package)
                else value
            )
        if type(value) is FunctionType and _is_within(value.__module__, package):
            return function_face(lambda: Home(options), value)
        return face(Home(options), value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._fiberback_module, name, into(Home(self._fiberback_options), value))

    def __delattr__(self, name: str) -> None:
        delattr(self._fiberback_module, name)

    def __dir__(self) -> list[str]:
        return dir(self._fiberback_module)

    def __repr__(self) -> str:
        return f"fiberback.syncify({self._fiberback_module!r})"

    def __reduce__(self) -> Any:
        return _restore, (self._fiberback_module.__name__,)


def _restore(name: str) -> ModuleFace:
    from importlib import import_module

    return ModuleFace(import_module(name), Options())


def _is_within(name: Any, package: str) -> bool:
    return isinstance(name, str) and (name == package or name.startswith(package + "."))
