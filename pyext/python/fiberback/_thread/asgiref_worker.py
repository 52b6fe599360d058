"""What a thread that waits must do for asgiref, which Django runs its sync code by.

`sync_to_async` runs thread-sensitive code in one thread: where it was called by sync code further out,
in that code's. `async_to_sync` goes on serving that thread while it waits there, and so does `await_`:
otherwise what it awaits could not call such code again, and would wait for ever.

asgiref's `Local`s belong to a thread; whoever moves code to another one tells them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from .._fiberback import local_of

_executor_class: Any = None


def is_loaded() -> bool:
    return "asgiref.local" in sys.modules


def rehome() -> None:
    """asgiref's `Local`s in the current context are this thread's from here on."""
    local: Any = sys.modules.get("asgiref.local")
    storage, move = getattr(local, "_Storage", None), getattr(local, "_rehome", None)
    if storage is None or move is None:
        return
    ident = threading.get_ident()
    for variable, value in contextvars.copy_context().items():
        if isinstance(value, storage) and value.thread_id != ident:
            variable.set(move(value))


def is_sensitive() -> bool:
    """Whether asgiref runs what is on this stack, and as thread-sensitive code."""
    asgiref: Any = sys.modules.get("asgiref.sync")
    handler = getattr(getattr(asgiref, "SyncToAsync", None), "thread_handler", None)
    code = getattr(handler, "__code__", None)
    if code is None:
        return False
    return bool(getattr(local_of(code, 0), "_thread_sensitive", False))


class Cancellable:
    """What `sync_to_async` cancels and awaits when it is cancelled while a thread waits below it. It
    takes it for the task of an `async_to_sync`."""

    def __init__(self, request: Any, others: list[Any]) -> None:
        self._request = request
        self._others = others
        others.append(self)

    def cancel(self, msg: Any = None) -> bool:
        self._request.interrupt()
        return True

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._request.is_answered:
            answered = asyncio.get_running_loop().create_future()
            self._request.on_answer(functools.partial(_set, answered))
            yield from answered

    def end(self) -> None:
        self._others.remove(self)


def _set(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


def cancellable(request: Any) -> Cancellable | None:
    """For a request of this thread, if a `sync_to_async` awaits the thread. To be ended with it."""
    threadlocal = _threadlocal()
    others = getattr(threadlocal, "task_context", None)
    return Cancellable(request, others) if isinstance(others, list) else None


def _threadlocal() -> Any:
    asgiref: Any = sys.modules.get("asgiref.sync")
    return getattr(getattr(asgiref, "SyncToAsync", None), "threadlocal", None)


def serving(context: contextvars.Context, pool: Any) -> Any:
    """An executor whose work this thread does while it waits in `wait`; in `context` it is the one
    that asgiref gives thread-sensitive work to. Afterwards what still comes is `pool`'s."""
    global _executor_class
    if _executor_class is None:
        _executor_class = _make_class()
    return _executor_class(context, pool)


def _make_class() -> Any:
    """Made when asgiref is there."""
    from asgiref.current_thread_executor import CurrentThreadExecutor
    from asgiref.sync import AsyncToSync, SyncToAsync

    class _Serving(CurrentThreadExecutor):
        def __init__(self, context: contextvars.Context, pool: Any) -> None:
            executors: Any = AsyncToSync.executors
            super().__init__(context.run(getattr, executors, "current", None))
            self._pools = [pool, SyncToAsync.single_thread_executor]
            self._context = context
            # What asgiref knows of the thread: the work that it does meanwhile changes that.
            self._before = vars(SyncToAsync.threadlocal).copy()
            context.run(setattr, executors, "current", self)

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
            executor: Any = self
            while executor is not None and executor._broken:
                executor = executor._old_executor
            if executor is not None:
                return super().submit(fn, *args, **kwds)
            for pool in self._pools:
                try:
                    if pool is not None:
                        return pool.submit(fn, *args, **kwds)  # type: ignore[no-any-return]
                except RuntimeError:  # it has been shut down
                    continue
            raise RuntimeError("cannot schedule new futures after shutdown")

        def notify(self) -> None:
            """`wait` is to return."""
            with self._work_ready:
                self._broken = True
                self._work_ready.notify()

        def wait(self, timeout: float) -> bool:
            """Does what is submitted, until `notify` was called: True; or for `timeout` seconds."""
            while True:
                with self._work_ready:
                    if not (self._work_items or self._broken):
                        self._work_ready.wait(timeout)
                    if not self._work_items:
                        return self._broken
                    item = self._work_items.popleft()
                item.run()
                del item

        def end(self, has_context: bool) -> None:
            """The wait is over. The context is free, or may be in use."""
            self.notify()
            self.wait(0)
            vars(SyncToAsync.threadlocal).update(self._before)
            with contextlib.nullcontext() if has_context else contextlib.suppress(RuntimeError):
                self._context.run(setattr, AsyncToSync.executors, "current", self._old_executor)

    return _Serving
