"""`python -m fiberback stubs`: the `.pyi` of the sync faces in a module, or of the sync face of an async module.

Which names are faces, the imported module tells; their types are mypy's, so that what it infers, resolves and
expands (overloads, decorators, imports for type checkers only, other packages' stubs) needs nothing of ours. A face
whose class is not in the module itself (a response, a cursor) is a class of the stub that begins with `_`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from mypy import build, main
from mypy.errors import CompileError
from mypy.modulefinder import BuildSource
from mypy.nodes import (
    Decorator,
    FuncDef,
    MypyFile,
    OverloadedFuncDef,
    SymbolNode,
    TypeAlias,
    TypeInfo,
    Var,
)
from mypy.types import Instance

from .. import _messages
from .known import IsFace
from .modules import ModuleFace
from .stub_classes import Classes, signatures
from .stub_functions import Functions
from .stub_names import Names
from .stub_types import Types

_HEAD = """\
# Made by `python -m fiberback stubs {module}`.
# Sync faces override as their async classes do, which is not always as type checkers like it.
# mypy: disable-error-code="override, overload-overlap, overload-cannot-match, misc"
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportOverlappingOverload=false, reportPrivateUsage=false
"""


def stub(name: str) -> tuple[str, Path | None]:
    """The text of the stub, and where it belongs: beside a module that has faces, which it describes. The face of
    an async module has no file of its own, so its stub belongs wherever `syncify(module)` is kept.

    Raises ImportError if there is no such module, or mypy cannot read it.
    """
    module = importlib.import_module(name)
    if isinstance(module, ModuleFace):
        module = module.asyn
    has_faces = any(_async_of(value) is not None for value in vars(module).values())
    if has_faces:
        path = Path(inspect.getfile(module))
        text = _Stub(module, name, path).of_module_with_faces()
        return text, path.with_suffix(".pyi")
    return _Stub(module, None, None).of_async_module(), None


def _async_of(value: Any) -> Any:
    """What something is the face of, or None."""
    if isinstance(value, IsFace):
        return value._fiberback_class if value._fiberback_is_made else None  # type: ignore[attr-defined]
    if isinstance(value, ModuleFace):
        return value.asyn
    if isinstance(type(value), IsFace):
        return type(value._fiberback_object)
    if inspect.isfunction(value):
        return getattr(value, "_fiberback_asyn", None)
    return None


class _Stub:
    def __init__(self, module: ModuleType, own: str | None, path: Path | None) -> None:
        self._module, self._own = module, own
        self._lines: list[list[str]] = []
        self._faces: dict[TypeInfo, str] = {}
        self._pending: list[TypeInfo] = []
        needed = {module.__name__}
        for value in vars(module).values():
            asyn = _async_of(value)
            named = asyn if isinstance(asyn, ModuleType) else getattr(asyn, "__module__", None)
            needed.add(named.__name__ if isinstance(named, ModuleType) else named or "builtins")
        self._modules = _read(sorted(needed), module.__name__, path)
        self._file: MypyFile = self._modules[module.__name__]
        self._names = Names(own, self._shown() if own else self._public())
        modules: dict[str, object] = dict(self._modules)
        self._types = Types(self._names, modules, self._face_of)
        object_info = self._modules["builtins"].names["object"].node
        assert isinstance(object_info, TypeInfo)
        self._object = Instance(object_info, [])
        self._classes = Classes(self._names, self._types, modules, self._object)

    # --- the two kinds of modules --------------------------------------------------------------------------

    def of_module_with_faces(self) -> str:
        """The whole module: its faces as such, and the rest as it is."""
        named = [(name, vars(self._module)[name]) for name in self._shown()]
        for name, value in named:  # first of all what these classes are called
            info = self._info(_async_of(value)) if isinstance(value, IsFace) else None
            if info is not None and info not in self._faces:
                self._faces[info] = name
        for name, value in named:
            self._with_face(name, value)
        return self._text()

    def of_async_module(self) -> str:
        names = [name for name in self._public() if name in self._file.names]
        for name in names:
            node = self._file.names[name].node
            if isinstance(node, TypeInfo) and self._types.is_async(node):
                self._faces.setdefault(node, name)
        for name in names:
            node = self._file.names[name].node
            if isinstance(node, TypeInfo):
                if not self._types.is_async(node):
                    self._import(name, node)
                elif self._faces[node] == name:
                    self._write_face(node)
                else:
                    self._lines.append([f"{name} = {self._faces[node]}"])
            elif node is not None:
                self._other(name, node, sync=True)
        return self._text()

    def _shown(self) -> list[str]:
        """What a module with faces has in its stub: its faces, what it defines, and what it imports for others."""
        said = getattr(self._module, "__all__", ())
        shown = []
        for name, value in vars(self._module).items():
            symbol = self._file.names.get(name)
            node = symbol.node if symbol is not None else None
            if _async_of(value) is not None or name in said:
                shown.append(name)
            elif node is not None and not name.startswith("_"):
                imported = not (said or isinstance(node, MypyFile))
                if self._is_own(node) or imported:
                    shown.append(name)
        return shown

    def _public(self) -> list[str]:
        said = getattr(self._module, "__all__", None)
        if said is not None:
            return list(said)
        # In the order of the module: mypy's is another one where it has read its cache.
        found = [(name, self._file.names.get(name)) for name in vars(self._module)]
        return [
            name
            for name, symbol in found
            if not name.startswith("_") and symbol and symbol.node and self._is_own(symbol.node)
        ]

    def _is_own(self, node: SymbolNode) -> bool:
        return node.fullname.rpartition(".")[0] == self._module.__name__

    # --- names of the module ----------------------------------------------------------------------------

    def _with_face(self, name: str, value: Any) -> None:
        asyn = _async_of(value)
        symbol = self._file.names.get(name)
        if asyn is None:
            if symbol is None or symbol.node is None:
                self._lines.append(
                    [f"{name}: {self._types.any()}"]
                )  # made where mypy does not see it
            elif self._is_own(symbol.node):
                self._other(name, symbol.node, sync=False)
            else:
                self._import(name, symbol.node)
            return
        if isinstance(value, IsFace):
            info = self._info(asyn)
            if info is None:
                self._unknown(name, asyn)
            elif self._faces[info] == name:
                self._write_face(info)
            else:
                self._lines.append([f"{name} = {self._faces[info]}"])
        elif isinstance(value, ModuleFace):
            self._module_face(name, asyn)
        elif isinstance(type(value), IsFace):
            info = self._info(asyn)
            if info is None:
                self._unknown(name, asyn)
            else:
                self._lines.append([f"{name}: {self._face_of(info)}"])
        else:
            node = self._node(asyn)
            if node is None:
                self._unknown(name, asyn)
            else:
                self._other(name, node, sync=True)

    def _unknown(self, name: str, asyn: Any) -> None:
        print(_messages.STUBS_UNKNOWN.format(name=name, asyn=asyn), file=sys.stderr)
        self._lines.append([f"{name}: {self._types.any()}"])

    def _import(self, name: str, node: SymbolNode) -> None:
        if isinstance(node, MypyFile):
            self._names.export(
                f"import {node.fullname} as {name}"
                if "." in node.fullname
                else f"import {name} as {name}"
            )
            return
        module, _, of = node.fullname.rpartition(".")
        if module and module in self._modules and module != "__future__":
            self._names.export(f"from {module} import {of} as {name}")

    def _module_face(self, name: str, asyn: ModuleType) -> None:
        """An object with the module's faces; as annotations these are not to be had from it."""
        file = self._modules.get(asyn.__name__)
        if file is None:
            self._unknown(name, asyn)
            return
        lines = []
        for each, symbol in sorted(file.names.items()):
            node = symbol.node
            if (
                each.startswith("_")
                or node is None
                or node.fullname.rpartition(".")[0] != asyn.__name__
            ):
                continue
            if isinstance(node, TypeInfo) and self._types.is_async(node):
                lines.append(f"{each}: {self._names.builtin('type')}[{self._face_of(node)}]")
            elif isinstance(node, TypeInfo):
                lines.append(f"{each}: {self._names.builtin('type')}[{self._types.name(node)}]")
            elif found := signatures(node, self._object):
                for one in found:
                    text = Functions(self._types, sync=True).signature(one, None)
                    lines += [f"@{self._names.plain('typing', 'overload')}"] * (len(found) > 1)
                    lines += [f"@{self._names.builtin('staticmethod')}", f"def {each}{text}: ..."]
        held = self._names.free(f"_{name}")
        base = self._names.of("types", "ModuleType")
        self._lines.append(
            [f"class {held}({base}):", *(f"    {line}" for line in lines or ["..."])]
        )
        self._lines.append([f"{name}: {held}"])

    def _other(self, name: str, node: SymbolNode, sync: bool) -> None:
        """A function, a variable, a class that is no face."""
        if isinstance(node, TypeInfo):
            runtime = vars(self._module).get(name)
            bases = [
                self._base(base) for base in getattr(runtime, "__bases__", ()) if base is not object
            ]
            self._lines.append(
                self._classes.write(node, name, [each for each in bases if each], sync=False)
            )
        elif isinstance(node, TypeAlias):
            text = self._types.as_is(node.target)
            self._lines.append([f"{name}: {self._types.typing('TypeAlias')} = {text}"])
        elif isinstance(node, (FuncDef, Decorator, OverloadedFuncDef)):
            found = signatures(node, self._object)
            functions = Functions(self._types, sync)
            runtime = vars(self._module).get(name)
            if not found:
                self._lines.append([f"{name}: {self._types.any()}"])
                return
            written = dict.fromkeys(functions.signature(each, None, runtime) for each in found)
            lines = []
            for text in written:
                lines += [f"@{self._types.typing('overload')}"] * (len(written) > 1)
                lines.append(f"def {name}{text}: ...")
            self._lines.append(lines)
        elif isinstance(node, Var):
            kind = node.type
            convert = self._types.out if sync else self._types.as_is
            text = convert(kind) if kind is not None else self._types.any()
            self._lines.append([f"{name}: {text}"])

    def _base(self, base: Any) -> str:
        info = self._info(_async_of(base) if isinstance(base, IsFace) else base)
        if info is None:
            return ""
        return self._face_of(info) if isinstance(base, IsFace) else self._types.name(info)

    # --- faces ------------------------------------------------------------------------------------------

    def _face_of(self, info: TypeInfo) -> str:
        known = self._faces.get(info)
        if known is None:
            known = self._faces[info] = self._names.free("_" + info.name.lstrip("_"))
            self._pending.append(info)
        return known

    def _write_face(self, info: TypeInfo) -> None:
        name = self._faces[info]
        bases = []
        for base, text in self._classes.bases(info):
            bases.append(self._face_of(base) + text if base is not None else text)
        self._lines.append(self._classes.write(info, name, bases, sync=True))

    def _text(self) -> str:
        while self._pending:
            self._write_face(self._pending.pop(0))
        said = getattr(self._module, "__all__", None)
        tail = [f"__all__ = {list(said)!r}", ""] if said is not None else []
        body = "\n".join(line for each in self._lines for line in [*each, ""])
        head = _HEAD.format(module=self._module.__name__)
        lines = [head, *self._names.header(), *tail]
        return "\n".join(lines) + "\n" + body.rstrip("\n") + "\n"

    # --- mypy's side ------------------------------------------------------------------------------------

    def _node(self, value: Any) -> SymbolNode | None:
        """What mypy knows of a class or function, by its name."""
        file = self._modules.get(getattr(value, "__module__", None) or "")
        node: SymbolNode | None = None
        names = file.names if file is not None else None
        for part in getattr(value, "__qualname__", "").split("."):
            symbol = names.get(part) if names is not None else None
            node = symbol.node if symbol is not None else None
            names = node.names if isinstance(node, (TypeInfo, MypyFile)) else None
        return node

    def _info(self, value: Any) -> TypeInfo | None:
        node = self._node(value)
        return node if isinstance(node, TypeInfo) else None


def _read(modules: list[str], own: str, path: Path | None) -> dict[str, MypyFile]:
    """All that mypy knows after it has read these modules, with its configuration for this folder."""
    sources, options = main.process_options(["-c", "\n".join(f"import {each}" for each in modules)])
    options.follow_untyped_imports = True
    options.mypy_path += [each for each in _folders() if each not in options.mypy_path]
    if path is not None:
        # Not the stub that lies beside it already.
        sources.append(BuildSource(str(path), own, None))
    try:
        result = build.build(sources, options)
    except CompileError as error:
        raise ImportError(_messages.STUBS_MYPY.format(said="\n".join(error.messages))) from error
    found = result.manager.modules
    if own not in found:
        raise ImportError(_messages.STUBS_MYPY.format(said=f"no module named {own}"))
    return found


def _folders() -> list[str]:
    """Where modules are imported from that mypy does not look at by itself: PYTHONPATH's, above all."""
    known = {*sysconfig.get_paths().values(), os.getcwd()}
    return [
        each
        for each in sys.path
        if os.path.isdir(each)
        and each not in known
        and Path(each).name not in ("lib-dynload", "site-packages", "dist-packages")
    ]
