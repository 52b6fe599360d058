"""Celery's own waits in tasks: `result.get()`, the pauses between retries of backends and of publishing.

They are `time.sleep` in loops, or a backend's `drain_events`, or kombu's pools of connections, of which those that are
in such a pause have all. On the pool's loop the caller is suspended instead; other threads wait as ever.
"""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import celery.backends.asynchronous
import celery.backends.base
import kombu.resource
import kombu.utils.functional

from .._await.can_await import can_await
from .._blocking.poller import Wait
from .._blocking.waiter import here
from .._fiberback import await_
from .._replacements import Replacement

_POLL = 0.01  # seconds between two looks for results, for all that wait for a backend together
_MOST = 0.5  # seconds between two looks for a connection, of many that may wait for one


def _sleep(seconds: float) -> None:
    caller = here()
    if caller is None:
        time.sleep(seconds)
    else:
        caller.wait(seconds)


class _Time:
    """The module `time` for a module that sleeps."""

    def sleep(self, seconds: float) -> None:
        _sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _acquire(original: Callable[..., Any]) -> Callable[..., Any]:
    def acquire(self: Any, block: bool = False, timeout: float | None = None) -> Any:
        caller = here() if block and self.limit else None
        if caller is None:
            return original(self, block, timeout)

        def is_there() -> bool:
            return bool(self._resource.qsize() or self._closed)

        if not Wait(caller, timeout).until(is_there, _POLL, _MOST):
            return original(self)  # which raises what it does then
        return original(self, block, timeout)

    return acquire


# The look that one caller is at, on behalf of all that wait for the same consumer.
_looks: WeakKeyDictionary[Any, asyncio.Future[None]] = WeakKeyDictionary()


async def _look(consumer: Any, wait: Callable[..., Any], limit: float) -> None:
    loop = asyncio.get_running_loop()
    others = _looks.get(consumer)
    if others is not None and others.get_loop() is loop and not others.done():
        await asyncio.wait([others], timeout=limit)
        return
    mine = _looks[consumer] = loop.create_future()
    try:
        await asyncio.sleep(min(_POLL, limit))
        try:
            wait(timeout=0)
        except TimeoutError:
            pass
    finally:
        mine.set_result(None)


def _wait_for(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait_for(self: Any, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> None:
        if _get_running_loop() is None or not can_await():
            original(self, p, wait, timeout=timeout)
        elif not p.ready:
            await_(_look(self.result_consumer, wait, 1.0 if timeout is None else timeout))

    return wait_for


class Waits:
    """Puts them in place, until `undo()`."""

    def __init__(self) -> None:
        drainer, pool = celery.backends.asynchronous.Drainer, kombu.resource.Resource
        self._replacements = [
            Replacement(drainer, "wait_for", _wait_for(drainer.wait_for)),
            Replacement(celery.backends.base, "time", _Time()),
            Replacement(kombu.utils.functional, "sleep", _sleep),
            Replacement(pool, "acquire", _acquire(pool.acquire)),
        ]
        # redis-py tries to connect several times, for up to some seconds, while its server restarts.
        retry = sys.modules.get("redis.retry")
        if retry is not None and vars(retry).get("sleep") is time.sleep:
            self._replacements.append(Replacement(retry, "sleep", _sleep))
        for each in self._replacements:
            each.put()

    def undo(self) -> None:
        for each in reversed(self._replacements):
            each.undo()
        self._replacements.clear()
