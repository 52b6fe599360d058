"""One execution of a task: an asyncio task of the pool's loop, its time limits, and how it ends."""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextvars
import os
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.exceptions import SoftTimeLimitExceeded

from .._portal.call_portal import with_portal_run_sync
from .._thread.to_thread import to_thread

current_job: ContextVar[Job | None] = ContextVar("fiberback_celery_job", default=None)

# Seconds after which one is cancelled again that should be over: its cleanup waits for too long, or it has swallowed that.
_AGAIN = 5.0

Post = Callable[..., object]


class Job:
    """What `Pool.apply_async` returns. Celery keeps a weak reference, and calls `terminate`."""

    def __init__(
        self,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        *,
        callback: Post,
        accept_callback: Post,
        error_callback: Post,
        timeout_callback: Post,
        soft_timeout: float | None,
        timeout: float | None,
        in_thread: bool,
        post: Post,
        over: Callable[[Job], None],
    ) -> None:
        self._call = target, args, kwargs
        self._callback = callback
        self._accept_callback = accept_callback
        self._error_callback = error_callback
        self._timeout_callback = timeout_callback
        self._soft_timeout = soft_timeout
        self._timeout = timeout
        self._in_thread = in_thread
        self._post = post
        self._over = over
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._result: list[Any] = []
        # What the next CancelledError of ours is raised as.
        self._instead: BaseException | None = None
        self._soft_limit: SoftTimeLimitExceeded | None = None
        # Nobody waits for its outcome any more: it was terminated, or exceeded its hard limit.
        self.is_given_up = False

    def __repr__(self) -> str:
        _, args, _ = self._call
        return f"<fiberback.celery.Job {args[0]}[{args[1]}]>" if args else object.__repr__(self)

    @property
    def request(self) -> Any:
        """The worker's `Request`, whose callbacks these are; None for other callers."""
        return getattr(self._accept_callback, "__self__", None)

    # --- from any thread -----------------------------------------------------------------------------

    def terminate(self, signal: Any = None) -> None:
        """End it: CancelledError is raised where it waits. One that has not begun does not begin."""
        self.is_given_up = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel)

    # --- in the loop's thread ------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        _, args, _ = self._call
        name = f"{args[0]}[{args[1]}]" if args else None
        # Not by the loop's factory: what is thrown into it must come by `_steps` before a portal has it.
        self._task = asyncio.Task(self._run(), loop=loop, name=name, context=self._context)
        self._task.add_done_callback(self._done)
        # From here on `terminate` has it cancelled, which its first step comes before.
        self._loop = loop

    @types.coroutine
    def _steps(self, inner: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """`await inner`, but a cancellation that means a time limit is raised as that."""
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = inner.send(None) if thrown is None else inner.throw(thrown)
                except StopIteration:
                    return
                thrown = None
                try:
                    yield waits_for
                except asyncio.CancelledError as error:
                    thrown, self._instead = self._instead or error, None
                    if thrown is not error and self._task is not None:
                        self._task.uncancel()
                except BaseException as error:
                    thrown = error
        finally:
            thrown = None  # its traceback has this frame
            inner.close()

    async def _run(self) -> None:
        self._post(self._accept_callback, os.getpid(), monotonic())
        if self.is_given_up:
            return
        self._limit(self._soft_timeout, self._exceeds_soft_limit)
        self._limit(self._timeout, self._exceeds_limit)
        try:
            if self._in_thread:
                await to_thread(self._trace)
            else:
                await self._steps(with_portal_run_sync(self._trace))
        except BaseException as error:
            # In a thread it may have come to its end all the same.
            if not self._result and not self.is_given_up:
                # One that no thread has begun with yet is cancelled, too.
                limit = self.cancelled_as() if isinstance(error, asyncio.CancelledError) else None
                self._post(self._error_callback, _info(limit or error))
        if self._result and not self.is_given_up:
            self._post(self._callback, self._result[0])

    def _trace(self) -> None:
        current_job.set(self)
        target, args, kwargs = self._call
        self._result.append(target(*args, **kwargs))

    def _limit(self, seconds: float | None, exceeded: Callable[[], None]) -> None:
        if seconds and self._loop is not None:
            self._timers.append(self._loop.call_later(seconds, exceeded))

    def _exceeds_soft_limit(self) -> None:
        if self.is_given_up or self._result:
            return
        self._post(self._timeout_callback, True, self._soft_timeout)
        self._soft_limit = SoftTimeLimitExceeded(self._soft_timeout)
        if not self._in_thread:
            self._instead = self._soft_limit
        if self._task is not None:
            self._task.cancel()

    def _exceeds_limit(self) -> None:
        if self.is_given_up or self._result:
            return
        self._post(self._timeout_callback, False, self._timeout)
        self.is_given_up = True
        self._cancel()

    def _cancel(self) -> None:
        """Until it is over."""
        if self._task is not None and not self._task.done():
            self._instead = None
            self._task.cancel()
            self._limit(_AGAIN, self._cancel)

    def cancelled_as(self) -> BaseException | None:
        """What it means that the body was cancelled, for one in a thread, which `_steps` cannot tell."""
        return self._soft_limit if self._in_thread else None

    def body_is_over(self) -> None:
        """Called by what the tracer calls, which must not store the outcome of what Celery takes to be gone."""
        if self.is_given_up:
            raise asyncio.CancelledError

    def _done(self, task: asyncio.Task[None]) -> None:
        for timer in self._timers:
            timer.cancel()
        self._over(self)
        if not task.cancelled():
            task.result()  # a mistake of ours: the loop logs it


def _info(error: BaseException) -> Any:
    """As Celery has it: what is no Exception has ended the worker."""
    try:
        if not isinstance(error, Exception):
            raise WorkerLostError(repr(error)) from error
        raise error
    except Exception:
        return ExceptionInfo()
