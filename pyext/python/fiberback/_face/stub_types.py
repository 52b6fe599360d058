"""The types of a sync face, in the words of a stub, from mypy's types of the async side.

A type is written in one of three ways: as it is; as what comes out of a face (`outward` is what does it); as the
sync form of what goes into one (`inward`, `parameters`), beside which the async form does, too.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
from collections.abc import Callable, Sequence

from mypy.maptype import map_instance_to_supertype
from mypy.nodes import (
    ArgKind,
    Decorator,
    FuncDef,
    MypyFile,
    OverloadedFuncDef,
    SymbolNode,
    TypeInfo,
)
from mypy.subtypes import find_member
from mypy.types import (
    CallableType,
    Instance,
    LiteralType,
    NoneType,
    Parameters,
    ParamSpecType,
    ProperType,
    TupleType,
    Type,
    TypeAliasType,
    TypedDictType,
    TypeType,
    TypeVarId,
    TypeVarTupleType,
    TypeVarType,
    UninhabitedType,
    UnionType,
    UnpackType,
    get_proper_type,
)

from .annotations import SYNC
from .kinds import DUNDERS, is_async_class
from .stub_names import Names


class How(enum.Enum):
    AS_IS = 1
    OUT = 2
    IN = 3


_ITERATED = {"AsyncIterator", "AsyncIterable", "AsyncGenerator"}
_ASYNC = {f"typing.{name}" for name in (*_ITERATED, "Awaitable", "AwaitableGenerator", "Coroutine")}
_ASYNC |= {"types.CoroutineType", "types.AsyncGeneratorType"}
_MANAGERS = {
    f"contextlib.{name}"
    for name in (
        "AbstractAsyncContextManager",
        "_AsyncGeneratorContextManager",
        "_AsyncGeneratorContextManagerBase",
    )
}
# What faces are looked for in, as `outward` and `inward` do, and what stands for these in annotations.
_CONTAINERS = {"builtins.list", "builtins.dict", "builtins.tuple"} | {
    f"typing.{name}"
    for name in (
        *("Sequence", "MutableSequence", "Mapping", "MutableMapping", "Collection"),
        *("Iterable", "Iterator", "Generator"),
    )
}
_ABC = {*collections.abc.__all__} - {"ByteString"}
_PUBLIC = {"typing", "collections.abc", "contextlib"}


def module_of(node: SymbolNode, modules: dict[str, object]) -> tuple[str, str]:
    """The module in which something is defined, and its name there."""
    module, _, name = node.fullname.rpartition(".")
    while module not in modules and "." in module:
        module, _, outer = module.rpartition(".")
        name = f"{outer}.{name}"
    return module, name


def runtime_class(module: str, name: str) -> type | None:
    """The class of that name, if it is there at runtime."""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def is_async_node(node: SymbolNode | None) -> bool:
    """Whether a function says that calling it gives something async."""
    if isinstance(node, OverloadedFuncDef):
        return any(is_async_node(each) for each in node.items)
    function = node.func if isinstance(node, Decorator) else node
    if not isinstance(function, FuncDef):
        return False
    if function.is_coroutine or function.is_async_generator:
        return True
    kind = function.type
    returned = get_proper_type(kind.ret_type) if isinstance(kind, CallableType) else None
    return isinstance(returned, Instance) and returned.type.fullname in _ASYNC | _MANAGERS


class Types:
    def __init__(
        self, names: Names, modules: dict[str, object], face: Callable[[TypeInfo], str]
    ) -> None:
        self._names, self._modules, self.face = names, modules, face
        # In a method: the type variable of an annotated `self`.
        self.own: TypeVarId | None = None
        self._known: dict[TypeInfo, bool] = {}

    def is_async(self, info: TypeInfo) -> bool:
        """Whether the class's objects have faces."""
        known = self._known.get(info)
        if known is None:
            found = runtime_class(*module_of(info, self._modules))
            known = is_async_class(found) if found is not None else self._says_so(info)
            self._known[info] = known
        return known

    def _says_so(self, info: TypeInfo) -> bool:
        if info.has_base("builtins.BaseException") or info.has_base("builtins.type"):
            return False
        names = (*DUNDERS, "__await__")
        return any(
            name in names or is_async_node(symbol.node)
            for base in info.mro
            if base.fullname != "builtins.object"
            for name, symbol in base.names.items()
        )

    # --- the three ways --------------------------------------------------------------------------------

    def as_is(self, kind: Type) -> str:
        return self.text(kind, How.AS_IS)

    def out(self, kind: Type) -> str:
        """Of what is kept in an attribute."""
        return self.text(kind, How.OUT)

    def awaited(self, kind: Instance) -> str:
        """Of what an object gives that can be awaited, whatever else it can."""
        return self.text(self._awaited(kind, always=True), How.OUT)

    def result(self, kind: Type) -> str:
        """Of a call of a face: what is awaited has been."""
        return self._union([self.text(self._awaited(each), How.OUT) for each in _items(kind)])

    def parameter(self, kind: Type) -> str:
        """Of a function of a face: it takes faces, too, and sync functions in place of async ones."""
        if isinstance(kind, TypeAliasType) and not kind.is_recursive:
            proper = get_proper_type(kind)
            if self.text(proper, How.IN) == self.as_is(proper):
                return self.as_is(kind)
            if not any(map(_is_container, _items(proper))):
                return self._union([*self._sync_forms(proper), self.as_is(kind)])
            return self.parameter(proper)
        texts: list[str] = []
        for each in _items(kind):
            texts += self._sync_forms(each)
            if not _is_container(each):
                texts.append(self.as_is(each))
        return self._union(texts or [self.as_is(kind)])

    def _sync_forms(self, kind: Type) -> list[str]:
        """What is accepted besides the type as it is."""
        both = [(each, self.text(each, How.IN), self.as_is(each)) for each in _items(kind)]
        return [sync for each, sync, plain in both if sync != plain or _is_container(each)]

    def _awaited(self, kind: Type, always: bool = False) -> Type:
        proper = get_proper_type(kind)
        if not isinstance(proper, Instance):
            return kind
        info = proper.type
        if info.get("__await__") is None:
            return kind
        if not always and any(info.get(name) is not None for name in DUNDERS):
            return kind
        for base in info.mro:
            if base.fullname == "typing.Awaitable":
                return map_instance_to_supertype(proper, base).args[0]
        found = get_proper_type(find_member("__await__", proper, proper))
        returned = get_proper_type(found.ret_type) if isinstance(found, CallableType) else None
        if isinstance(returned, Instance) and len(returned.args) == 3:
            return returned.args[2]
        return kind

    def _union(self, items: Sequence[str]) -> str:
        items = list(dict.fromkeys(items))
        if "Any" in items:
            return "Any"
        # As people write it.
        return " | ".join(sorted(items, key=lambda each: each == "None"))

    # --- kinds of types --------------------------------------------------------------------------------

    def text(self, kind: Type, how: How) -> str:
        if isinstance(kind, TypeAliasType):
            return self._alias(kind, how)
        proper = get_proper_type(kind)
        names = self._names
        if isinstance(proper, NoneType):
            return "None"
        if isinstance(proper, UninhabitedType):
            return names.plain("typing", "Never")
        if isinstance(proper, Instance):
            return self._instance(proper, how)
        if isinstance(proper, UnionType):
            return self._union([self.text(each, how) for each in proper.items])
        if isinstance(proper, CallableType):
            return self._callable(proper, how)
        if isinstance(proper, TypeVarType):
            return self._type_variable(proper)
        if isinstance(proper, ParamSpecType):
            return names.variable(names.plain("typing", "ParamSpec"), proper.name, "")
        if isinstance(proper, TypeVarTupleType):
            return names.variable(names.plain("typing", "TypeVarTuple"), proper.name, "")
        if isinstance(proper, UnpackType):
            return f"{names.plain('typing', 'Unpack')}[{self.text(proper.type, how)}]"
        if isinstance(proper, TupleType):
            return self._tuple(proper, how)
        if isinstance(proper, TypeType):
            return f"{names.builtin('type')}[{self.text(proper.item, how)}]"
        if isinstance(proper, LiteralType):
            return f"{names.plain('typing', 'Literal')}[{self._literal(proper)}]"
        if isinstance(proper, TypedDictType):
            return self._of(proper.fallback, how)
        if isinstance(proper, Parameters):
            return f"[{', '.join(self.text(each, how) for each in proper.arg_types)}]"
        return self.any()  # what is not known, and functions with several signatures

    def any(self) -> str:
        return self.typing("Any")

    def typing(self, name: str) -> str:
        return self._names.plain("typing", name)

    def name(self, node: SymbolNode) -> str:
        module, name = module_of(node, self._modules)
        if isinstance(node, TypeInfo):
            module = self._public_module(node, module, name)
        if module == "typing" and name in _ABC:
            module = "collections.abc"
        if module == "typing_extensions" or module in _PUBLIC:
            return self._names.plain(module, name)
        return self._names.of(module, name)

    def _public_module(self, info: TypeInfo, module: str, name: str) -> str:
        """Where the class says that it is to be had from, if that is so."""
        said = getattr(runtime_class(module, name), "__module__", module)
        file = self._modules.get(said)
        symbol = file.names.get(name) if isinstance(file, MypyFile) else None
        return said if symbol is not None and symbol.node is info else module

    def _alias(self, kind: TypeAliasType, how: How) -> str:
        assert kind.alias is not None
        proper = get_proper_type(kind)
        if how is not How.AS_IS and not kind.is_recursive:
            sync = self.text(proper, how)
            if sync != self.text(proper, How.AS_IS):
                return sync
        module, name = module_of(kind.alias, self._modules)
        if module.startswith("_") or "@" in name:
            return self.any() if kind.is_recursive else self.text(proper, How.AS_IS)
        return self.name(kind.alias) + self._arguments(kind.args, How.AS_IS)

    def _instance(self, kind: Instance, how: How) -> str:
        info, args = kind.type, kind.args
        fullname = info.fullname
        plain = self._names.plain
        if how is How.AS_IS:
            return self._of(kind, how)
        name = info.name
        if fullname == "types.AsyncGeneratorType":
            name = "AsyncGenerator"
        if name in _ITERATED and info.module_name in ("typing", "types"):
            items = [self.text(each, how) for each in args]
            if how is How.IN:
                any_ = self.any()
                return f"{plain('collections.abc', 'Generator')}[{items[0]}, {any_}, {any_}]"
            if name == "AsyncGenerator":
                items.append("None")
            return f"{plain('collections.abc', SYNC[name])}[{', '.join(items)}]"
        if fullname in _MANAGERS:
            manager = plain("contextlib", "AbstractContextManager")
            leaves = f"{self._names.builtin('bool')} | None"
            if fullname == "contextlib.AbstractAsyncContextManager" and len(args) > 1:
                leaves = self.as_is(args[1])
            return f"{manager}[{self.text(args[0], how)}, {leaves}]"
        if fullname in ("typing.Awaitable", "typing.Coroutine", "types.CoroutineType"):
            if how is How.IN:
                return self._of(kind, How.AS_IS)
            return f"{plain('collections.abc', 'Callable')}[[], {self.text(args[-1], how)}]"
        if fullname in _CONTAINERS:
            # Items of both forms in one list: of two kinds of lists mypy would not know which a display is.
            convert = self.parameter if how is How.IN else self.out
            shown = ", ".join(convert(each) for each in args)
            return self.name(info) + (f"[{shown}]" if args else "")
        if how is How.IN and info.is_protocol and info.protocol_members == ["__call__"]:
            call = get_proper_type(find_member("__call__", kind, kind))
            if isinstance(call, CallableType):
                return self._callable(call, how)
        if self.is_async(info):
            return self.face(info) + self._arguments(args, how)
        return self._of(kind, How.AS_IS)

    def _of(self, kind: Instance, how: How) -> str:
        return self.name(kind.type) + self._arguments(kind.args, how)

    def _arguments(self, args: Sequence[Type], how: How) -> str:
        return f"[{', '.join(self.text(each, how) for each in args)}]" if args else ""

    def _tuple(self, kind: TupleType, how: How) -> str:
        named = kind.partial_fallback
        if named.type.fullname != "builtins.tuple":
            return self._of(named, How.AS_IS)
        items = ", ".join(self.text(each, how) for each in kind.items)
        return f"{self._names.builtin('tuple')}[{items or '()'}]"

    def _literal(self, kind: LiteralType) -> str:
        if kind.is_enum_literal():
            return f"{self.name(kind.fallback.type)}.{kind.value}"
        value = kind.value
        if kind.fallback.type.fullname == "builtins.bytes":
            return f"b{value!r}"
        return repr(value)

    def _type_variable(self, kind: TypeVarType) -> str:
        names = self._names
        if kind.id == self.own or kind.id.is_self():
            return names.plain("typing", "Self")
        rest = "".join(f", {self.as_is(each)}" for each in kind.values)
        bound = get_proper_type(kind.upper_bound)
        if not (isinstance(bound, Instance) and bound.type.fullname == "builtins.object"):
            rest += f", bound={self.parameter(bound)}"
        if kind.variance in (1, 2):
            rest += ", covariant=True" if kind.variance == 1 else ", contravariant=True"
        module = "typing"
        if kind.has_default():
            module, rest = "typing_extensions", f"{rest}, default={self.as_is(kind.default)}"
        return names.variable(names.plain(module, "TypeVar"), kind.name, rest)

    def _callable(self, kind: CallableType, how: How) -> str:
        if kind.is_type_obj():
            return f"{self._names.builtin('type')}[{self.text(kind.ret_type, how)}]"
        if how is How.IN:
            returned = self.parameter(self._awaited(kind.ret_type))
        elif how is How.OUT:
            returned = self.result(kind.ret_type)
        else:
            returned = self.as_is(kind.ret_type)
        other = {How.IN: How.OUT, How.OUT: How.IN, How.AS_IS: How.AS_IS}[how]
        function = self._names.plain("collections.abc", "Callable")
        spec = kind.param_spec()
        plain = all(each == ArgKind.ARG_POS for each in kind.arg_kinds)
        if spec is not None:
            before = [self.text(each, other) for each in kind.arg_types[:-2]]
            takes = self.text(spec, other)
            if before:
                concatenate = self._names.plain("typing", "Concatenate")
                takes = f"{concatenate}[{', '.join([*before, takes])}]"
        elif kind.is_ellipsis_args or not plain:
            takes = "..."
        else:
            takes = f"[{', '.join(self.text(each, other) for each in kind.arg_types)}]"
        return f"{function}[{takes}, {returned}]"


def _is_container(kind: Type) -> bool:
    proper = get_proper_type(kind)
    return isinstance(proper, Instance) and proper.type.fullname in _CONTAINERS


def _items(kind: Type) -> Sequence[Type]:
    """What a union consists of."""
    if isinstance(kind, TypeAliasType) and kind.is_recursive:
        return [kind]
    proper: ProperType = get_proper_type(kind)
    return proper.items if isinstance(proper, UnionType) else [kind]
