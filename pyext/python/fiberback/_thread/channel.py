"""The channel from a worker thread to a task of an event loop in another thread.

The thread's awaitables run one after the other in one task at the loop's end of the channel, its host
(`host`), and in the thread's own context. That task is the one that awaits `fiberback.to_thread`, or
one that is made when it is first needed.

Cancelling that task, or whatever waits for the thread's result, raises CancelledError in the thread:
in the `await_` that waits, else in the thread's next one. Never in the middle of its own code.

A thread that waits goes on doing what nobody else could do: the thread-sensitive code of asgiref
(`asgiref_worker`), and the work of its own pool that it waits for itself (`own_pool`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any
from weakref import ref

from .. import _messages
from .._deadlock import blocked_thread, wait_cycle
from .._fiberback import lend_context
from .._loop import forked
from .._loop.thread import thread_of
from .._user_frames import is_ours
from . import asgiref_worker, generators, own_pool
from .host import Host
from .request import Request

# Seconds. How long until a waiting thread looks for the first time whether the loop is still able
# to answer, and the longest time between two looks; how long a loop may stand still in between two
# runs; when a loop that is busy elsewhere is worth a warning.
_FIRST_LOOK, _LONGEST_LOOK, _STOPPED, _BUSY = 0.05, 0.5, 1.0, 5.0


class _Plain:
    """How a thread waits that has nothing else to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.notify = self._lock.release

    def wait(self, timeout: float) -> bool:
        return self._lock.acquire(timeout=timeout)

    def end(self, has_context: bool) -> None:
        pass


class Channel(Host):
    """See the module. `result` is what the thread's work will set, for whoever awaits that."""

    # Whether no more requests come when the result is there.
    ends_with_result = False

    def __init__(
        self, loop: asyncio.AbstractEventLoop, result: asyncio.Future[Any] | None = None
    ) -> None:
        super().__init__(loop, "fiberback.await_() in a thread")
        self.result = result
        self._watched = False
        self._ident: int | None = None  # the loop's thread, once it has answered
        self._is_sensitive: bool | None = None
        # For callbacks of the loop, which must not need the thread's.
        self._context = contextvars.Context()

    # In the loop's thread.

    async def serve_until_finished(self, withdraw: Callable[[], bool]) -> None:
        """What the task that awaits `to_thread` runs.

        Being cancelled does not end it, unless `withdraw` says that the work has not begun.
        """
        task = self.task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                try:
                    if not await self._more():
                        break
                except asyncio.CancelledError as cancelled:
                    if not self.is_new(task):
                        continue
                    if self._finished or withdraw():
                        raise
                    self.note(cancelled, task)
                    continue
                await self._run(task)
            if getattr(task, "_must_cancel", False):
                # What is to be raised from here must not be raised once more from where the task
                # waits next.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as cancelled:
                    self._cancelled = cancelled
        finally:
            self.task = None
            self._finished = True
            while self._requests:
                self._requests.popleft().refuse(RuntimeError(_messages.LOOP_GONE))

    def finish(self) -> None:
        super().finish()
        self.result = None

    def _deliver(self, request: Request) -> None:
        self._ident = threading.get_ident()
        if not self._watched and self.result is not None:
            self._watched = True
            # Weakly: the future may outlive the work by far.
            self.result.add_done_callback(_WhenDone(self), context=self._context)
        self.deliver(request, in_callback=True)

    def on_start(self, task: asyncio.Task[Any]) -> None:
        if self.result is not None:
            wait_cycle.leads_to(task, self.result)

    # In the worker thread.

    def close(self) -> None:
        """No more requests will come."""
        if self._finished:
            return
        try:
            self.loop.call_soon_threadsafe(self.finish, context=self._context)
        except RuntimeError:
            pass  # closed, and the tasks with it

    def wait(self, awaitable: Any) -> Any:
        return lend_context(functools.partial(self._wait, awaitable))

    def _wait(self, awaitable: Any, context: contextvars.Context) -> Any:
        waiter: Any = self._waiter(context)
        request = Request(awaitable, context, waiter.notify, generators.begun(awaitable))
        cancellable = asgiref_worker.cancellable(request)
        gave_up = True
        try:
            try:
                try:
                    self.loop.call_soon_threadsafe(self._deliver, request, context=self._context)
                except RuntimeError:
                    request.refuse(RuntimeError(_messages.LOOP_CLOSED))
                if not waiter.wait(_FIRST_LOOK):
                    self.wait_watchfully(request, waiter)
            except BaseException:
                self._give_up(request, waiter)
                raise
            gave_up = False
        finally:
            # Having given up, the loop may be in the middle of a step in the thread's context.
            if not gave_up and asgiref_worker.is_loaded():
                context.run(asgiref_worker.rehome)
            waiter.end(has_context=not gave_up)
            if cancellable is not None:
                cancellable.end()
            own_pool.waits_no_more()
        error, result = request.error, request.result
        if error is None:
            return result
        try:
            raise error
        finally:
            del error, request  # they are in the frames of the error's traceback

    def _waiter(self, context: contextvars.Context) -> Any:
        is_sensitive = self._is_sensitive
        if is_sensitive is None:
            is_sensitive = asgiref_worker.is_sensitive()
            if self.result is not None:  # it belongs to the work that runs on this stack
                self._is_sensitive = is_sensitive
        if not is_sensitive:
            return _Plain()
        return asgiref_worker.serving(context, own_pool.of_stack())

    def wait_watchfully(self, request: Any, waiter: Any) -> None:
        """Until `waiter.wait()` is true; raises RuntimeError where that would be never.

        Of the request it is asked whether it `is_taken`, by the loop.
        """
        pause, since, warned = _FIRST_LOOK, time.monotonic(), False
        stopped: float | None = None
        suspected = False
        while not waiter.wait(pause):
            pause = min(pause * 2, _LONGEST_LOOK)
            now = time.monotonic()
            if self.loop.is_closed():
                raise RuntimeError(_messages.LOOP_CLOSED)
            if own_pool.help_out(sys._getframe(1), self.task):
                pause = _FIRST_LOOK
                continue
            ident = None
            if self.loop.is_running() and not forked.is_parents(self.loop):
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

    def _give_up(self, request: Request, waiter: Any) -> None:
        """The thread will not wait any longer: for an interrupt, or because it would be for ever."""
        try:
            self.loop.call_soon_threadsafe(request.interrupt, context=self._context)
        except RuntimeError:
            if not request.is_taken:
                request.refuse(RuntimeError(_messages.LOOP_CLOSED))
        else:
            if isinstance(sys.exception(), RuntimeError):
                request.leave_context()
                return
            # Ctrl-C: what was awaited cleans up before the caller goes on, as in a task. A loop
            # that does not even look is not waited for, and a second Ctrl-C ends this at once.
            until = time.monotonic() + 2 * _STOPPED
            try:
                while not (request.is_answered or waiter.wait(_FIRST_LOOK)):
                    if not self.loop.is_running() and time.monotonic() > until:
                        return
            finally:
                request.leave_context()


class _WhenDone:
    """A done-callback of the future that somebody awaits the thread's work through."""

    def __init__(self, channel: Channel) -> None:
        self._channel = ref(channel)

    def __call__(self, result: asyncio.Future[Any]) -> None:
        channel = self._channel()
        if channel is None:
            return
        if result.cancelled():
            channel.cancel(asyncio.CancelledError())
        elif channel.ends_with_result:
            channel.finish()


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
