"""The sync face of a class in a stub: what `classes` makes, with types.

Methods whose `self` is annotated with more than their class (an overload for sync clients and one for async ones) are
written where that is known: in each class derived from it that has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mypy.nodes import (
    Decorator,
    FuncBase,
    FuncDef,
    OverloadedFuncDef,
    SymbolNode,
    TypeAlias,
    TypeInfo,
    Var,
)
from mypy.state import state
from mypy.subtypes import is_subtype
from mypy.typeops import function_type
from mypy.types import CallableType, Instance, Overloaded, Type, get_proper_type
from mypy.typevars import fill_typevars

from .classes import RENAMED, SKIPPED
from .kinds import DUNDERS
from .stub_functions import Functions, restrictive_self
from .stub_names import Names
from .stub_types import Types, is_async_node, module_of, runtime_class

_SYNC_DUNDERS = {*DUNDERS.values()}
_NO_BASES = {"builtins.object", "typing.Protocol", "typing.Generic", "abc.ABC"}


class Classes:
    """Writes classes: their faces, if `sync`, or what they are."""

    def __init__(
        self, names: Names, types: Types, modules: dict[str, object], object_type: Instance
    ) -> None:
        self._names, self._types, self._modules = names, types, modules
        self._fallback = object_type

    def write(self, info: TypeInfo, name: str, bases: list[str], sync: bool) -> list[str]:
        """The lines of `info`'s face, or of `info`, as `name`."""
        writer = _Class(self._names, self._types, self._modules, self._fallback, info, sync)
        members = writer.members()
        self._names.enter_class({*members, *info.names})
        try:
            variables = [self._types.as_is(each) for each in info.defn.type_vars]
            if variables:
                bases = [
                    *bases,
                    f"{self._names.plain('typing', 'Generic')}[{', '.join(variables)}]",
                ]
            lines = writer.lines(members)
        finally:
            self._names.enter_class(())
        head = f"class {name}({', '.join(bases)}):" if bases else f"class {name}:"
        return [head, *(f"    {line}" for line in lines or ["..."])]

    def bases(self, info: TypeInfo) -> Iterator[tuple[TypeInfo | None, str]]:
        """Of the face: the base, if that needs a face, and what follows its name or is its name."""
        for base in info.bases:
            if base.type.fullname in _NO_BASES or base.type.fullname == "typing.Awaitable":
                continue
            args = [self._types.result(each) for each in base.args]
            shown = f"[{', '.join(args)}]" if args else ""
            if base.type.module_name in ("builtins", "typing", "contextlib", "types", "enum"):
                text = self._types.result(base)
                yield None, text
            else:
                yield base.type, shown


class _Class:
    def __init__(
        self,
        names: Names,
        types: Types,
        modules: dict[str, object],
        fallback: Instance,
        info: TypeInfo,
        sync: bool,
    ) -> None:
        self._names, self._types, self._info, self._sync = names, types, info, sync
        self._modules = modules
        self._fallback = fallback
        self._functions = Functions(types, sync)
        self._runtime: Any = runtime_class(*module_of(info, modules))
        own = fill_typevars(info)
        self._own = own if isinstance(own, Instance) else own.partial_fallback

    def members(self) -> dict[str, tuple[str, SymbolNode]]:
        """What the face has: its names, and under which name the class has what."""
        own = self._info.names
        order = {name: at for at, name in enumerate(vars(self._runtime or object))}
        found: dict[str, tuple[str, SymbolNode]] = {}
        for name in sorted(own, key=lambda each: (order.get(each, len(order)), each)):
            node = own[name].node
            if node is None or not self._is_shown(name):
                continue
            if self._sync and name in DUNDERS:
                found[DUNDERS[name]] = name, node
            elif name == "__new__":
                if "__init__" not in own:
                    found["__init__"] = name, node
            else:
                found.setdefault(name, (name, node))
        if not self._sync:
            return found
        for name in [
            each for each in found if each.startswith("a") and is_async_node(found[each][1])
        ]:
            sync = RENAMED.get(name) or name[1:]
            symbol = self._info.get(sync)
            if sync and (name in RENAMED if symbol is None else not is_async_node(symbol.node)):
                found[sync] = found[name]
        wait = own.get("__await__")
        if wait is not None and wait.node is not None and self._info.get("__call__") is None:
            found["__call__"] = "__await__", wait.node
        if "__anext__" in own and self._info.get("__aiter__") is None:
            found["__iter__"] = "", own["__anext__"].node  # type: ignore[assignment]
        for base in self._info.mro[1:]:
            for name, symbol in sorted(base.names.items()):
                if name not in found and symbol.node is not None and self._is_shown(name):
                    nearest = self._info.get(name)
                    if nearest is symbol and self._is_for_some(base, symbol.node):
                        found[name] = name, symbol.node
        return found

    def _is_shown(self, name: str) -> bool:
        if not self._sync:
            return not name.startswith("_") or name.startswith("__") and name not in _MADE
        if name in ("__init__", "__new__") or name in DUNDERS:
            return True
        if name in SKIPPED or name in _SYNC_DUNDERS and self._info.get(_ASYNC_OF[name]) is not None:
            return False
        return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))

    def _is_for_some(self, base: TypeInfo, node: SymbolNode) -> bool:
        """Whether a method of a base says more of its `self` than that it is of that base."""
        own = get_proper_type(fill_typevars(base))
        return isinstance(own, Instance) and any(
            restrictive_self(each, own) is not None for each in signatures(node, self._fallback)
        )

    # --- lines -----------------------------------------------------------------------------------------

    def lines(self, members: dict[str, tuple[str, SymbolNode]]) -> list[str]:
        found: list[str] = []
        for name, (of, node) in members.items():
            found += self._member(name, of, node)
        if self._sync and "asyn" not in members:
            found += [
                f"@{self._names.builtin('property')}",
                f"def asyn(self) -> {self._types.as_is(self._own)}: ...",
            ]
        return found

    def _member(self, name: str, of: str, node: SymbolNode) -> list[str]:
        runtime = vars(self._runtime).get(of) if self._runtime is not None else None
        runtime = getattr(runtime, "__func__", runtime)
        if of == "":
            return [f"def __iter__(self) -> {self._names.plain('typing', 'Self')}: ..."]
        if of == "__await__" and name == "__call__":
            return [f"def __call__(self) -> {self._types.awaited(self._own)}: ..."]
        if isinstance(node, Decorator) and node.var.is_property:
            return self._property(name, node, None)
        if isinstance(node, OverloadedFuncDef) and node.is_property:
            getter = node.items[0]
            assert isinstance(getter, Decorator)
            return self._property(name, getter, node if node.setter_index is not None else None)
        if isinstance(node, TypeInfo):
            return self._nested(name, node)
        if isinstance(node, TypeAlias):
            return [f"{name} = {self._types.name(node)}"]
        if isinstance(node, Var):
            kind = get_proper_type(node.type)
            if not (isinstance(kind, CallableType) and node.is_initialized_in_class):
                return [self._attribute(name, node)]
        found = signatures(node, self._fallback)
        if not found:
            held = node.var.type if isinstance(node, Decorator) else None
            return [f"{name}: {self._cached(held)}"]
        return self._function(name, node, found, runtime)

    def _function(
        self, name: str, node: SymbolNode, given: list[CallableType], runtime: Any
    ) -> list[str]:
        first, decorator = "self", None
        holder: Any = node.var if isinstance(node, Decorator) else node
        if getattr(holder, "is_class", False) or getattr(holder, "is_classmethod", False):
            first, decorator = "cls", f"@{self._names.builtin('classmethod')}"
        if getattr(holder, "is_static", False) or getattr(holder, "is_staticmethod", False):
            first, decorator = "", f"@{self._names.builtin('staticmethod')}"
        if name == "__init__":
            first, decorator = "self", None
        returns = "None" if name == "__init__" else None
        with state.strict_optional_set(True):
            fitting = [
                each
                for each in given
                if decorator is not None
                or (wanted := restrictive_self(each, self._own)) is None
                or is_subtype(self._own, wanted)
            ]
        texts = [
            self._functions.signature(each, first or None, runtime, returns)
            for each in fitting or given
        ]
        function = node.func if isinstance(node, Decorator) else node
        if self._sync and isinstance(function, FuncDef) and function.type is None:
            if function.is_async_generator and returns is None:
                iterator = self._names.plain("collections.abc", "Iterator")
                texts = [
                    f"{text.rpartition(' -> ')[0]} -> {iterator}[{self._types.any()}]"
                    for text in texts
                ]
        texts = list(dict.fromkeys(texts))
        lines = []
        for text in texts:
            if len(texts) > 1:
                lines.append(f"@{self._names.plain('typing', 'overload')}")
            if decorator:
                lines.append(decorator)
            lines.append(f"def {name}{text}: ...")
        return lines

    def _property(self, name: str, getter: Decorator, whole: OverloadedFuncDef | None) -> list[str]:
        convert = self._types.result if self._sync else self._types.as_is
        kinds = signatures(getter, self._fallback)
        kind = convert(kinds[0].ret_type) if kinds else self._types.any()
        lines = [f"@{self._names.builtin('property')}", f"def {name}(self) -> {kind}: ..."]
        if whole is not None:
            setters = signatures(whole.setter.func, self._fallback)
            takes = self._types.any()
            if setters and len(setters[0].arg_types) > 1:
                into = self._types.parameter if self._sync else self._types.as_is
                takes = into(setters[0].arg_types[1])
            lines += [f"@{name}.setter", f"def {name}(self, value: {takes}) -> None: ..."]
        return lines

    def _attribute(self, name: str, node: Var) -> str:
        kind = node.type
        if kind is None:
            return f"{name}: {self._types.any()}"
        convert = self._types.out if self._sync else self._types.as_is
        text = convert(kind)
        if node.is_classvar:
            text = f"{self._names.plain('typing', 'ClassVar')}[{text}]"
        return f"{name}: {text}"

    def _cached(self, held: Type | None) -> str:
        """What is read of a decorated function that is none any more: `functools.cached_property`, say."""
        proper = get_proper_type(held)
        if isinstance(proper, Instance) and len(proper.args) == 1:
            return (
                self._types.result(proper.args[0])
                if self._sync
                else self._types.as_is(proper.args[0])
            )
        return self._types.any()

    def _nested(self, name: str, info: TypeInfo) -> list[str]:
        if self._sync and self._types.is_async(info):
            return [f"{name} = {self._types.face(info)}"]
        return [f"{name} = {self._types.name(info)}"]


_ASYNC_OF = {sync: asyn for asyn, sync in DUNDERS.items()}
# What every class has, and a stub need not say.
_MADE = {"__slots__", "__doc__", "__module__", "__qualname__", "__dict__", "__weakref__"}


def signatures(node: SymbolNode, fallback: Instance) -> list[CallableType]:
    kind: Type | None
    if isinstance(node, Decorator):
        kind = node.var.type or node.func.type
        if kind is None:
            kind = function_type(node.func, fallback)
    elif isinstance(node, FuncBase):
        kind = function_type(node, fallback)
    elif isinstance(node, Var):
        kind = node.type
    else:
        return []
    proper = get_proper_type(kind)
    if isinstance(proper, Overloaded):
        return list(proper.items)
    return [proper] if isinstance(proper, CallableType) else []
