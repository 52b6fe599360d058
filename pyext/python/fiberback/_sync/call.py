"""`sync`: async code called from sync code, wherever that is."""

from __future__ import annotations

import atexit
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from .. import _messages
from .._await import no_await
from .._exit import after_all_handlers
from .._fiberback import await_
from . import caller
from .attempt import Attempt
from .loop_thread import LoopThread

T = TypeVar("T")
P = ParamSpec("P")
Q = ParamSpec("Q")


class SyncFunction(Generic[P, T]):
    """What `sync` makes of an async function: called, it waits. `asyn` is the async function.

    Binds as a function does, so that it works as a method; then `asyn` is bound, too.
    """

    def __init__(
        self, asyn: Callable[P, Awaitable[T]], fallback: Literal["raise", "thread"]
    ) -> None:
        functools.update_wrapper(self, asyn)
        self.asyn = asyn
        self._fallback = fallback

    def __call__(self, *args: P.args, **kwds: P.kwargs) -> T:
        result: T = wait(self.asyn(*args, **kwds), self._fallback)
        return result

    @overload
    def __get__(self, instance: None, owner: type) -> SyncFunction[P, T]: ...
    @overload
    def __get__(
        self: SyncFunction[Concatenate[Any, Q], T], instance: object, owner: type | None = ...
    ) -> SyncFunction[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        bind: Any = getattr(type(self.asyn), "__get__", None)
        if bind is None:
            return self
        bound = bind(self.asyn, instance, owner)
        return self if bound is self.asyn else self._bound(bound)

    def _bound(self, asyn: Callable[..., Any]) -> SyncFunction[..., Any]:
        return SyncFunction(asyn, self._fallback)

    def __repr__(self) -> str:
        return f"fiberback.sync({self.asyn!r})"


@overload
def sync(awaitable: Awaitable[T], /, *, fallback: Literal["raise", "thread"] = ...) -> T: ...
@overload
def sync(
    async_fn: Callable[P, Awaitable[T]], /, *, fallback: Literal["raise", "thread"] = ...
) -> SyncFunction[P, T]: ...
@overload
def sync(async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs) -> T: ...
@overload
def sync(
    *, fallback: Literal["raise", "thread"] = ...
) -> Callable[[Callable[P, Awaitable[T]]], SyncFunction[P, T]]: ...
def sync(  # type: ignore[misc]  # `fallback` is taken out of the function's own keywords
    *target: Any, fallback: Literal["raise", "thread"] = "raise", **kwds: Any
) -> Any:
    """Call async code from sync code, wherever that is: for authors of libraries.

    `sync(awaitable)` and `sync(async_fn, *args, **kwds)` wait for the result. `sync(async_fn)` makes a
    sync function of it, also as a decorator, `@sync` or `@sync(fallback="thread")`, on functions and
    methods (outside of `@classmethod` and `@staticmethod`); `.asyn` of it is the async function::

        class Client:
            @fiberback.sync
            async def get(self, url): ...

        Client().get(url)               # from sync code
        await Client().get.asyn(url)    # from async code

    Nothing is patched, and no loop is made where one is to be found: on a portal the task is suspended,
    on a stock asyncio loop the caller is parked, in a worker thread the loop that the thread works for
    runs it, and where there is no loop, the thread's own runner (see `await_`).

    Where none of these can be (in a task of uvloop's without a portal, say), `fallback="raise"` raises
    what `await_` does, RuntimeError with the line to type.
    `fallback="thread"` blocks the thread, and with it its loop, while the loop of a helper thread runs the
    awaitable, in the caller's context. All that one task has run there runs in one task, so a client that
    holds a task group works from one call to the next. Ctrl-C cancels it. The helper thread is started when
    it is first needed, and ends with the process. What belongs to the blocked loop, tasks and futures, cannot
    be waited for so, nor can anything in a `no_await` region or under Trio, whose code runs on no other
    loop: there RuntimeError is raised as well.

    Raises TypeError for what is neither awaitable nor callable, ValueError for another `fallback`.
    """
    if fallback not in ("raise", "thread"):
        raise ValueError(_messages.SYNC_FALLBACK.format(value=fallback))
    if not target and not kwds:
        return functools.partial(sync, fallback=fallback)
    what: Any
    what, *args = target or (None,)
    if isinstance(what, (classmethod, staticmethod)) and not (args or kwds):
        unbound: Any = what  # `SyncFunction` binds it
        return SyncFunction(unbound, fallback)
    if inspect.isawaitable(what):
        if not (args or kwds):
            return wait(what, fallback)
    elif callable(what):
        if args or kwds:
            return wait(what(*args, **kwds), fallback)
        return SyncFunction(what, fallback)
    return _not_awaitable(what)


def _not_awaitable(what: Any) -> Any:
    if inspect.iscoroutine(what):
        what.close()
    raise TypeError(_messages.SYNC_WHAT.format(value=what))


def wait(awaitable: Any, fallback: Literal["raise", "thread"]) -> Any:
    """The result of `awaitable`, wherever this is; `fallback` as `sync` has it."""
    if fallback == "raise" or not inspect.isawaitable(awaitable):
        return await_(awaitable)
    attempt = Attempt(awaitable)
    try:
        return await_(attempt)
    except RuntimeError:
        if attempt.is_begun:
            raise
        try:
            no_await.check(attempt)
            if caller.belongs_here(awaitable):
                raise
        except RuntimeError:
            attempt.close()
            raise
    return caller.block(_HELPER.loop, awaitable)


# The process's; it begins when it is first needed.
_HELPER = LoopThread(name="fiberback.sync")


def _at_exit() -> None:
    after_all_handlers(_at_exit, _HELPER.close)


atexit.register(_at_exit)
