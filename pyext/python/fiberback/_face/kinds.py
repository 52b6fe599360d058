"""What is async: which classes, functions and values have a sync face of their own.

A class is, if it or a base has a method that is called with `await`, `async for` or `async with`, as its
flags or its return annotation tell. A function that says nothing of it is found out by what it returns.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Coroutine
from types import AsyncGeneratorType, CoroutineType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from .annotations import returned

# In this order: where a class has both, the async one is what its face has.
DUNDERS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
_ASYNC = (*DUNDERS, "__await__")
_ANNOTATION = re.compile(
    r"\b(Awaitable|Coroutine|AsyncIterator|AsyncIterable|AsyncGenerator|(Abstract)?AsyncContextManager)\b"
)
# They have methods that are awaited, and are no part of a library's face.
_NEVER: tuple[type, ...] = (BaseException, asyncio.AbstractEventLoop, ModuleType, type)

_classes: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def is_async_class(cls: type) -> bool:
    """Whether its objects have a face: they have async methods."""
    found = _classes.get(cls)
    if found is None:
        found = not issubclass(cls, _NEVER) and any(
            _is_async_member(name, member)
            for base in cls.__mro__
            if base is not object
            for name, member in list(vars(base).items())  # reading members may add some
        )
        _classes[cls] = found
    return found


def _is_async_member(name: str, member: Any) -> bool:
    if name in _ASYNC:
        return member is not None
    if isinstance(member, property):
        member = member.fget
    member = getattr(member, "__func__", member)  # of a class or static method
    return is_async_function(member)


def is_async_function(function: Any) -> bool:
    """Whether calling it gives what is awaited, iterated or entered, as far as it says so."""
    if not callable(function) or isinstance(function, type):
        return False
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    inner = getattr(
        function, "__wrapped__", None
    )  # `@asynccontextmanager`, and what keeps its function
    if inner is not None and inspect.isasyncgenfunction(inner):
        return True
    if isinstance(function, functools.partial):
        return is_async_function(function.func)
    return isinstance(function, (FunctionType, MethodType)) and returns_async(function)


def returns_async(function: Any) -> bool:
    """Whether its return annotation names something async."""
    annotation = returned(function)
    if annotation is None or isinstance(annotation, type):
        return False
    text = str(annotation).replace("typing.", "").replace("collections.abc.", "")
    return bool(_ANNOTATION.match(text))


def is_async_value(value: Any) -> bool:
    return is_async_class(type(value))


_waits: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def is_waited_for(value: Any) -> bool:
    """Whether a call that returned this has a result yet to come: a coroutine, a future.

    Not what can be awaited, but iterated or entered instead, too (a query, a connection that is yet to open):
    that is an object.
    """
    cls = type(value)
    if cls is CoroutineType:
        return True
    found = _waits.get(cls)
    if found is None:
        found = issubclass(cls, (Coroutine, asyncio.Future)) or (
            hasattr(cls, "__await__") and not any(hasattr(cls, name) for name in DUNDERS)
        )
        _waits[cls] = found
    return found or (cls.__name__ == "generator" and inspect.isawaitable(value))


def is_async_generator(value: Any) -> bool:
    return type(value) is AsyncGeneratorType
