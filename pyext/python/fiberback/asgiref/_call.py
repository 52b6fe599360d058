"""One `async_to_sync` in a thread that a loop waits for: a task on that loop, and this thread waits.

What is thread-sensitive below it is done by the waiting thread meanwhile, as asgiref has it.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.local import _Storage
from asgiref.sync import SyncToAsync

from .. import with_portal_run
from .._fiberback import Portal
from .._thread.channel import Channel
from . import _executors

_Task: Any = asyncio.Task
# From 3.12 on a task can take its first step when it is made.
_EAGER = {"eager_start": True} if sys.version_info >= (3, 12) else {}
# Seconds until it is looked whether the loop is able to answer at all.
_FIRST_LOOK = 0.05
_NOTHING = object()
_NONE: Mapping[Any, Any] = {}


class Call(CurrentThreadExecutor):
    """Made, and waited for, in the thread that calls.

    It has the attributes of asgiref's, which others of these look at, but waits by a plain lock: a condition
    takes as long as all the rest. So it is its own `_work_ready`.
    """

    is_taken = False
    _broken = False
    _task: asyncio.Task[None] | None = None
    _result: Any = None
    _error: BaseException | None = None
    # Whether the loop is in the middle of `_start`.
    _is_starting = _is_over = False

    def __init__(
        self, loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any], tasks: Any
    ) -> None:
        self._work_thread = threading.current_thread()
        self._work_items: deque[Any] = deque()
        self._work_ready: Any = self
        self._old_executor = _executors.current()
        self._lock = threading.Lock()
        self._sleep = threading.Lock()
        self._sleep.acquire()
        self._loop = loop
        self._awaitable: Any = awaitable
        self._handled = sys.exception()
        self._context = contextvars.copy_context()
        # Values as they are in the loop's thread, to be brought back only if they have changed there.
        self._moved: dict[contextvars.ContextVar[Any], Any] = {}
        # What the `sync_to_async` that awaits this thread cancels, if it is cancelled.
        self._tasks: list[Any] | None = tasks

    # In the thread that calls.

    def start(self) -> bool:
        """False where the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._start, context=contextvars.Context())
        except RuntimeError:
            return False
        return True

    def result(self) -> Any:
        try:
            if not self.wait(_FIRST_LOOK):
                watch = Channel(self._loop)
                watch.task = self._task
                watch.wait_watchfully(self, self)
        except BaseException:
            self._give_up()
            raise
        take_over(self._context, self._moved)
        error, result = self._error, self._result
        if error is None:
            return result
        self._error = None
        try:
            raise error
        finally:
            del error, self  # they are in the frames of the error's traceback

    def wait(self, timeout: float) -> bool:
        """Does what is submitted, until the call is over: True; or for `timeout` seconds."""
        known: dict[str, Any] | None = None
        try:
            while True:
                # Without the lock: nothing is submitted any more once it is broken.
                is_over = self._broken
                if self._work_items:
                    item = self._work_items.popleft()
                    if known is None:
                        known = vars(SyncToAsync.threadlocal).copy()
                    item.run()
                    del item
                elif is_over:
                    return True
                elif not self._sleep.acquire(timeout=timeout):
                    return False
        finally:
            if known is not None:  # the work that was done meanwhile has changed it
                vars(SyncToAsync.threadlocal).update(known)

    def _give_up(self) -> None:
        """Ctrl-C, or the loop will not answer."""
        with self._lock:
            self._broken = True
            is_taken = self.is_taken
            left = list(self._work_items)
            self._work_items.clear()
        for item in left:
            item.future.cancel()
        try:
            self._loop.call_soon_threadsafe(self._cancel, context=contextvars.Context())
        except RuntimeError:
            pass  # closed, and its tasks with it
        if not is_taken and inspect.iscoroutine(self._awaitable):
            self._awaitable.close()

    # In the loop's thread.

    def _start(self) -> None:
        with self._lock:
            if self._broken:  # given up
                return
            self.is_taken = True
        coro: Any = self._run()
        self._is_starting = True
        try:
            if self._loop.get_task_factory() is None:
                coro = Portal(coro)
                task = _Task(coro, loop=self._loop, context=self._context, **_EAGER)
            else:
                coro = with_portal_run(self._given, coro)
                task = self._loop.create_task(coro, context=self._context)
            self._task = task
        except BaseException as error:
            coro.close()
            self._error = error
            self._is_over = True
        self._is_starting = False
        if self._is_over:
            # Last of all: the other thread takes the interpreter as soon as this one leaves it.
            self._end()

    async def _run(self) -> None:
        tasks = self._tasks
        task = asyncio.current_task()
        if tasks is not None:
            tasks.append(task)
        ident = threading.get_ident()
        for variable, value in self._context.items():
            if value.__class__ is _Storage:  # asgiref's `Local`s belong to a thread
                self._moved[variable] = moved = _Storage(ident, value.data)
                variable.set(moved)
        _executors.set_current(self)
        try:
            awaitable, self._awaitable = self._awaitable, None
            if self._handled is None:
                self._result = await awaitable
            else:
                # So that `sys.exc_info()` is there what it is where this was called.
                try:
                    raise self._handled
                except BaseException:
                    self._result = await awaitable
        except BaseException as error:
            self._error = error
        finally:
            if tasks is not None:
                tasks.remove(task)
            self._handled = None
            self._is_over = True
            if not self._is_starting:
                self._end()

    @staticmethod
    async def _given(coro: Any) -> None:
        await coro

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self) -> None:
        with self._lock:
            self._broken = True
            self.notify()

    # In any thread.

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
        if _executors.nearest(self) is None:  # from a task that has outlived the call
            return _executors.otherwise().submit(fn, *args, **kwds)
        return super().submit(fn, *args, **kwds)

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify(self) -> None:
        """Has the thread look. The lock is held."""
        if self._sleep.locked():
            self._sleep.release()


def take_over(
    context: contextvars.Context, known: Mapping[contextvars.ContextVar[Any], Any] = _NONE
) -> None:
    """Have the current context be as `context`, which was copied from it and belongs to another thread.

    But for what has the `known` value there.
    """
    ident = threading.get_ident()
    for variable, value in context.items():
        if (
            variable.get(_NOTHING) is not value
            and variable is not _executors.variable
            and known.get(variable) is not value
        ):
            if value.__class__ is _Storage:
                value = _Storage(ident, value.data)
            variable.set(value)
