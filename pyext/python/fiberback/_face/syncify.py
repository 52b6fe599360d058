"""`syncify`: the sync face of a function, a class, an object or a module."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import AsyncGeneratorType, ModuleType
from typing import Any, Literal, ParamSpec, TypeVar, overload

from .. import _messages
from .._sync.loop_thread import LoopThread
from .classes import face_class, object_face, variant
from .functions import function_face
from .home import Home, Options
from .known import IsFace, bind
from .modules import ModuleFace
from .outward import face, makers

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")

makers.object = object_face
makers.cls = face_class
makers.function = function_face

_modules: dict[tuple[str, Options], ModuleFace] = {}


@overload
def syncify(
    target: type[Any],
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Any: ...
@overload
def syncify(
    target: Callable[P, AsyncGenerator[T, S]],
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Callable[P, Generator[T, S, None]]: ...
@overload
def syncify(
    target: Callable[P, AsyncIterator[T]],
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Callable[P, Iterator[T]]: ...
@overload
def syncify(
    target: Callable[P, AbstractAsyncContextManager[T]],
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Callable[P, AbstractContextManager[T]]: ...
@overload
def syncify(
    target: Callable[P, Awaitable[T]],
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Callable[P, T]: ...
@overload
def syncify(
    target: Any,
    raise_sync_error: bool = ...,
    *,
    fallback: Literal["raise", "thread"] = ...,
    home: LoopThread | asyncio.AbstractEventLoop | None = ...,
) -> Any: ...
def syncify(
    target: Any,
    raise_sync_error: bool = False,
    *,
    fallback: Literal["raise", "thread"] = "raise",
    home: LoopThread | asyncio.AbstractEventLoop | None = None,
) -> Any:
    """The sync face of async code: one source, two faces, and no generated files.

    `target` is an async function, a class, an object or a module. What its face gives is what the async side would
    give after `await`, and what of that is async has a face again: a response, a session, a stream::

        Client = fiberback.syncify(httpx.AsyncClient)

        with Client() as client:                        # async with
            page = client.get(url)                      # await
            with client.stream("GET", url) as response:
                for line in response.aiter_lines():     # async for
                    ...

    Each call waits as `sync` does: on a portal the task is suspended, on a stock asyncio loop the caller is
    parked, in a worker thread its loop does the work, where there is no loop the thread's own runner. An
    object, and all that comes out of it, lives on one loop, that of its first wait; calls from other threads wait
    for that. `home`, a `fiberback.threads.LoopThread` or an event loop, says which from the start: a
    `LoopThread` for an object that threads without a loop of their own share. `fallback` is that of `sync`, for
    the first wait.

    To `isinstance` a face is of the async class and of the face's; docstrings and signatures are those of
    the async side, and so is the state: attributes are read, set and deleted there. `face.asyn` is what it is the
    face of. Arguments that are faces arrive as what they stand for; of sync functions that are
    passed as callbacks the async side may await the result. A class derived from a face's overrides methods for the
    async side, too. Where there are `read` and `aread`, the face's `read` is the async one, and `close` is
    `aclose`. What can be awaited as well as entered or iterated (a query, a connection) is not waited for until
    its face is entered, iterated, or called without arguments.

    `raise_sync_error=True`, as asyncer has it by default, raises RuntimeError where no event loop runs and this
    thread works for none.

    Raises TypeError for what has no face: a coroutine (`sync` waits for that), a number. Raises RuntimeError, in a
    call, where `sync` would, and where the home does not run: it is the runner of another thread, or of this one,
    in which another loop runs.
    """
    if fallback not in ("raise", "thread"):
        raise ValueError(_messages.SYNC_FALLBACK.format(value=fallback))
    options = Options(fallback, home, raise_sync_error)
    is_plain = options == Options()
    if isinstance(target, ModuleFace) or isinstance(type(target), IsFace):
        return (
            target
            if is_plain
            else syncify(target.asyn, raise_sync_error, fallback=fallback, home=home)
        )
    if isinstance(target, ModuleType):
        if home is not None:
            return ModuleFace(target, options)
        known = _modules.get((target.__name__, options))
        if known is None or known.asyn is not target:
            known = _modules[target.__name__, options] = ModuleFace(target, options)
        return known
    if isinstance(target, type):
        made = target if isinstance(target, IsFace) else face_class(target)
        return made if is_plain else variant(made, options)
    if inspect.iscoroutine(target) or isinstance(target, (*_WITHOUT, asyncio.Future)):
        if inspect.iscoroutine(target):
            target.close()
        raise TypeError(_messages.FACE_WHAT.format(value=target))
    if isinstance(target, AsyncGeneratorType):
        return face(Home(options), target)
    if _is_function(target):
        return function_face(lambda: Home(options), target)
    if is_plain:
        return object_face(Home(options), target)
    return bind(object.__new__(face_class(type(target))), target, Home(options))


_WITHOUT = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


def _is_function(target: Any) -> bool:
    return inspect.isroutine(target) or hasattr(target, "func") and hasattr(target, "keywords")
