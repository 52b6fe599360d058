"""Classes that people derive from a face's: what these override, the async side calls, too.

Each has a class beside it that is derived from the async one, of which its objects' async objects are. There every
method that the sync class overrides calls that, in the shape that the async side expects.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator
from typing import Any

from .._portal.call_portal import go_on_in_sync
from .home import Home, Options
from .inward import into
from .iterators import async_iterator
from .kinds import DUNDERS
from .outward import face, makers

_SYNC_DUNDERS = {sync: asyn for asyn, sync in DUNDERS.items()}


def derived(sync_class: Any, asyn: type, kwds: dict[str, Any]) -> type:
    """The class beside `sync_class`."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = sync_class.__module__
        namespace["__qualname__"] = sync_class.__qualname__
        namespace["__doc__"] = sync_class.__doc__
        namespace["_fiberback_face"] = sync_class
        namespace["__reduce_ex__"] = _reduce
        for name in _overridden(sync_class, asyn):
            namespace[name] = _override(asyn, name)

    inner = types.new_class(sync_class.__name__, (asyn,), kwds, fill)
    return inner


def _overridden(sync_class: type, asyn: type) -> set[str]:
    """The async side's names for what people's classes define."""
    found = set()
    for base in sync_class.__mro__:
        if getattr(base, "_fiberback_is_made", False) or base is object:
            break
        for name, member in vars(base).items():
            name = _SYNC_DUNDERS.get(name, name)
            if name.startswith("__") and name not in DUNDERS and name != "__call__":
                continue
            if inspect.isfunction(member) and hasattr(asyn, name):
                found.add(name)
    return found


def _override(asyn: type, name: str) -> Any:
    original = getattr(asyn, name)
    sync_name = DUNDERS.get(name, name)

    def call(self: Any, args: Any, kwds: Any) -> Any:
        own = makers.object(Home(Options()), self)
        home = own._fiberback_home
        home.settle()
        args = [face(home, each) for each in args]
        kwds = {key: face(home, each) for key, each in kwds.items()}
        return into(home, getattr(own, sync_name)(*args, **kwds))

    if inspect.isasyncgenfunction(original):

        async def generate(self: Any, *args: Any, **kwds: Any) -> AsyncGenerator[Any, None]:
            source = await go_on_in_sync(call, self, args, kwds)
            if hasattr(source, "__anext__"):
                async for item in source:
                    yield item
                return
            async for item in async_iterator(source):
                yield into(Home(Options()), item)

        return generate

    if name == "__anext__":

        async def advance(self: Any) -> Any:
            try:
                return await go_on_in_sync(_advance, call, self)
            except _Ended:
                raise StopAsyncIteration from None

        return advance

    if inspect.iscoroutinefunction(original) or name in ("__aenter__", "__aexit__"):

        async def wait(self: Any, *args: Any, **kwds: Any) -> Any:
            result = await go_on_in_sync(call, self, args, kwds)
            return await result if inspect.iscoroutine(result) else result

        return wait

    def method(self: Any, *args: Any, **kwds: Any) -> Any:
        return call(self, args, kwds)

    return method


class _Ended(Exception):
    """StopIteration cannot pass through a coroutine."""


def _advance(call: Any, self: Any) -> Any:
    try:
        return call(self, (), {})
    except StopIteration:
        raise _Ended from None


def _reduce(self: Any, protocol: Any) -> Any:
    """By the name of the sync class, under which pickle would not find this one."""
    inner = type(self)
    made = super(inner, self).__reduce_ex__(protocol)
    function, args, *rest = made
    args = tuple(inner._fiberback_face if each is inner else each for each in args)
    return (_rebuild, (function, args), *rest)


def _rebuild(function: Any, args: Any) -> Any:
    return function(*(getattr(each, "_fiberback_inner", each) for each in args))
