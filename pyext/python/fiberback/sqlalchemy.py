"""Serves SQLAlchemy: its asyncio dialects under ordinary, synchronous SQLAlchemy code.

After `install()`, plain `create_engine("postgresql+asyncpg://…")` (or `psycopg_async`, `aiosqlite`,
`asyncmy`, …) with `Session`, relationships, lazy loading and events works wherever `await_` does,
and the event loop goes on meanwhile::

    import fiberback, fiberback.sqlalchemy
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    fiberback.sqlalchemy.install()
    engine = create_engine("postgresql+asyncpg://…")

    def handle(user_id):                     # plain sync code
        with Session(engine) as session:
            user = session.get(User, user_id)
            return [order.total for order in user.orders]      # a lazy load

    async def main():
        async with asyncio.TaskGroup() as group:
            for user_id in range(50):        # 50 at once, in one thread
                group.create_task(fiberback.with_portal_run_sync(handle, user_id))

`AsyncEngine` and `AsyncSession` work as before, and attributes of their objects load where they are
touched: there is no `MissingGreenlet`. The greenlet package is neither used nor needed.

How: all of SQLAlchemy's waiting goes through two things that it takes from the greenlet package,
`getcurrent` and a subclass of `greenlet`; these two are replaced. SQLAlchemy 2.0 and 2.1.

An engine's connections belong to the event loop in which they were made: call `engine.dispose()`
there before another loop uses the engine, as with `AsyncEngine`. A program that uses it before its
loop starts does so on the thread's own loop, which is another one.

`scoped_session` has one session for each thread unless told otherwise, and tasks share a thread:
give it `scopefunc=asyncio.current_task`, and call `remove()` at the end of the task.

Cancellation reaches the query that waits, as with `AsyncSession`; the connection is then
invalidated or rolled back before the pool hands it out again.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator
from typing import Any

from . import _extras, _messages
from ._await.can_await import can_await
from ._fiberback import Portal, await_
from ._loop.current_task import current_task
from ._portal.call_portal import call, through

__all__ = ["install", "uninstall"]


def install() -> _Installation:
    """Let SQLAlchemy wait through `fiberback.await_` from now on, in the whole process.

    Calling it again changes nothing. `uninstall()` takes it back, however often it was called. The
    result may be used as a context manager instead, and then stands for itself: it is in force
    until the end of the block at least, whatever is installed and uninstalled within, and leaves
    alone what was installed before.

    Engines may have been made before. Raises ImportError where SQLAlchemy is not installed or is
    neither 2.0 nor 2.1.
    """
    with _lock:
        first = not _state.permanent
        _state.permanent = True
        try:
            _apply()
        except BaseException:
            _state.permanent = not first
            raise
    return _Installation(first)


def uninstall() -> None:
    """Give SQLAlchemy its own way of waiting back; without effect where `install` is not in force.

    Calls that wait at this moment end as they would have.
    """
    with _lock:
        _state.permanent = False
        _apply()


class _Installation:
    """What `install` returns, for `with`."""

    def __init__(self, first: bool) -> None:
        self._first = first

    def __enter__(self) -> None:
        with _lock:
            if self._first:
                self._first = _state.permanent = False
            _state.blocks += 1
            _apply()

    def __exit__(self, *exc: object) -> None:
        with _lock:
            _state.blocks -= 1
            _apply()


class _State:
    permanent = False
    blocks = 0
    undo: list[Callable[[], None]] | None = None


_state = _State()
_lock = threading.RLock()


def _apply() -> None:
    wanted = _state.permanent or _state.blocks > 0
    if wanted and _state.undo is None:
        _state.undo = []
        try:
            _replace()
        except BaseException:
            _put_back()
            raise
    elif not wanted and _state.undo is not None:
        _put_back()


def _put_back() -> None:
    undo, _state.undo = _state.undo, None
    for step in reversed(undo or []):
        step()


_MISSING: Any = object()


def _set(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute, to be put back by `_put_back`."""
    if isinstance(owner, type | types.ModuleType):
        old = vars(owner).get(name, _MISSING)
    else:  # the shim, whose `__getattr__` is not to be asked
        try:
            old = object.__getattribute__(owner, name)
        except AttributeError:
            old = _MISSING
    assert _state.undo is not None
    if old is _MISSING:
        _state.undo.append(lambda: delattr(owner, name))
    else:
        _state.undo.append(lambda: setattr(owner, name, old))
    setattr(owner, name, value)


# ---- what replaces greenlet -----------------------------------------------------------------------

# How often SQLAlchemy's `await_` was called: how `_Call` knows that it was.
_waits = 0


class _Anywhere:
    """The current greenlet, wherever one asks: its parent is always ready to wait for something."""

    __sqlalchemy_greenlet_provider__ = True
    gr_context = None  # fibers follow the context of the task that resumes them
    dead = False

    class parent:
        switch = await_


_anywhere = _Anywhere()


def _getcurrent() -> _Anywhere:
    global _waits
    _waits += 1
    return _anywhere


class _Call:
    """A greenlet as `greenlet_spawn` uses it: a call of `fn` on a fiber of its own.

    `switch` and `throw` run it to its next suspension and return something to wait for; what that
    wait results in is then switched or thrown in. At the end `dead` is set, and they return what
    `fn` does.
    """

    __sqlalchemy_greenlet_provider__ = True
    dead = False

    def __init__(self, fn: Callable[..., Any], driver: Any) -> None:
        self._fn = fn
        self._coro: Any = None
        self._over = False

    def switch(self, *args: Any, **kwds: Any) -> Any:
        if self._coro is None:
            self._coro = through(Portal(call(self._fn, args, kwds)), current_task())
            before = _waits
            outcome = self._step(self._coro.send, None)
            # It did wait, for things that were there: `greenlet_spawn` wants to see that.
            wait = self._over and before != _waits
        else:
            (outcome,) = args
            wait = False
            if not self._over:
                outcome = self._step(self._coro.send, outcome)
        if wait:
            return _Ready(outcome)
        self.dead = self._over
        return outcome

    def throw(self, *exc: Any) -> Any:
        error = exc[1] if len(exc) > 1 and exc[1] is not None else exc[0]
        if self._over or self._coro is None:
            self._over = self.dead = True
            raise error
        # Not here: the caller is handling `error`, which would become the context of whatever
        # `fn` raises from now on. It has done with it when it waits.
        return _Throw(self, error)

    def _step(self, step: Callable[[Any], Any], value: Any) -> Any:
        try:
            return _Request(step(value))
        except StopIteration as end:
            self._over = True
            return end.value
        except BaseException:
            self._over = self.dead = True
            raise


class _Request:
    """Hands what a fiber wants from the event loop on to it."""

    __slots__ = ("request",)

    def __init__(self, request: Any) -> None:
        self.request = request

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.request)


class _Ready:
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value
        yield


class _Throw:
    __slots__ = ("_call", "_error")

    def __init__(self, call: _Call, error: BaseException) -> None:
        self._call = call
        self._error = error

    def __await__(self) -> Generator[Any, Any, Any]:
        outcome = self._call._step(self._call._coro.throw, self._error)
        if self._call._over:
            return outcome
        return (yield outcome.request)


# ---- where it goes --------------------------------------------------------------------------------


def _replace() -> None:
    _extras.need(__name__, "sqlalchemy", "sqlalchemy")
    concurrency: Any = importlib.import_module("sqlalchemy.util.concurrency")
    version = importlib.import_module("sqlalchemy").__version__
    if hasattr(concurrency, "_concurrency_shim"):
        _replace_2_1(concurrency)
    elif hasattr(concurrency, "have_greenlet"):
        _replace_2_0(concurrency)
    else:
        raise ImportError(_messages.UNKNOWN_SQLALCHEMY.format(version=version))
    _replace_in_cleanup()


def _replace_2_1(concurrency: Any) -> None:
    shim = concurrency._concurrency_shim
    _set(shim, "getcurrent", _getcurrent)
    _set(shim, "greenlet", _Call)
    _set(shim, "_AsyncIoGreenlet", _Call)
    _set(shim, "_has_greenlet", True)
    # The shim fills itself from the greenlet package, unless this is there.
    if "greenlet" not in vars(concurrency):
        _set(concurrency, "greenlet", _Call)


# What SQLAlchemy 2.0's `util.concurrency` offers depends on whether greenlet was there at import.
_NAMES = (
    "await_only",
    "await_fallback",
    "in_greenlet",
    "greenlet_spawn",
    "is_exit_exception",
    "AsyncAdaptedLock",
)


def _replace_2_0(concurrency: Any) -> None:
    if concurrency.have_greenlet:
        real = importlib.import_module("sqlalchemy.util._concurrency_py3k")
    else:
        real = _import_without_greenlet()
        _replace_stubs(concurrency, real)
    _set(real, "getcurrent", _getcurrent)
    _set(real, "_AsyncIoGreenlet", _Call)


def _import_without_greenlet() -> Any:
    """The module with the functions that work, though it imports greenlet."""

    def getcurrent() -> Any:  # after `uninstall`
        raise ValueError("the greenlet library is required to use this function.")

    getcurrent.gr_context = None  # type: ignore[attr-defined]
    stand_in: Any = types.ModuleType("greenlet")
    stand_in.getcurrent = lambda: getcurrent
    stand_in.greenlet = _Call
    assert "greenlet" not in sys.modules or sys.modules["greenlet"] is None
    before = sys.modules.get("greenlet", _MISSING)
    sys.modules["greenlet"] = stand_in
    try:
        real: Any = importlib.import_module("sqlalchemy.util._concurrency_py3k")
    finally:
        if before is _MISSING:
            del sys.modules["greenlet"]
        else:
            sys.modules["greenlet"] = before
    if real.getcurrent is stand_in.getcurrent:
        real.getcurrent = getcurrent
    return real


def _replace_stubs(concurrency: Any, real: Any) -> None:
    """Replaces the stubs in all modules and classes that have bound them."""
    stubs = {name: getattr(concurrency, name) for name in _NAMES}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "sqlalchemy" or module is real:
            continue
        for name, stub in stubs.items():
            if vars(module).get(name) is stub:
                _set(module, name, getattr(real, name))
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module_name:
                waiter = vars(value).get("await_")
                name = getattr(getattr(waiter, "__func__", None), "__name__", "")
                if isinstance(waiter, staticmethod) and stubs.get(name) is waiter.__func__:
                    _set(value, "await_", staticmethod(getattr(real, name)))
    _set(concurrency, "have_greenlet", True)
    _set(concurrency, "_Runner", asyncio.Runner)


# ---- connections that the garbage collector finds ----------------------------------------------------


class _Collecting(threading.local):
    now = False


_collecting = _Collecting()


def _replace_in_cleanup() -> None:
    """Never waits where one must not: in destructors.

    SQLAlchemy says goodbye to the server where it may wait, and otherwise just closes the socket.
    It takes "in a greenlet" for "may wait", which now is true everywhere; also where the garbage
    collector ends a connection that was never given back, in the middle of anything. A
    cancellation delivered there would be lost.
    """
    base: Any = importlib.import_module("sqlalchemy.pool.base")
    connectors: Any = importlib.import_module("sqlalchemy.connectors.asyncio")
    finalize = base._finalize_fairy

    def _finalize_fairy(*args: Any, **kwds: Any) -> None:
        # 2.1 says so; 2.0 passes the weak reference that called back.
        collects = kwds.get("is_gc_cleanup") or (len(args) > 3 and type(args[3]) is weakref.ref)
        outer = _collecting.now
        _collecting.now = bool(collects) or outer
        try:
            finalize(*args, **kwds)
        finally:
            _collecting.now = outer

    def _terminate(self: Any) -> None:
        if _collecting.now or not can_await():
            self._terminate_force_close()
        else:
            await_(_say_goodbye(self))

    _set(base, "_finalize_fairy", _finalize_fairy)
    _set(connectors.AsyncAdapt_terminate, "terminate", _terminate)


async def _say_goodbye(connection: Any) -> None:
    # SQLAlchemy's own makes a task of it before it waits, which takes a running loop: not where a
    # thread waits for another one's.
    try:
        await asyncio.shield(connection._terminate_graceful_close())
    except connection._terminate_handled_exceptions() as error:
        connection._terminate_force_close()
        if isinstance(error, asyncio.CancelledError):
            raise
