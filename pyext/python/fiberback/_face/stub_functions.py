"""The signatures of a sync face's functions, as a stub has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mypy.nodes import ArgKind
from mypy.types import (
    CallableType,
    Instance,
    ParamSpecType,
    Type,
    UnpackType,
    get_proper_type,
)

from .stub_types import Types

_SHOWN = (bool, int, float, str, bytes, type(None))  # defaults that say something
_LONGEST = 40


class Functions:
    """`sync` says whether a function is written as its sync face, or as it is."""

    def __init__(self, types: Types, sync: bool) -> None:
        self._types = types
        self._parameter: Callable[[Type], str] = types.parameter if sync else types.as_is
        self._result: Callable[[Type], str] = types.result if sync else types.as_is

    def signature(
        self, kind: CallableType, first: str | None, runtime: Any = None, returns: str | None = None
    ) -> str:
        """`(…) -> …`. `first` is what a method's first parameter is called."""
        own = get_proper_type(kind.arg_types[0]) if first and kind.arg_types else None
        self._types.own = getattr(get_proper_type(getattr(own, "item", own)), "id", None)
        try:
            shown = ", ".join(self._parameters(kind, first, _runtime_parameters(runtime)))
            if returns is None:
                returns = self._guard(kind) or self._result(kind.ret_type)
        finally:
            self._types.own = None
        return f"({shown}) -> {returns}"

    def _guard(self, kind: CallableType) -> str | None:
        for name, guard in (("TypeGuard", kind.type_guard), ("TypeIs", kind.type_is)):
            if guard is not None:
                return f"{self._types.typing(name)}[{self._types.as_is(guard)}]"
        return None

    def _parameters(
        self, kind: CallableType, first: str | None, runtime: list[inspect.Parameter]
    ) -> list[str]:
        shown: list[str] = []
        names = _names(kind, runtime)
        defaults = _defaults(runtime)
        given = list(zip(names, kind.arg_names, kind.arg_kinds, kind.arg_types, strict=True))
        if first is not None and given and given[0][2].is_positional():
            shown.append(first)
            given = given[1:]
        elif first is not None:
            shown.append(first)
        only_positional = False
        for name, keyword, arg, type_ in given:
            if only_positional and (keyword is not None or not arg.is_positional()):
                shown.append("/")
                only_positional = False
            if arg.is_positional() and keyword is None:
                only_positional = True
            if arg.is_named() and not any(each.startswith("*") for each in shown):
                shown.append("*")
            if arg == ArgKind.ARG_STAR:
                shown.append(f"*{name}: {self._rest(type_, 'args')}")
            elif arg == ArgKind.ARG_STAR2:
                unpack = kind.unpack_kwargs and not isinstance(type_, UnpackType)
                text = self._rest(type_, "kwargs")
                shown.append(
                    f"**{name}: {self._types.typing('Unpack')}[{text}]"
                    if unpack
                    else f"**{name}: {text}"
                )
            else:
                text = f"{name}: {self._parameter(type_)}"
                default = defaults.get(name, "...")
                if default == "None" and not text.endswith(("None", "Any")):
                    default = "..."  # which the annotation forgets, or its alias says
                shown.append(text + f" = {default}" * arg.is_optional())
        if only_positional:
            shown.append("/")
        return shown

    def _rest(self, kind: Type, of: str) -> str:
        proper = get_proper_type(kind)
        if isinstance(proper, ParamSpecType):
            return f"{self._types.as_is(proper)}.{of}"
        return self._parameter(kind)


def _runtime_parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError, NameError):
        return []


def _names(kind: CallableType, runtime: list[inspect.Parameter]) -> list[str]:
    """The parameters' names. mypy forgets those that cannot be passed by name."""
    known = [each.name for each in runtime] if len(runtime) == len(kind.arg_names) else []
    return [name or (known[at] if known else f"_{at}") for at, name in enumerate(kind.arg_names)]


def _defaults(runtime: list[inspect.Parameter]) -> dict[str, str]:
    """Those that are short constants."""
    return {
        each.name: repr(each.default)
        for each in runtime
        if type(each.default) in _SHOWN
        and each.default == each.default  # no NaN
        and len(repr(each.default)) <= _LONGEST
        and "inf" not in repr(each.default)
    }


def restrictive_self(kind: CallableType, own: Instance) -> Instance | None:
    """The type that `self` must have, where an annotation asks for more than an object of the class."""
    if not kind.arg_types or not kind.arg_kinds[0].is_positional():
        return None
    wanted = get_proper_type(kind.arg_types[0])
    if not isinstance(wanted, Instance) or own.type.has_base(wanted.type.fullname):
        return None
    return wanted
