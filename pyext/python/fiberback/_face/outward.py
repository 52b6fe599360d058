"""What a caller of a face gets for a value of the async side: the value, or its face.

Lists, tuples and dicts are looked through, three deep; where nothing in them has a face, they are the same ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import (
    BuiltinMethodType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    NoneType,
)
from typing import Any

from .home import Home
from .iterators import Items, sync_iterator
from .kinds import (
    is_async_class,
    is_async_function,
    is_async_generator,
    is_async_value,
    is_waited_for,
)
from .known import IsFace

_ATOMS = {NoneType, bool, int, float, complex, str, bytes, bytearray}
_FUNCTIONS: tuple[type[Any], ...] = (FunctionType, MethodType, BuiltinMethodType, functools.partial)
_DEPTH = 3


class Makers:
    """How faces are made; those who know set it."""

    object: Callable[[Home, Any], Any]
    cls: Callable[[type], Any]
    function: Callable[[Callable[[], Home], Any], Any]


makers = Makers()


def outcome(home: Home, value: Any) -> Any:
    """The result of a call: waited for, if it is yet to come, and then its face."""
    return face(home, home.wait(value) if is_waited_for(value) else value)


def attribute(home: Home, value: Any, name: str) -> Any:
    """An attribute of `value`, or of a class. What a property gives is waited for as the result of a call is;
    a future that is kept there is a face."""
    found = getattr(value, name)
    if is_waited_for(found) and not _is_stored(value, name):
        return outcome(home, found)
    return face(home, found)


def _is_stored(value: Any, name: str) -> bool:
    return name in getattr(value, "__dict__", ()) or isinstance(
        getattr(type(value), name, None), MemberDescriptorType
    )


def face(home: Home, value: Any, depth: int = _DEPTH) -> Any:
    """The value, or its face if it is async."""
    cls = type(value)
    if cls in _ATOMS:
        return value
    if cls is list or cls is tuple or cls is dict:
        return through(value, lambda each: face(home, each, depth - 1)) if depth else value
    if is_async_generator(value):
        return sync_iterator(value, lambda step: face(home, home.wait(step)))
    if cls is GeneratorType:
        return Items(value, lambda each: face(home, each))
    if isinstance(value, _FUNCTIONS):
        bound = getattr(value, "__self__", None)
        if is_async_function(value) or (bound is not None and is_async_value(bound)):
            return makers.function(lambda: home, value)
        return value
    if isinstance(value, type):
        is_face = isinstance(value, IsFace)
        return makers.cls(value) if not is_face and is_async_class(value) else value
    if isinstance(value, Lent):
        return value._fiberback_lent
    if not isinstance(cls, IsFace) and is_async_class(cls):
        return makers.object(home, value)
    return value


def through(value: Any, each: Callable[[Any], Any]) -> Any:
    """A list, tuple or dict with `each` of what is in it, or the same one if that changes nothing."""
    if type(value) is dict:
        changed = {key: new for key, old in value.items() if (new := each(old)) is not old}
        return {**value, **changed} if changed else value
    new = [each(old) for old in value]
    if all(map(_is, new, value)):
        return value
    return new if type(value) is list else tuple(new)


def _is(one: Any, other: Any) -> bool:
    return one is other


class Lent:
    """What the async side gets in place of something of the sync one, which is to come back as it was."""

    __slots__ = ()
    _fiberback_lent: Any
