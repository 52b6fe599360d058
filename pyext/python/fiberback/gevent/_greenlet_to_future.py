"""Tasks that wait for greenlets."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
from asyncio import Future
from collections.abc import Callable
from typing import Any

from gevent import Greenlet, GreenletExit

from ._hub import drive


def greenlet_to_future(
    greenlet: Greenlet,
    autocancel_future: bool = True,
    autostart_greenlet: bool = True,
    autokill_greenlet: bool = True,
) -> Future[Any]:
    """A future of what a greenlet returns or raises.

    The greenlet is started, if it is not, unless `autostart_greenlet` is false. If it is killed, the future is
    cancelled, or has the GreenletExit as its result if `autocancel_future` is false. If the future is cancelled,
    the greenlet is killed, unless `autokill_greenlet` is false.
    """
    return asyncio.ensure_future(
        _wait_for_greenlet(greenlet, autocancel_future, autostart_greenlet, autokill_greenlet)
    )


async def _wait_for_greenlet(
    greenlet: Greenlet, autocancel: bool, autostart: bool, autokill: bool
) -> Any:
    event_loop = asyncio.get_running_loop()
    drive(event_loop)
    if autostart and not greenlet and not greenlet.dead:
        greenlet.start()
    ended = event_loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    greenlet.link(lambda _: event_loop.call_soon_threadsafe(settle))
    try:
        await ended
    except asyncio.CancelledError:
        if autokill:
            greenlet.kill(block=False)
        raise
    result = greenlet.get(block=False)
    if autocancel and isinstance(result, GreenletExit):
        raise asyncio.CancelledError
    return result


def sync_to_async(
    fn: Callable[..., Any] | None = None,
    autocancel_future: bool = True,
    autostart_greenlet: bool = True,
    autokill_greenlet: bool = True,
) -> Any:
    """An async function that calls `fn` in a greenlet of gevent's. Also a decorator with arguments."""
    named: dict[str, Any] = {
        "autocancel_future": autocancel_future,
        "autostart_greenlet": autostart_greenlet,
        "autokill_greenlet": autokill_greenlet,
    }
    if fn is None:
        return functools.partial(sync_to_async, **named)

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await greenlet_to_future(Greenlet(fn, *args, **kwargs), **named)

    return call
