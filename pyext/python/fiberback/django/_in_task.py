"""asgiref's `sync_to_async` and `async_to_sync` within one task, instead of between threads."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from .. import await_, can_await


class _InTask(Executor):
    """Runs what is submitted at once, on the caller's stack, if that can wait; else in a thread."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
        if not can_await():
            if self._thread is None:
                self._thread = ThreadPoolExecutor(max_workers=1)
            return self._thread.submit(fn, *args, **kwds)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwds))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=wait, cancel_futures=cancel_futures)


def use_task(context: ThreadSensitiveContext) -> None:
    """Within `context`, which asgiref would make a thread for, sync code runs in the task."""
    SyncToAsync.context_to_thread_executor[context] = _InTask()


@contextlib.asynccontextmanager
async def sync_code_in_task() -> AsyncIterator[None]:
    """In this block sync code that is awaited by `sync_to_async` runs in the task."""
    async with ThreadSensitiveContext() as context:
        use_task(context)
        yield


def let_async_to_sync_wait() -> None:
    """`async_to_sync` refuses where a loop runs; let it wait where that is possible.

    Sync views use it, and have always had a thread without a loop. Does nothing the second time.
    """
    refusing: Any = AsyncToSync.__call__
    if hasattr(refusing, "_waits"):
        return

    @functools.wraps(refusing)
    def call(self: Any, *args: Any, **kwds: Any) -> Any:
        if asyncio._get_running_loop() is not None and can_await():
            return await_(self.awaitable(*args, **kwds))
        return refusing(self, *args, **kwds)

    call._waits = True  # type: ignore[attr-defined]
    AsyncToSync.__call__ = call  # type: ignore[method-assign]
