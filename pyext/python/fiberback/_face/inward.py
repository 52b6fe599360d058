"""What the async side gets for a value of the sync one: the async object for its face, and callbacks.

The async side may await what a sync callback returns, or not; so it gets a stand-in for the function, which looks
who calls it: for a caller that awaits the result at once it is an async function, on a portal, so that it can
wait, in whatever loop this is. What else is async in a parameter's annotation, `parameters` knows.
"""

from __future__ import annotations

import functools
import inspect
import opcode
import sys
from types import FrameType, FunctionType, MethodType
from typing import Any

from .._portal.call_portal import go_on_in_sync
from .home import Home
from .iterators import SyncIterator
from .kinds import is_async_function
from .known import IsFace
from .outward import Lent, face, through

_DEPTH = 3
_AWAITS = opcode.opmap.get("GET_AWAITABLE")  # CPython has it
_CALLS = {
    opcode.opmap[name]
    for name in ("PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX")
    if name in opcode.opmap
}
_UNIT = 2  # bytes of an instruction


def into(home: Home, value: Any, depth: int = _DEPTH) -> Any:
    """The async object of a face, a function that can be awaited, or the value."""
    cls = type(value)
    if isinstance(cls, IsFace):
        owner: Any = value
        home.share(owner._fiberback_home)
        return owner._fiberback_object
    if cls is list or cls is tuple or cls is dict:
        return through(value, lambda each: into(home, each, depth - 1)) if depth else value
    if cls is FunctionType or cls is MethodType or cls is functools.partial:
        return _function(home, value)
    if isinstance(value, IsFace):
        return value._fiberback_inner
    if isinstance(value, SyncIterator):
        return value.asyn
    return value


def _function(home: Home, value: Any) -> Any:
    if "_fiberback_asyn" in value.__dict__:
        if not isinstance(value, MethodType):
            return value._fiberback_asyn
        owner: Any = value.__self__
        if isinstance(type(owner), IsFace):
            return getattr(owner._fiberback_object, value.__name__)
    return value if is_async_function(value) else Callback(home, value)


class Callback(Lent):
    """A sync function for async code, which may await what it returns."""

    __slots__ = ("__dict__", "__weakref__", "_home", "_is_async")

    def __init__(self, home: Home, function: Any, is_async: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._fiberback_lent = function
        self._home, self._is_async = home, is_async
        if is_async:
            inspect.markcoroutinefunction(self) if hasattr(
                inspect, "markcoroutinefunction"
            ) else None

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        if self._is_async or _awaits(sys._getframe(1)):
            return self._wait(args, kwds)
        return self._call(args, kwds)

    async def _wait(self, args: Any, kwds: Any) -> Any:
        result = await go_on_in_sync(self._call, args, kwds)
        return await result if inspect.isawaitable(result) else result

    def _call(self, args: Any, kwds: Any) -> Any:
        home = self._home
        home.settle()
        args = [face(home, each) for each in args]
        kwds = {name: face(home, each) for name, each in kwds.items()}
        return into(home, self._fiberback_lent(*args, **kwds))

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Callback):
            return self._fiberback_lent == other._fiberback_lent
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._fiberback_lent)

    def __repr__(self) -> str:
        return repr(self._fiberback_lent)


def _awaits(frame: FrameType) -> bool:
    """Whether the code of `frame`, which is at a call, awaits what that returns."""
    code, at = frame.f_code.co_code, frame.f_lasti
    if code[at] not in _CALLS:
        return False
    while code[at] in _CALLS or code[at] == 0:  # zeros are what is noted about the call
        at += _UNIT
    return code[at] == _AWAITS
