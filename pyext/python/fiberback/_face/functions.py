"""The sync face of a function: a plain function, with the name, the docstring and the signature of the async one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .annotations import in_sync, returned
from .home import Home
from .outward import face
from .parameters import arguments


def call(home: Home, function: Callable[..., Any], args: Any, kwds: Any) -> Any:
    """What a face's function does."""
    args, kwds = arguments(home, function, args, kwds)
    return face(home, home.run(function, args, kwds))


def function_face(home_of: Callable[[], Home], asyn: Callable[..., Any]) -> Any:
    """Of a function that is called as it is. `home_of` says where each call waits."""

    def function(*args: Any, **kwds: Any) -> Any:
        return call(home_of(), asyn, args, kwds)

    made: Any = like(function, asyn)
    made.asyn = made._fiberback_asyn = asyn
    return made


def like(function: Callable[..., Any], asyn: Any) -> Callable[..., Any]:
    """`function`, called what `asyn` is."""
    functools.update_wrapper(function, asyn)
    if isinstance(asyn, functools.partial):
        functools.update_wrapper(function, asyn.func, updated=())
        function.__wrapped__ = asyn  # type: ignore[attr-defined]
    vars(function).pop("_is_coroutine_marker", None)
    vars(function).pop("_is_coroutine_mark", None)
    annotation = returned(asyn)
    sync = in_sync(annotation)
    if sync is not annotation and sync != annotation:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return function
        function.__signature__ = signature.replace(return_annotation=sync)  # type: ignore[attr-defined]
    return function
