"""Threads that work for a Trio run.

A thread of `trio.to_thread.run_sync` awaits in the task that awaits the thread: Trio does that. For any
other thread Trio would start a system task for each thing that is awaited; it gets one for all of them.
"""

from __future__ import annotations

import contextvars
import functools
import queue
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from .. import _messages
from .._fiberback import lend_context
from .._portal import call_portal
from . import contexts, generators

# Seconds between two looks whether the run ends.
_LOOK = 0.05


class Worker:
    """The thread that this is called in is one of `trio.to_thread.run_sync`."""

    def wait(self, awaitable: Any) -> Any:
        return lend_context(functools.partial(self._wait, awaitable))

    def _wait(self, awaitable: Any, context: contextvars.Context) -> Any:
        import trio

        request = _Request(awaitable, context)
        try:
            return trio.from_thread.run(request.run)
        finally:
            request.discard()


class Channel:
    """Of a thread that was told to work for the Trio run of `token`."""

    def __init__(self, token: Any) -> None:
        self._token = token
        self._requests: deque[Callable[[], Any]] = deque()
        self._wakeup: Any = None
        self._is_served = False
        self._finished = False

    # In the thread.

    def wait(self, awaitable: Any) -> Any:
        return lend_context(functools.partial(self._wait, awaitable))

    def _wait(self, awaitable: Any, context: contextvars.Context) -> Any:
        import trio

        request = _Request(awaitable, context)
        answers: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        try:
            self._token.run_sync_soon(self._deliver, request, answers.put)
            return answers.get()()
        except trio.RunFinishedError:
            raise RuntimeError(_messages.LOOP_CLOSED) from None
        finally:
            request.discard()

    def close(self) -> None:
        import trio

        try:
            self._token.run_sync_soon(self._finish)
        except trio.RunFinishedError:
            pass

    # In the thread of the Trio run.

    def _deliver(self, request: _Request, answer: Callable[[Callable[[], Any]], None]) -> None:
        import trio

        self._requests.append(functools.partial(self._answer, request, answer))
        if not self._is_served:
            try:
                trio.lowlevel.spawn_system_task(
                    self._serve,
                    name="fiberback.await_() in a thread",
                    context=contextvars.Context(),
                )
            except RuntimeError:  # the run ends, and takes no more system tasks
                self._requests.pop()
                answer(functools.partial(_raise, RuntimeError(_messages.LOOP_CLOSED)))
                return
            self._is_served = True
        self._wake()

    async def _answer(self, request: _Request, answer: Callable[[Callable[[], Any]], None]) -> None:
        import trio

        try:
            result = await request.run()
        except BaseException as error:
            answer(functools.partial(_raise, contexts.without_our_frames(error)))
            if not isinstance(error, (Exception, trio.Cancelled)):
                raise  # KeyboardInterrupt: it was meant for the run, not for this thread alone
        else:
            answer(lambda: result)

    async def _serve(self) -> None:
        import trio

        nursery: Any = trio.lowlevel.current_task().parent_nursery
        run = nursery.cancel_scope
        try:
            while True:
                while self._requests:
                    await self._requests.popleft()()
                if self._finished or run.cancel_called:
                    break
                self._wakeup = trio.Event()
                # A scope that the thread has entered and not left may be cancelled: it is to leave
                # it in this task. The end of the run must not wait for the thread.
                try:
                    await self._wakeup.wait()
                except trio.Cancelled:
                    with trio.CancelScope(shield=True), trio.move_on_after(_LOOK):
                        await self._wakeup.wait()
        finally:
            self._is_served = False

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()

    def _finish(self) -> None:
        self._finished = True
        self._wake()


class _Request:
    def __init__(self, awaitable: Any, context: contextvars.Context) -> None:
        self._awaitable = awaitable
        self._context = context
        self._generators = generators.begun(awaitable)
        self._begun = False

    async def run(self) -> Any:
        self._begun = True
        generators.adopt(self._generators)
        self._generators = []
        coro = call_portal.with_portal_run(call_portal.as_coroutine, self._awaitable)
        return await contexts.InContext(coro, self._context)

    def discard(self) -> None:
        """Nobody waits any more."""
        if not self._begun and hasattr(self._awaitable, "close"):
            self._awaitable.close()
        self._awaitable = None


def _raise(error: BaseException) -> Any:
    try:
        raise error
    finally:
        del error


def is_worker() -> bool:
    threads: Any = getattr(sys.modules.get("trio"), "_threads", None)
    return hasattr(getattr(threads, "PARENT_TASK_DATA", None), "token")
