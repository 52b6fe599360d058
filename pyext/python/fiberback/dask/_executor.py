"""`Executor`: what runs a worker's tasks on its event loop."""

# Dask has few types.
# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-call"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from distributed import Reschedule
from distributed.worker import _worker_cvar
from distributed.worker_state_machine import SecedeEvent

from .. import _messages
from .._portal.call_portal import with_portal_run_sync

# The asyncio task that is a task of Dask's, as this context has it; those that it starts are not.
current: ContextVar[asyncio.Task[Any] | None] = ContextVar("fiberback_dask_task", default=None)


class Executor(concurrent.futures.Executor):
    """One of a worker's `executors`; `submit` is called by the worker, in its event loop.

    `limit`: how many tasks may wait here and leave the worker's slots to others. Those beyond it
    keep their slots, so that the scheduler sends no more.
    """

    def __init__(self, worker: Any, limit: int = 1000) -> None:
        self._worker = worker
        self._limit = limit
        self._tasks: dict[asyncio.Task[Any], Any] = {}
        self._begun: set[Any] = set()
        self._cancelled: set[Any] = set()
        self._is_shut_down = False

    def __repr__(self) -> str:
        return f"<fiberback.dask.Executor: {len(self._tasks)} tasks, limit={self._limit}>"

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Raises RuntimeError once it was shut down, as all executors do."""
        if self._is_shut_down:
            raise RuntimeError(_messages.DASK_SHUT_DOWN)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        key = getattr(args[0], "key", None) if args else None
        loop = asyncio.get_running_loop()
        # Past the loop's factory: the portal is made for the call.
        task = asyncio.Task(self._run(future, key, fn, args, kwargs), loop=loop, name=str(key))
        self._tasks[task] = key
        task.add_done_callback(self._over)
        return future

    async def _run(
        self,
        future: concurrent.futures.Future[Any],
        key: Any,
        fn: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> None:
        self._begun.add(key)
        _worker_cvar.set(self._worker)
        current.set(asyncio.current_task())
        if len(self._tasks) <= self._limit:
            self._leave_slot(key)
        try:
            result = await with_portal_run_sync(fn, *args, **kwargs)
            if key in self._cancelled and _is_cancelled(result):
                # Dask may want it again meanwhile, and is not to take this for its outcome.
                result["actual_exception"] = Reschedule()
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _leave_slot(self, key: Any) -> None:
        """What `distributed.secede()` does."""
        state = self._worker.state.tasks.get(key)
        if state is not None and state.state == "executing":
            now = time.time()
            # By this the scheduler tells who is busy. With 0 all workers were idle, and the first would get all.
            duration = max(now - (state.start_time or now), 1e-4)
            self._worker.handle_stimulus(
                SecedeEvent(key=key, compute_duration=duration, stimulus_id=f"secede-{now}")
            )

    def cancel(self, key: Any) -> None:
        """In the worker's loop: CancelledError is raised where that task waits."""
        for task, each in self._tasks.items():
            if each == key and key in self._begun:
                self._cancelled.add(key)
                task.cancel()

    def _over(self, task: asyncio.Task[Any]) -> None:
        key = self._tasks.pop(task)
        self._begun.discard(key)
        self._cancelled.discard(key)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What waits is cancelled, for its loop ends. Called in any thread; does not wait, whatever `wait` is."""
        self._is_shut_down = True
        for task in list(self._tasks):
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)


def _is_cancelled(result: Any) -> bool:
    """Whether the body ended so, in what the worker's own function makes of that."""
    return isinstance(result, dict) and isinstance(
        result.get("actual_exception"), asyncio.CancelledError
    )
