"""What every face of an object is: the async object, its home, and how attributes go through.

Attributes are the object's own, read as what a face of them is, and set and deleted there; a face has no state
besides. To `isinstance` it is of the object's class, too.
"""

from __future__ import annotations

import copy
from typing import Any

from .. import _messages
from .home import Home, Options
from .inward import into
from .known import IsFace, bind
from .outward import attribute, outcome
from .subclasses import derived


class FaceType(IsFace):
    """The class of faces' classes. `asyn` is the async class."""

    _fiberback_is_made: bool

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwds: Any
    ) -> FaceType:
        # Those that are made of an async class say so; others are people's own, derived from such a one.
        namespace.setdefault("_fiberback_is_made", False)
        cls = super().__new__(mcs, name, bases, namespace)
        if not cls._fiberback_is_made:
            cls._fiberback_inner = derived(cls, cls._fiberback_class, kwds)
        return cls

    def __init__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwds: Any
    ) -> None:
        super().__init__(name, bases, namespace)

    @property
    def asyn(cls) -> Any:
        return cls._fiberback_class

    def __getattr__(cls, name: str) -> Any:
        """What the async class has of its own metaclass, or is given later."""
        if name.startswith("_fiberback_"):
            raise AttributeError(name)
        return attribute(Home(Options()), cls._fiberback_class, name)

    def __repr__(cls) -> str:
        if cls._fiberback_is_made:
            return f"fiberback.syncify({cls._fiberback_class!r})"
        return super().__repr__()


class Face(metaclass=FaceType):
    """A sync face of an async object, made by `fiberback.syncify`. `asyn` is the object."""

    __slots__ = ("__dict__", "__weakref__", "_fiberback_home", "_fiberback_object")
    _fiberback_is_made = True
    _fiberback_class = _fiberback_inner = object
    _fiberback_options = Options()
    _fiberback_home: Home
    _fiberback_object: Any

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """For `isinstance`. (What asks for the real class, `type`, is told.)"""
        try:
            return object.__getattribute__(self, "_fiberback_object").__class__
        except AttributeError:  # not there yet
            return type(self)

    @property
    def asyn(self) -> Any:
        return self._fiberback_object

    def __getattr__(self, name: str) -> Any:
        """What the class of the face does not have: the object's own attributes, and what it makes up."""
        if name == "_fiberback_object" or name == "_fiberback_home":
            raise RuntimeError(_messages.FACE_INIT.format(name=type(self).__name__))
        try:
            return attribute(self._fiberback_home, self._fiberback_object, name)
        except AttributeError as error:
            if hasattr(type(self._fiberback_object), "__await__"):
                error.add_note(str(_messages.FACE_CALL))
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        if _is_own(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self._fiberback_object, name, into(self._fiberback_home, value))

    def __delattr__(self, name: str) -> None:
        if _is_own(type(self), name):
            object.__delattr__(self, name)
        else:
            delattr(self._fiberback_object, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._fiberback_object)})

    def __repr__(self) -> str:
        value = self._fiberback_object
        if _has_own(value, "__repr__"):
            return repr(value)
        return f"fiberback.syncify({value!r})"

    def __str__(self) -> str:
        value = self._fiberback_object
        return str(value) if _has_own(value, "__str__") else repr(self)

    def __eq__(self, other: object) -> Any:
        return self._fiberback_object == into(self._fiberback_home, other)

    def __ne__(self, other: object) -> Any:
        return self._fiberback_object != into(self._fiberback_home, other)

    def __hash__(self) -> int:
        return hash(self._fiberback_object)

    def __copy__(self) -> Any:
        return self._fiberback_like(copy.copy(self._fiberback_object))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._fiberback_like(copy.deepcopy(self._fiberback_object, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As its object is: a pickle of a face is one of its object, with no home yet."""
        kind = type(self)
        while kind._fiberback_is_made and not issubclass(Face, kind):
            kind = kind.__base__  # type: ignore[assignment]
        return _restore, (None if kind is Face else kind, self._fiberback_object)

    def _fiberback_like(self, value: Any) -> Any:
        return bind(object.__new__(type(self)), value, Home(self._fiberback_home.options))


def _has_own(value: Any, name: str) -> bool:
    return getattr(type(value), name) is not getattr(object, name)


def _restore(kind: type[Face] | None, value: Any) -> Any:
    if kind is not None:
        return bind(object.__new__(kind), value, Home(kind._fiberback_options))
    return outcome(Home(Options()), value)


def _is_own(cls: type, name: str) -> bool:
    """Whether a class that people have derived from a face's has a place for this: a slot, a property."""
    if name.startswith("_fiberback_"):
        return True
    for base in cls.__mro__:
        if name in vars(base):
            made = isinstance(base, FaceType) and base._fiberback_is_made
            return not made and hasattr(type(vars(base)[name]), "__set__")
    return False
