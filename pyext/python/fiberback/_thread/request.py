"""One `await_` outside of any task, on its way to the host that runs what it awaits, and back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from .. import _messages
from .._fiberback import Portal, scope
from .._portal.call_portal import as_coroutine
from . import asgiref_worker, contexts, generators


class Request:
    """`notify` is called when it has been answered, in the loop's thread."""

    __slots__ = (
        "_begun",
        "_context",
        "_coro",
        "_interrupted",
        "_listener",
        "_notify",
        "_steps",
        "_task",
        "_thread",
        "error",
        "is_answered",
        "is_taken",
        "result",
        "since",
    )

    # Whether the loop runs for others than who waits.
    shares_loop = True

    def __init__(
        self,
        awaitable: Any,
        context: contextvars.Context,
        notify: Callable[[], object],
        begun: list[Any] | None = None,
    ) -> None:
        # By its type first, which is faster than to ask the abstract class.
        is_coro = type(awaitable) is CoroutineType or isinstance(awaitable, Coroutine)
        self._coro: Any = awaitable if is_coro else as_coroutine(awaitable)
        self._context = context
        self._notify: Callable[[], object] | None = notify
        self._listener: Callable[[], object] | None = None
        self._begun = begun
        self._steps: contexts.InContext | None = None
        self._task: Any = None
        self._interrupted = False
        self._thread = threading.get_ident()
        self.since = time.monotonic()
        self.is_answered = False
        self.is_taken = False
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self, result: Any, error: BaseException | None) -> None:
        if not self.is_answered:
            self.result, self.error = result, error
            self.is_answered = True
            listener, notify = self._listener, self._notify
            self._listener = self._notify = None
            if listener is not None:
                listener()
            if notify is not None:
                notify()

    def on_answer(self, notify: Callable[[], object]) -> None:
        """Call this, too, in the loop's thread; it has not been answered yet."""
        self._listener = notify

    def refuse(self, error: BaseException) -> None:
        """Answers a request that nobody has begun with."""
        if not self.is_answered:
            self._coro.close()
            self.answer(None, error)

    @property
    def has_waited(self) -> bool:
        """Whether the awaitable was suspended, or could have been cancelled there, so far."""
        return self._steps is not None and self._steps.has_waited

    async def run(self, task: Any, cancelled: asyncio.CancelledError | None) -> None:
        """Runs the awaitable, in `task`, the current one, and answers.

        With `cancelled`, CancelledError is raised in it where it first waits.
        """
        self._task = task
        if cancelled is not None:
            # As a task that is cancelled while it runs.
            self._interrupted = True
            asyncio.Task.cancel(task, *cancelled.args[:1])
        self.is_taken = True
        try:
            if self._begun:
                generators.adopt(self._begun)
                self._begun = None
            if asgiref_worker.is_loaded() and threading.get_ident() != self._thread:
                self._context.run(asgiref_worker.rehome)
            portal = scope(Portal(self._coro), task)
            self._steps = contexts.InContext(portal, self._context)
            result = await self._steps
        except GeneratorExit:  # the task is destroyed in the middle
            self.answer(None, RuntimeError(_messages.LOOP_GONE))
            raise
        except BaseException as error:
            self.answer(None, contexts.without_our_frames(error))
            if isinstance(error, KeyboardInterrupt) and self.shares_loop:
                # It was meant for the loop's caller, not for who waits alone.
                task.get_loop().call_soon(_raise, error, context=contextvars.Context())
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

    def leave_context(self) -> None:
        """Who waits does so no longer, and is back in its context."""
        if self._task is not None and self._steps is not None:
            self._steps.leave()
        else:
            self._context = self._context.copy()


def _raise(error: BaseException) -> None:
    raise error
