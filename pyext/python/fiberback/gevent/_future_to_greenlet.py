"""Greenlets that wait for tasks and futures."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
from asyncio import AbstractEventLoop, Future, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import gevent.event
from gevent import Greenlet, GreenletExit

from .. import _messages
from ._event_loop import EventLoop
from ._hub import drive
from ._ways import nothing


def future_to_greenlet(
    future: Awaitable[Any],
    loop: AbstractEventLoop | None = None,
    autostart_future: bool = True,
    autocancel_future: bool = True,
    autokill_greenlet: bool = True,
) -> Greenlet:
    """A greenlet of gevent's, not started, that returns or raises what a future (or coroutine) does.

    A coroutine runs in `loop`, in the running loop, or in an `EventLoop` made for it. If the greenlet is killed, the
    future is cancelled, unless `autocancel_future` is false. If the future is cancelled, the greenlet ends with a
    GreenletExit, or with CancelledError if `autokill_greenlet` is false. With `autostart_future` false, `future` must
    be a future.
    """

    def wait() -> Any:
        try:
            return _result_of(future, loop)
        except asyncio.CancelledError:
            if autokill_greenlet:
                raise GreenletExit from None
            raise
        except GreenletExit:
            if autocancel_future:
                _cancel(future)
            raise

    if not autostart_future and not asyncio.isfuture(future):
        raise TypeError(_messages.GEVENT_NO_FUTURE)
    greenlet = Greenlet(wait)
    if autocancel_future:
        # One that is killed before it begins.
        greenlet.link_value(lambda it: _cancel(future, isinstance(it.value, GreenletExit)))
    return greenlet


def _cancel(future: Any, is_killed: bool = True) -> None:
    if not is_killed:
        return
    if asyncio.isfuture(future):
        if not future.done():
            future.get_loop().call_soon_threadsafe(future.cancel)
    elif asyncio.iscoroutine(future):
        future.close()


def _result_of(awaitable: Awaitable[Any], loop: AbstractEventLoop | None) -> Any:
    """Waits in a greenlet of gevent's."""
    if loop is None:
        loop = awaitable.get_loop() if isinstance(awaitable, Future) else _get_running_loop()
    if loop is None or not loop.is_running():
        event_loop = EventLoop() if loop is None else loop
        try:
            return event_loop.run_until_complete(awaitable)
        finally:
            if loop is None:
                event_loop.close()
    drive(loop)
    future = asyncio.ensure_future(awaitable, loop=loop)
    ended = gevent.event.Event()
    future.add_done_callback(lambda _: ended.set())
    loop.call_soon_threadsafe(nothing)  # it may wait by now
    try:
        ended.wait()
    except GreenletExit:
        _cancel(future)
        raise
    return future.result()


def async_to_sync(
    coroutine: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    autostart_future: bool = True,
    autocancel_future: bool = True,
    autokill_greenlet: bool = True,
) -> Any:
    """A function that runs an async function and has the calling greenlet wait. Also a decorator with arguments."""
    named: dict[str, Any] = {
        "autostart_future": autostart_future,
        "autocancel_future": autocancel_future,
        "autokill_greenlet": autokill_greenlet,
    }
    if coroutine is None:
        return functools.partial(async_to_sync, **named)

    @functools.wraps(coroutine)
    def call(*args: Any, **kwargs: Any) -> Any:
        greenlet = future_to_greenlet(coroutine(*args, **kwargs), **named)
        greenlet.start()
        return greenlet.get()

    return call
