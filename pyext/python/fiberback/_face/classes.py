"""The sync face of a class: a class with the same members, each of which goes to the async object.

The faces of a class's bases are the bases of its face. A member is looked up in the class that it came from at
each call, so what is replaced there later is found. Where a class has methods in pairs, `read` and `aread`, its
face's `read` is the async one, for what it reads from is async; `aclose` is `close`, too.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import threading
import types
import typing
from abc import ABC
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from . import functions
from .face import Face, FaceType
from .functions import like
from .home import Home
from .kinds import DUNDERS, is_async_function
from .known import bind, face_of
from .outward import attribute, face, outcome
from .parameters import arguments

_lock = threading.RLock()
# By the ids of the async classes, which live as long as their faces do.
_classes: WeakValueDictionary[int, FaceType] = WeakValueDictionary()
# Those of modules, which live on; one that a function has made goes when its last object does.
_kept: list[FaceType] = []

SKIPPED = {
    *("__new__", "__init__", "__del__", "__init_subclass__", "__subclasshook__", "__class__"),
    *("__getattribute__", "__getattr__", "__setattr__", "__delattr__", "__dir__", "__dict__"),
    *("__weakref__", "__slots__", "__module__", "__qualname__", "__name__", "__doc__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__"),
    *("__getnewargs_ex__", "__copy__", "__deepcopy__", "__sizeof__", "__repr__", "__str__"),
    *("__eq__", "__ne__", "__hash__", "__orig_bases__", "__parameters__", "__type_params__"),
    *("__class_getitem__", "__abstractmethods__", "_abc_impl", "__set_name__", "__match_args__"),
    *("__dataclass_fields__", "__dataclass_params__", "__firstlineno__", "__static_attributes__"),
    *(
        "_is_protocol",
        "_is_runtime_protocol",
        "__protocol_attrs__",
        "__non_callable_proto_members__",
    ),
    *DUNDERS,
    "__await__",
}
_WITHOUT_FACE = {object, ABC, typing.Generic, typing.Protocol}
RENAMED = {"aclose": "close"}


def face_class(asyn: type) -> Any:
    """The class of the faces of `asyn`'s objects; always the same one."""
    made = vars(asyn).get("_fiberback_face")
    if made is not None:
        return made  # people's own
    with _lock:
        found = _classes.get(id(asyn))
        if found is None or found.asyn is not asyn:
            found = _classes[id(asyn)] = _make(asyn)
            if "<locals>" not in asyn.__qualname__:
                _kept.append(found)
        return found


def _make(asyn: type) -> FaceType:
    bases = [face_class(base) for base in asyn.__bases__ if base not in _WITHOUT_FACE]
    namespace: dict[str, Any] = {
        "__slots__": (),
        "__module__": asyn.__module__,
        "__qualname__": asyn.__qualname__,
        "__doc__": asyn.__doc__,
        "__init__": _init_of(asyn),
        "_fiberback_is_made": True,
        "_fiberback_class": asyn,
        "_fiberback_inner": asyn,
    }
    for name, member in list(vars(asyn).items()):
        if name not in SKIPPED:
            namespace[name] = _member(asyn, name, member)
    _add_pairs(asyn, namespace)
    _add_protocols(asyn, namespace)
    if hasattr(asyn, "__class_getitem__"):
        namespace["__class_getitem__"] = classmethod(types.GenericAlias)
    return FaceType(asyn.__name__, tuple(bases) or (Face,), namespace)


def _reduce_class(cls: Any) -> Any:
    """A class that was made is pickled as that of its async class, others by their names."""
    return (face_class, (cls.asyn,)) if cls._fiberback_is_made else cls.__qualname__


copyreg.pickle(FaceType, _reduce_class)


def variant(cls: Any, options: Any) -> Any:
    """The class of faces of the same objects that have other options."""
    namespace = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_fiberback_is_made": True,
        "_fiberback_options": options,
    }
    return FaceType(cls.__name__, (cls,), namespace)


# --- how objects are made ----------------------------------------------------------------------------


def _init_of(asyn: type) -> Callable[..., None]:
    def __init__(self: Any, /, *args: Any, **kwds: Any) -> None:
        cls = type(self)
        inner = cls._fiberback_inner
        home = Home(cls._fiberback_options)
        args, kwds = arguments(home, inner, args, kwds)
        (value,) = home.run(_construct, (self, home, inner, args, kwds), {})
        bind(self, value, home)
        if type(value) is not inner and cls._fiberback_is_made:
            _become(self, face_class(type(value)))

    original: Any = asyn.__init__  # type: ignore[misc]
    if original is object.__init__:
        original = asyn.__new__
    if inspect.isfunction(original):
        like(__init__, original)
    else:
        __init__.__doc__ = getattr(original, "__doc__", None)
    __init__.__name__ = "__init__"
    return __init__


def _construct(self: Any, home: Home, inner: Any, args: Any, kwds: Any) -> list[Any]:
    """In a list, for the object may be one that can be awaited."""
    if type(inner).__call__ is not type.__call__:
        return [inner(*args, **kwds)]
    value = inner.__new__(inner, *args, **kwds)
    if isinstance(value, inner):
        bind(self, value, home)  # what people override may be called from now on
        type(value).__init__(value, *args, **kwds)
    return [value]


def _become(self: Any, cls: type) -> None:
    object.__dict__["__class__"].__set__(self, cls)


def object_face(home: Home, value: Any) -> Any:
    """The face of an object; a new one, if it has none."""
    found = face_of(value)
    if found is not None:
        return found
    return bind(object.__new__(face_class(type(value))), value, home)


# --- members -----------------------------------------------------------------------------------------


def _member(asyn: type, name: str, member: Any) -> Any:
    if isinstance(member, staticmethod):
        return staticmethod(_static(asyn, name, member))
    if isinstance(member, classmethod):
        return classmethod(_of_class(asyn, name, member))
    if isinstance(member, type) or not hasattr(type(member), "__get__"):
        return Value(asyn, name)
    if isinstance(member, (functools.partialmethod, functools.singledispatchmethod)):
        return _method(asyn, name, member, member.func)
    if inspect.isroutine(member) and callable(member):
        return _method(asyn, name, member)
    return Value(asyn, name, getattr(member, "__doc__", None))


def _method(asyn: type, name: str, member: Any, function: Any = None) -> Any:
    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        bound, home = _bound(self, asyn, name, member)
        return functions.call(home, bound, args, kwds)

    made: Any = like(method, function or member)
    made._fiberback_asyn = member
    return made


def _bound(self: Any, asyn: type, name: str, member: Any) -> tuple[Any, Home]:
    """The method `name` of a face's object, and its home. What the object has of its own goes first."""
    value, home = self._fiberback_object, self._fiberback_home
    own = getattr(value, "__dict__", None)
    if own and name in own and not hasattr(type(member), "__set__"):
        return own[name], home
    function = asyn.__dict__.get(name, member)
    bind_it: Any = getattr(type(function), "__get__", None)
    return (function if bind_it is None else bind_it(function, value, type(value))), home


def _static(asyn: type, name: str, member: Any) -> Any:
    def function(*args: Any, **kwds: Any) -> Any:
        found = asyn.__dict__.get(name, member).__get__(None, asyn)
        return functions.call(Home(Face._fiberback_options), found, args, kwds)

    made: Any = like(function, member.__func__)
    made.asyn = made._fiberback_asyn = member.__func__
    return made


def _of_class(asyn: type, name: str, member: Any) -> Any:
    def method(cls: Any, /, *args: Any, **kwds: Any) -> Any:
        found = asyn.__dict__.get(name, member).__get__(None, cls._fiberback_inner)
        return functions.call(Home(cls._fiberback_options), found, args, kwds)

    made: Any = like(method, member.__func__)
    made._fiberback_asyn = member.__func__
    return made


class Value:
    """An attribute that is no method: a property, a slot, a constant of the class."""

    def __init__(self, asyn: type, name: str, doc: str | None = None) -> None:
        self._asyn, self._name = asyn, name
        self.__doc__ = doc
        self.__name__ = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            found = self._asyn.__dict__.get(self._name)
            if not isinstance(found, type) and hasattr(type(found), "__get__"):
                return self  # with the docstring of a property
            return face(Home(owner._fiberback_options), found)
        value, home = instance._fiberback_object, instance._fiberback_home
        kind = type(instance)
        if kind._fiberback_is_made or kind.__dict__.get(self._name) is self:
            return attribute(home, value, self._name)
        # `super().name` in a class of people's own, whose property this is below.
        found = self._asyn.__dict__.get(self._name)
        get: Any = getattr(type(found), "__get__", None)
        if get is None or isinstance(found, type):
            return attribute(home, value, self._name)
        return outcome(home, get(found, value, type(value)))

    @property
    def __isabstractmethod__(self) -> bool:
        return False


# --- pairs, and the protocols ------------------------------------------------------------------------


def _add_pairs(asyn: type, namespace: dict[str, Any]) -> None:
    """For `aread`, beside which there is a `read`, the latter."""
    for name, member in list(vars(asyn).items()):
        sync = RENAMED.get(name) or name[1:]
        if name[0] != "a" or not sync or not is_async_function(member):
            continue
        has_it = hasattr(asyn, sync)
        if has_it and not is_async_function(getattr(asyn, sync)):
            namespace[sync] = _method(asyn, name, member)
            namespace[sync].__name__ = sync
        elif not has_it and name in RENAMED:
            namespace[sync] = _method(asyn, name, member)
            namespace[sync].__name__ = sync


def _add_protocols(asyn: type, namespace: dict[str, Any]) -> None:
    own = vars(asyn)
    for name, sync in DUNDERS.items():
        if own.get(name) is not None:
            namespace[name] = _as_it_is(asyn, name)
            namespace[sync] = _PROTOCOLS[name](asyn, name)
    if "__anext__" in own and not hasattr(asyn, "__aiter__"):
        namespace["__iter__"] = _itself
    if own.get("__await__") is not None:
        namespace["__await__"] = _as_it_is(asyn, "__await__")
        if not any("__call__" in vars(base) for base in asyn.__mro__):
            namespace["__call__"] = _wait


def _as_it_is(asyn: type, name: str) -> Any:
    """For code that is async after all: the async object's."""

    def method(self: Any, *args: Any) -> Any:
        return getattr(type(self._fiberback_object), name)(self._fiberback_object, *args)

    return like(method, vars(asyn)[name])


def _special(asyn: type, name: str) -> Any:
    member = vars(asyn)[name]

    def method(self: Any, *args: Any) -> Any:
        function, home = _bound(self, asyn, name, member)
        return functions.call(home, function, args, {})

    made = like(method, member)
    made.__name__ = DUNDERS[name]
    return made


def _iterate(asyn: type, name: str) -> Any:
    def __iter__(self: Any) -> Any:
        function, home = _bound(self, asyn, name, vars(asyn)[name])
        found = home.run(function, (), {})
        return self if found is self._fiberback_object else face(home, found)

    return __iter__


def _advance(asyn: type, name: str) -> Any:
    def __next__(self: Any) -> Any:
        function, home = _bound(self, asyn, name, vars(asyn)[name])
        try:
            return face(home, home.run(function, (), {}))
        except StopAsyncIteration as end:
            raise StopIteration(*end.args) from end

    return __next__


_PROTOCOLS: dict[str, Callable[[type, str], Any]] = {
    "__aenter__": _special,
    "__aexit__": _special,
    "__aiter__": _iterate,
    "__anext__": _advance,
}


def _itself(self: Any) -> Any:
    return self


def _wait(self: Any) -> Any:
    """The result that `await` would give."""
    return outcome(self._fiberback_home, _await(self._fiberback_object))


async def _await(value: Any) -> Any:
    return await value
