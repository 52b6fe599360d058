"""`await_` in a greenlet that was started inside the portal.

greenlet keeps, for each thread, the greenlet that is current; a fiber suspended while another
than its own is current would leave that wrong for everybody else on the thread. So the awaitable
is stepped here, in the foreign greenlet, and whatever it yields must leave the portal from the
greenlet that the portal's step began in. Three cases:

- SQLAlchemy's `greenlet_spawn` waits in the parent greenlet for awaitables: hand it over.
- The portal runs its coroutine through a `BaseGreenlet`, which waits for such yields: switch to
  it. The greenback drop-in makes its portals so, because greenback allows `await_` anywhere.
- Otherwise nobody waits: an awaitable that needs no suspension works, another is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any

from .. import _messages, _modules
from .._fiberback import current_portal

# id(portal) → the greenlet that forwards its yields, while a step of that portal runs.
_bases: dict[int, Any] = {}


def is_loaded() -> bool:
    return _modules.is_loaded("greenlet")


def await_in_foreign_greenlet(awaitable: Any, current: Any) -> Any:
    if getattr(current, "__sqlalchemy_greenlet_provider__", False):
        return current.parent.switch(awaitable)
    key = id(current_portal())
    coro = awaitable if isinstance(awaitable, Coroutine) else _as_coroutine(awaitable)
    thrown = False
    value: Any = None
    while True:
        try:
            request = coro.throw(value) if thrown else coro.send(value)
        except StopIteration as stop:
            return stop.value
        base = _bases.get(key)
        if base is None:
            thrown, value = True, RuntimeError(_messages.FOREIGN_GREENLET)
        else:
            thrown, value = base.switch(request, current)


class BaseGreenlet:
    """Steps a coroutine in a greenlet of its own; the stepping greenlet waits for all yields."""

    def __init__(self, coro: Any) -> None:
        import greenlet

        self._coro = coro
        self._getcurrent = greenlet.getcurrent
        self._runner: Any = greenlet.greenlet(self._run)
        self._target = self._runner
        self._context: Any = None
        self.__name__ = getattr(coro, "__name__", type(coro).__name__)
        self.__qualname__ = getattr(coro, "__qualname__", type(coro).__qualname__)

    def _run(self, thrown: bool, value: Any) -> Any:
        coro, key = self._coro, id(current_portal())
        while True:
            try:
                request = coro.throw(value) if thrown else coro.send(value)
            except StopIteration as stop:
                return _Finished(stop.value)
            thrown, value = _bases[key].switch(request, self._runner)

    def _step(self, thrown: bool, value: Any) -> Any:
        base, key = self._getcurrent(), id(current_portal())
        outer = _bases.get(key)
        _bases[key] = base
        # Greenlets have a contextvars context each; the runner follows the task's, unless it is
        # inside a Context.run() of its own.
        if self._runner.gr_context is self._context:
            self._runner.gr_context = self._context = base.gr_context
        # Where the runner goes when it ends: not to the greenlet that made it, which may be another
        # task's by now.
        self._runner.parent = base
        try:
            reply = self._target.switch(thrown, value)
        finally:
            if outer is None:
                del _bases[key]
            else:
                _bases[key] = outer
        if type(reply) is _Finished:
            raise StopIteration(reply.value)
        request, self._target = reply
        return request

    def send(self, value: Any) -> Any:
        return self._step(False, value)

    def throw(self, *exc: Any) -> Any:
        error = exc[0] if len(exc) == 1 else exc[1]
        if isinstance(error, type):
            error = error()
        return self._step(True, error)

    def close(self) -> None:
        if not self._runner:  # not begun, or finished
            self._coro.close()
            return
        try:
            self._step(True, GeneratorExit())
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError("coroutine ignored GeneratorExit")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cr_"):  # for those who inspect suspended coroutines
            return getattr(self._coro, name)
        raise AttributeError(name)


class _Finished:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def without_our_frames(tb: TracebackType | None) -> TracebackType | None:
    """The part of an `await_` traceback that is the user's, or None where there is no such part.

    `tb` begins at the frame that called the native `await_`; that entry and this file's are cut.
    """
    own = tb.tb_next if tb is not None else None
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next
    return own
