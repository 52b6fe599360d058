"""One wait of one caller: until it is woken, by whatever thread, or for a time.

Whether a caller may wait here at all is asked last: by then an operation that does not block has been tried, and a
call outside every loop has gone to the original function.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import _get_running_loop, tasks
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeAlias

from .._await.can_await import can_await
from .._await.no_await import forbids
from .._fiberback import await_
from .._loop.library import is_trio_in_charge, is_trio_running
from .scope import is_on

# Seconds: libuv takes no more, and nobody waits for three years.
_LONGEST = 1e8


class _OnAsyncio:
    __slots__ = ("_future", "_thread", "is_woken", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Any = loop
        self._future = loop.create_future()
        self._thread = get_ident()
        self.is_woken = False

    def wake(self) -> bool:
        """From any thread, any number of times. False if its loop is closed: nobody waits there any more."""
        # The handler of a signal is run in the loop's thread, too, while the loop itself may be waiting.
        if get_ident() == self._thread and tasks.current_task(self.loop) is not None:
            self.wake_in_loop()
            return True
        self.is_woken = True
        try:
            self.loop.call_soon_threadsafe(_finish, self._future)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            return False
        return True

    def wake_in_loop(self) -> None:
        """From code that the loop runs."""
        self.is_woken = True
        _finish(self._future)

    def wait(self, seconds: float | None) -> bool:
        """Whether it was woken before `seconds` had passed."""
        if seconds is None:
            await_(self._future)
        else:
            handle = self.loop.call_later(min(seconds, _LONGEST), _finish, self._future)
            try:
                await_(self._future)
            finally:
                handle.cancel()
        return self.is_woken

    def in_next_turn(self, function: Callable[[], object]) -> None:
        """Have the loop call it."""
        self.loop.call_soon(function)

    async def woken(self) -> None:
        """`wait` for async code."""
        await self._future

    def is_cancelled(self) -> bool:
        """Whether the caller is to end, and only cleans up."""
        task: Any = tasks.current_task(self.loop)
        return task is not None and task.cancelling() > 0

    def wait_shielded(self) -> BaseException | None:
        """Until it is woken. If it is cancelled meanwhile, that is returned, to be raised by the caller."""
        cancelled: BaseException | None = None
        while not self._future.done():
            try:
                await_(asyncio.shield(self._future))
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _OnTrio:
    __slots__ = ("_event", "_thread", "is_woken", "loop")

    def __init__(self) -> None:
        import trio

        self.loop: Any = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._thread = get_ident()
        self.is_woken = False

    def wake(self) -> bool:
        if get_ident() == self._thread and self._is_in_task():
            self.wake_in_loop()
            return True
        import trio

        self.is_woken = True
        try:
            self.loop.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return False
        return True

    def wake_in_loop(self) -> None:
        self.is_woken = True
        self._event.set()

    def _is_in_task(self) -> bool:
        """Whether a task of this run is what runs."""
        import trio

        try:
            trio.lowlevel.current_task()
            return trio.lowlevel.current_trio_token() is self.loop
        except RuntimeError:
            return False

    def wait(self, seconds: float | None) -> bool:
        await_(self._wait(seconds))
        return self.is_woken

    def in_next_turn(self, function: Callable[[], object]) -> None:
        self.loop.run_sync_soon(function)

    async def woken(self) -> None:
        await self._event.wait()

    def is_cancelled(self) -> bool:
        import trio

        return bool(trio.current_effective_deadline() == -math.inf)

    def wait_shielded(self) -> BaseException | None:
        await_(self._wait_shielded())
        return None

    async def _wait_shielded(self) -> None:
        import trio

        with trio.CancelScope(shield=True):
            await self._event.wait()

    async def _wait(self, seconds: float | None) -> None:
        import trio

        with trio.move_on_after(_LONGEST if seconds is None else min(seconds, _LONGEST)):
            await self._event.wait()


Waiter: TypeAlias = _OnAsyncio | _OnTrio


def waiter_for(switch: str) -> Waiter | None:
    """One for the caller, who would block now; None if it must, for it cannot wait here or is not to."""
    return here() if is_on(switch) else None


def here() -> Waiter | None:
    """One for a caller whom no switch concerns."""
    return None if forbids() or not can_await() else again()


def again() -> Waiter | None:
    """The next one of a caller who has had one."""
    if is_trio_in_charge():
        return _OnTrio()
    loop = _get_running_loop()
    if loop is None or is_trio_running():  # some other library, of which we know nothing
        return None
    return _OnAsyncio(loop)
