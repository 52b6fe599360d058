"""An event that any thread may set, and the code of any loop may wait for.

Native extensions get one through the C API (`include/fiberback.h`): what they wait for happens
outside Python.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from .library import is_trio_in_charge


class ExternalEvent:
    """Set once, by whatever thread; `wait()` returns after that. It has no loop of its own."""

    __slots__ = ("_is_set", "_wakers")

    def __init__(self) -> None:
        self._is_set = False
        # Appended to and popped from in one step each: whoever takes a waker calls it. No lock, as
        # `set` may be called by a finalizer, at any time.
        self._wakers: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self._is_set else 'unset'}>"

    def set(self) -> None:
        """Wake who waits, and have who will wait return. From any thread, any number of times."""
        self._is_set = True
        while True:
            try:
                wake = self._wakers.pop()
            except IndexError:
                return
            wake()

    async def wait(self) -> None:
        """Return when the event is set; the loop has had a turn then in any case.

        Cancelled as the loop's own waits are.
        """
        if is_trio_in_charge():
            await self._wait_on_trio()
        elif self._is_set:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            await self._wait(future, partial(_call_soon, loop, partial(_finish, future)))

    async def _wait_on_trio(self) -> None:
        import trio

        if self._is_set:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()
        await self._wait(event.wait(), partial(_run_sync_soon, token, event.set))

    async def _wait(self, awaitable: Any, wake: Callable[[], object]) -> None:
        self._wakers.append(wake)
        if self._is_set:
            self.set()
        try:
            await awaitable
        finally:
            with contextlib.suppress(ValueError):  # it was called, or is about to be
                self._wakers.remove(wake)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        # The loop was closed: nobody waits there any more.
        if not loop.is_closed():
            raise


def _run_sync_soon(token: Any, function: Callable[[], object]) -> None:
    import trio

    try:
        token.run_sync_soon(function)
    except trio.RunFinishedError:
        pass
