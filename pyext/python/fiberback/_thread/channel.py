"""The channel from a worker thread to a task of an event loop in another thread: a `Line`.

The thread's awaitables run one after the other in one task at the loop's end of the line, so that
what belongs to a task (`current_task()`, `asyncio.timeout`, a `TaskGroup` entered by one `await_` and
left by another) works across them. That task is the one that awaits `fiberback.to_thread`, or a host
task that the line starts when it is first needed.

Cancelling that task, or whatever waits for the thread's result, raises CancelledError in the thread:
in the `await_` that waits, else in the thread's next one. Never in the middle of its own code.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakMethod

from .. import _messages
from .._deadlock import blocked_thread, wait_cycle
from .._fiberback import Portal
from .._loop.thread import thread_of
from .._portal import portals
from .._user_frames import is_ours
from . import contexts

# Seconds. How long until a waiting thread looks for the first time whether the loop is still able
# to answer, and the longest time between two looks; how long a loop may stand still in between two
# runs; when a loop that is busy elsewhere is worth a warning.
_FIRST_LOOK, _LONGEST_LOOK, _STOPPED, _BUSY = 0.05, 0.5, 1.0, 5.0


class Request:
    """One `await_` of the thread."""

    def __init__(self, awaitable: Any, context: contextvars.Context) -> None:
        is_coro = isinstance(awaitable, Coroutine)
        self._coro: Any = awaitable if is_coro else portals.as_coroutine(awaitable)
        self._context = context
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False
        self.answered = threading.Lock()
        self.answered.acquire()
        self.is_answered = False
        self.is_taken = False
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self, result: Any, error: BaseException | None) -> None:
        if not self.is_answered:
            self.result, self.error = result, error
            self.is_answered = True
            self.answered.release()

    def refuse(self, error: BaseException) -> None:
        """Answers a request that nobody has begun with."""
        if not self.is_answered:
            self._coro.close()
            self.answer(None, error)

    async def run(self, task: asyncio.Task[Any]) -> None:
        """Runs the awaitable, in `task`, the current one, and answers."""
        self._task = task
        self.is_taken = True
        try:
            portal = portals.through(Portal(self._coro), task)
            result = await contexts.InContext(portal, self._context)
        except GeneratorExit:  # the task is destroyed in the middle
            self.answer(None, RuntimeError(_messages.LOOP_GONE))
            raise
        except BaseException as error:
            self.answer(None, contexts.without_our_frames(error))
            if isinstance(error, KeyboardInterrupt):
                raise  # it was meant for the loop's thread, not for this one alone
        else:
            self.answer(result, None)
        finally:
            self._task = None
            if self._interrupted:
                task.uncancel()

    def interrupt(self) -> None:
        """Ends the request, begun or not, with CancelledError. In the loop's thread."""
        if self._task is not None:
            self._interrupted = True
            self._task.cancel()
        else:
            self.refuse(asyncio.CancelledError())


class Line:
    """See the module. `result` is what the thread's work will set, for whoever awaits that."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, result: asyncio.Future[Any] | None = None
    ) -> None:
        self.loop = loop
        self._result = result
        self._requests: deque[Request] = deque()
        self._waker: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._current: Request | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self._finished = False
        self._watched = False
        self._ident: int | None = None  # the loop's thread, once it has answered

    # In the loop's thread.

    async def serve(self) -> None:
        """What a host task runs: the thread's requests, until the line is closed."""
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            while await self._more():
                await self._run(task)
        except asyncio.CancelledError as cancelled:
            # Between two requests: a timeout that the thread has entered, or the end of the loop.
            # The loop must not wait for the thread, but the thread is to know.
            if not self._requests:
                self._cancelled = cancelled
            raise
        finally:
            self._task = None
            while self._requests:
                self._requests.popleft().refuse(asyncio.CancelledError())

    async def serve_until_finished(self, withdraw: Callable[[], bool]) -> None:
        """What the task that awaits `to_thread` runs.

        Being cancelled does not end it, unless `withdraw` says that the work has not begun.
        """
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                try:
                    if not await self._more():
                        break
                except asyncio.CancelledError as cancelled:
                    if self._finished or withdraw():
                        raise
                    self._cancelled = cancelled
                    continue
                await self._run(task)
        finally:
            self._task = None
            self._finished = True
            while self._requests:
                self._requests.popleft().refuse(RuntimeError(_messages.LOOP_GONE))

    async def _more(self) -> bool:
        while not self._requests:
            if self._finished:
                return False
            self._waker = self.loop.create_future()
            try:
                await self._waker
            finally:
                self._waker = None
        return True

    async def _run(self, task: asyncio.Task[Any]) -> None:
        request = self._requests.popleft()
        cancelled, self._cancelled = self._cancelled, None
        if cancelled is not None:
            request.refuse(asyncio.CancelledError(*cancelled.args))
            return
        self._current = request
        try:
            await request.run(task)
        finally:
            self._current = None

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def _deliver(self, request: Request) -> None:
        self._ident = threading.get_ident()
        if request.is_answered:  # given up meanwhile
            return
        if not self._watched and self._result is not None:
            self._watched = True
            # Weakly: the future may outlive the work by far.
            self._result.add_done_callback(_WhenCancelled(self))
        self._requests.append(request)
        if self._task is None and self._finished:
            self._requests.pop().refuse(RuntimeError(_messages.LOOP_GONE))
            return
        if self._task is None:
            self._task = self.loop.create_task(self.serve(), name="fiberback.await_() in a thread")
            if self._result is not None:
                wait_cycle.leads_to(self._task, self._result)
        self._wake()

    def cancel(self, cancelled: asyncio.CancelledError) -> None:
        """Raise CancelledError in the thread's `await_`: the one that waits, else the next."""
        if self._current is not None and self._task is not None:
            self._current.interrupt()
        else:
            self._cancelled = cancelled

    @property
    def undelivered(self) -> asyncio.CancelledError | None:
        return self._cancelled

    def finish(self) -> None:
        self._finished = True
        self._wake()

    # In the worker thread.

    def close(self) -> None:
        """No more requests will come."""
        try:
            self.loop.call_soon_threadsafe(self.finish)
        except RuntimeError:
            pass  # closed, and the tasks with it

    def wait(self, awaitable: Any) -> Any:
        context = contextvars.copy_context()
        request = Request(awaitable, context)
        try:
            self.loop.call_soon_threadsafe(self._deliver, request)
        except RuntimeError:
            request.refuse(RuntimeError(_messages.LOOP_CLOSED))
        if not request.answered.acquire(timeout=_FIRST_LOOK):
            self._wait_watchfully(request)
        contexts.absorb(context)
        error, result = request.error, request.result
        if error is None:
            return result
        try:
            raise error
        finally:
            del error, request  # they are in the frames of the error's traceback

    def _wait_watchfully(self, request: Request) -> None:
        pause, since, warned = _FIRST_LOOK, time.monotonic(), False
        stopped: float | None = None
        suspected = False
        try:
            while not request.answered.acquire(timeout=pause):
                pause = min(pause * 2, _LONGEST_LOOK)
                now = time.monotonic()
                if self.loop.is_closed():
                    raise RuntimeError(_messages.LOOP_CLOSED)
                ident = None
                if self.loop.is_running():
                    stopped = None
                    ident = self._ident or thread_of(self.loop)
                else:
                    stopped = stopped or now
                    if now - stopped >= _STOPPED:
                        raise RuntimeError(_messages.LOOP_STOPPED)
                if ident is None:
                    continue
                if not blocked_thread.is_blocked_on(ident, threading.get_ident()):
                    suspected = False
                elif suspected:  # twice in a row
                    raise RuntimeError(_describe(_messages.THREAD_DEADLOCK, ident))
                else:
                    suspected, pause = True, _FIRST_LOOK
                if not (warned or request.is_taken) and now - since >= _BUSY:
                    warned = True
                    text = _describe(_messages.LOOP_BUSY, ident, seconds=_BUSY)
                    warnings.warn(text, RuntimeWarning, stacklevel=_stack_level())
        except BaseException:
            self._give_up(request)
            raise

    def _give_up(self, request: Request) -> None:
        """The thread will not wait any longer: for an interrupt, or because it would be for ever."""
        try:
            self.loop.call_soon_threadsafe(request.interrupt)
        except RuntimeError:
            if not request.is_taken:
                request.refuse(RuntimeError(_messages.LOOP_CLOSED))
        else:
            if isinstance(sys.exception(), RuntimeError):
                return
            # Ctrl-C: what was awaited cleans up before the caller goes on, as in a task. A loop
            # that does not even look is not waited for, and a second Ctrl-C ends this at once.
            until = time.monotonic() + 2 * _STOPPED
            while not request.answered.acquire(timeout=_FIRST_LOOK):
                if not self.loop.is_running() and time.monotonic() > until:
                    return


class _WhenCancelled:
    """A done-callback of the future that somebody awaits the thread's work through."""

    def __init__(self, line: Line) -> None:
        self._cancel = WeakMethod(line.cancel)

    def __call__(self, result: asyncio.Future[Any]) -> None:
        cancel = self._cancel()
        if cancel is not None and result.cancelled():
            cancel(asyncio.CancelledError())


def _describe(text: str, ident: int, **more: object) -> str:
    mine = threading.get_ident()
    return text.format(
        thread=blocked_thread.name_of(mine),
        other=blocked_thread.name_of(ident),
        stack=blocked_thread.stack_of(mine),
        other_stack=blocked_thread.stack_of(ident),
        **more,
    )


def _stack_level() -> int:
    """For a warning that points to the caller of `await_`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return level
