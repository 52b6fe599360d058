"""Arguments that the async side takes in an async form, as a parameter's annotation tells: of what the sync side has,
a generator becomes an async one, and a function one that returns an awaitable.

Annotations are looked at only where a generator or a function is passed. What an annotation cannot be evaluated
to, its text tells.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Iterator
from types import FunctionType, GeneratorType, MethodType
from typing import Any

from .home import Home
from .inward import Callback, into
from .iterators import Items, async_iterator

_GENERATORS: tuple[type[Any], ...] = (GeneratorType, Items)
_FUNCTIONS: tuple[type[Any], ...] = (FunctionType, MethodType, functools.partial)
_ITERABLES = ("AsyncIterable", "AsyncIterator", "AsyncGenerator")
_ITERABLE = re.compile(rf"\b({'|'.join(_ITERABLES)})\b")
_CALLABLE = re.compile(r"\bCallable\[.*\b(Awaitable|Coroutine)\b")


def arguments(home: Home, function: Any, args: Any, kwds: Any) -> tuple[Any, Any]:
    """What `function` gets for the arguments of a call."""
    if any(map(_is_candidate, args)) or any(map(_is_candidate, kwds.values())):
        args, kwds = _in_form(home, function, args, kwds)
    return [into(home, each) for each in args], {
        name: into(home, each) for name, each in kwds.items()
    }


def _is_candidate(value: Any) -> bool:
    return isinstance(value, (*_GENERATORS, *_FUNCTIONS))


def _in_form(home: Home, function: Any, args: Any, kwds: Any) -> tuple[Any, Any]:
    try:
        bound = inspect.signature(function).bind(*args, **kwds)
    except (TypeError, ValueError, NameError):
        return args, kwds
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if _is_candidate(value) and parameter.annotation is not parameter.empty:
            bound.arguments[name] = _formed(home, value, parameter.annotation, function)
    return bound.args, bound.kwargs


def _formed(home: Home, value: Any, annotation: Any, function: Any) -> Any:
    if isinstance(value, _GENERATORS):
        return async_iterator(value) if takes_async_iterable(annotation, function) else value
    sent = into(home, value)
    if isinstance(sent, Callback) and takes_async_function(annotation, function):
        return Callback(home, value, is_async=True)
    return sent


def takes_async_iterable(annotation: Any, function: Any) -> bool:
    return any(
        _ITERABLE.search(leaf)
        if isinstance(leaf, str)
        else getattr(typing.get_origin(leaf) or leaf, "__name__", None) in _ITERABLES
        for leaf in _leaves(annotation, function)
    )


def takes_async_function(annotation: Any, function: Any) -> bool:
    """Only where none that is not async would do."""
    kinds = {kind for leaf in _leaves(annotation, function) if (kind := _kind(leaf)) is not None}
    return kinds == {True}


def _kind(leaf: Any) -> bool | None:
    """Whether this is a function that returns an awaitable; None if it is none."""
    if isinstance(leaf, str):
        return True if _CALLABLE.search(leaf) else None
    if typing.get_origin(leaf) is Callable or leaf is Callable:
        *_, returned = typing.get_args(leaf) or (None,)
        origin = typing.get_origin(returned) or returned
        return isinstance(origin, type) and issubclass(origin, Awaitable)
    call = getattr(leaf, "__call__", None) if getattr(leaf, "_is_protocol", False) else None  # noqa: B004
    return inspect.iscoroutinefunction(call) if inspect.isfunction(call) else None


def _leaves(annotation: Any, function: Any) -> Iterator[Any]:
    """What a union consists of, evaluated where that can be, else as text."""
    if isinstance(annotation, str):
        plain = inspect.unwrap(getattr(function, "__func__", function))
        try:
            found = eval(annotation, getattr(plain, "__globals__", {}))
        except Exception:
            yield annotation
            return
        if isinstance(found, str):
            yield found
            return
        annotation = found
    if isinstance(annotation, typing.ForwardRef):
        yield from _leaves(annotation.__forward_arg__, function)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _leaves(each, function)
    else:
        yield annotation
