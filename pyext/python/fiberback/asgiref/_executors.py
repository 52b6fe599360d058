"""Which thread asgiref gives thread-sensitive code to, as executors: that of sync code further out.

asgiref's `AsyncToSync.executors.current` is the one of the innermost sync code that waits; each knows the one
further out. `Here` is the one for sync code on a fiber.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.local import _Storage
from asgiref.sync import AsyncToSync, SyncToAsync

from .. import with_portal_run_sync

# What is behind `AsyncToSync.executors`, a `Local`, which takes some microseconds for each look.
_executors: Any = AsyncToSync.executors
variable: contextvars.ContextVar[Any] = _executors._storage._data


def current() -> Any:
    """`AsyncToSync.executors.current`, or None."""
    storage = variable.get(None)
    if storage is None or storage.thread_id != threading.get_ident():
        return None
    return storage.data.get("current")


def set_current(executor: Any) -> None:
    variable.set(_Storage(threading.get_ident(), {"current": executor}))


class Here(CurrentThreadExecutor):
    """Sync code that runs on a fiber of this thread, until `end`: what is thread-sensitive below it runs here.

    asgiref's own `sync_to_async` submits to it; then the work is done at once, on the stack that submits.
    """

    def __init__(self, further_out: Any) -> None:
        super().__init__(further_out)
        # asgiref appends work to the queue of the first executor that is not broken; nobody reads this one's.
        self._broken = True
        self._is_open = True
        self._loop = asyncio._get_running_loop()

    def end(self) -> None:
        self._is_open = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
        executor = nearest(self)
        if executor is not self:
            return (executor or otherwise()).submit(fn, *args, **kwds)  # type: ignore[no-any-return]
        done: Future[Any] = Future()

        def work() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(fn(*args, **kwds))
                except BaseException as error:
                    done.set_exception(error)

        loop = self._loop
        if threading.current_thread() is self._work_thread or loop is None:
            work()
        else:
            start = _start_in(loop, work)
            loop.call_soon_threadsafe(start, context=contextvars.Context())
        return done


def _start_in(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> Callable[[], None]:
    tasks = set()

    def start() -> None:
        task = loop.create_task(with_portal_run_sync(work))
        tasks.add(task)  # the loop itself keeps tasks weakly
        task.add_done_callback(tasks.discard)

    return start


def nearest(executor: Any) -> Any:
    """The innermost one, from `executor` outwards, whose sync code still waits; or None."""
    while executor is not None:
        is_open = executor._is_open if isinstance(executor, Here) else not executor._broken
        if is_open:
            return executor
        executor = executor._old_executor
    return None


def is_here(executor: Any) -> bool:
    """Whether one of `nearest`'s runs its work in this very thread."""
    return executor._work_thread is threading.current_thread()


def pool_of(context: Any, loop: Any) -> Executor | None:
    """Where thread-sensitive code runs below no sync code that waits; None if that is yet to be made."""
    if context is not None:
        return SyncToAsync.context_to_thread_executor.get(context)
    return AsyncToSync.loop_thread_executors.get(loop) or SyncToAsync.single_thread_executor


def otherwise() -> Executor:
    context = SyncToAsync.thread_sensitive_context.get(None)
    loop = asyncio._get_running_loop()
    return pool_of(context, loop) or SyncToAsync.single_thread_executor
