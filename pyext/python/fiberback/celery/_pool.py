"""`Pool`: what the worker hands its requests to."""

# Celery has no types.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import signals
from celery.concurrency.base import BasePool
from celery.worker import state

from .. import _messages
from .._see.watch import Watch, watch
from .._sync.loop_thread import LoopThread
from ._bodies import Bodies
from ._job import Job
from ._main_thread import MainThread
from ._waits import Waits

logger = logging.getLogger("fiberback")

_PATIENCE = 5.0  # seconds in which terminated tasks are to end, and then what they have left behind


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class Pool(BasePool):
    """Celery's worker pool on one event loop; see `fiberback.celery`.

    At most `limit` tasks (the worker's concurrency) are begun and not over; the others wait here, in their order, and can
    still be revoked. `in_thread=True` of a task (an option of `app.task`, or by `task_annotations`) has a thread run it.
    """

    signal_safe = False
    task_join_will_block = False
    body_can_be_buffer = True
    limit: int

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self._waiting: deque[Job] = deque()
        self._jobs: set[Job] = set()
        self._is_told = False  # the loop, that there is something to begin
        self._main = MainThread()
        self._thread: LoopThread | None = None
        self._bodies: Bodies | None = None
        self._waits: Waits | None = None
        self._watch: Watch | None = None

    # --- the worker begins ---------------------------------------------------------------------------

    def on_start(self) -> None:
        _, hostname = self.options.get("initargs") or (None, None)
        self._bodies = Bodies(self.app, hostname)
        self._waits = Waits()
        self._thread = LoopThread(loop_factory=_loop_factory(), name="fiberback.celery")
        self._loop = self._thread.loop
        threads = ThreadPoolExecutor(self.limit, thread_name_prefix="fiberback.celery")
        self._loop.call_soon_threadsafe(self._loop.set_default_executor, threads)
        threshold = self.app.conf.get("fiberback_watch", 1.0)
        if threshold:
            self._watch = watch(threshold=threshold)
        # As in Celery's pools that have one process: per-process resources are made by its receivers.
        signals.worker_process_init.send(sender=hostname)

    def register_with_event_loop(self, hub: Any) -> None:
        self._main.serve(hub)

    # --- what the worker asks for --------------------------------------------------------------------

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        timeout_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Job:
        assert self._bodies is not None
        name = args[0] if args else None
        task = self._bodies.task(name) if isinstance(name, str) else None
        job = Job(
            target,
            args or (),
            kwargs or {},
            callback=callback or _nothing,
            accept_callback=accept_callback or _nothing,
            error_callback=error_callback or _nothing,
            timeout_callback=timeout_callback or _nothing,
            soft_timeout=soft_timeout or self.options.get("soft_timeout"),
            timeout=timeout or self.options.get("timeout"),
            in_thread=bool(getattr(task, "in_thread", False)),
            post=self._main.post,
            over=self._over,
        )
        # A timer of the worker's may come with one while it ends, which is not acknowledged.
        if self._state in (None, self.RUN):
            self._waiting.append(job)
            self._tell()
        return job

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing: the worker's process is the same for all tasks, and Celery calls `Job.terminate` besides."""

    def grow(self, n: int = 1) -> None:
        self.limit += n
        self._tell()

    def shrink(self, n: int = 1) -> None:
        """Those that have begun go on."""
        self.limit = max(self.limit - n, 0)

    def flush(self) -> None:
        """The connection to the broker is lost, which will deliver anew what has not begun."""
        self._waiting.clear()

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {
            **info,
            "running": len(self._jobs),
            "waiting": len(self._waiting),
            "loop": f"{type(self._loop).__module__}.{type(self._loop).__qualname__}",
        }

    # --- in the loop's thread ------------------------------------------------------------------------

    def _tell(self) -> None:
        """From any thread. What comes when the pool has ended does not begin, and is not acknowledged."""
        if not self._is_told and self._thread is not None:
            self._is_told = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._is_told = False
        while len(self._jobs) < self.limit:
            try:
                job = self._waiting.popleft()
            except IndexError:
                return
            self._jobs.add(job)
            if _may_be_revoked(job.request):
                # It may have been revoked, or expired, while it waited here: Celery says that in its own thread.
                self._main.post(self._ask, job)
            else:
                job.start(self._loop)

    def _ask(self, job: Job) -> None:
        """In the worker's thread."""
        answer = self._over
        try:
            if not job.request.revoked():
                answer = self._start
        finally:  # Celery may not have been able to store that it was revoked
            self._loop.call_soon_threadsafe(answer, job)

    def _start(self, job: Job) -> None:
        job.start(self._loop)

    def _over(self, job: Job) -> None:
        self._jobs.discard(job)
        if self._waiting:
            self._begin()
        if not self._jobs:
            self._main.post(_nothing)  # `_until_idle` waits for it

    # --- the worker ends -----------------------------------------------------------------------------

    def on_close(self) -> None:
        """What has not begun has not been acknowledged, either."""
        self._waiting.clear()

    def on_stop(self) -> None:
        if state.should_terminate:  # Celery stops pools, too, in a cold shutdown
            self.on_terminate()
            return
        self._waiting.clear()
        if self._thread is None:
            return
        self._until_idle(None)
        self._end()

    def on_terminate(self) -> None:
        self._waiting.clear()
        if self._thread is None:
            return
        for job in list(self._jobs):
            job.terminate()
        if self._until_idle(_PATIENCE) and self._end(_PATIENCE):
            return
        logger.warning(_messages.CELERY_LEFT.format(jobs=sorted(map(repr, self._jobs))))
        self._thread = None
        _do_not_wait_for_threads()
        self._undo()

    def _until_idle(self, patience: float | None) -> bool:
        """In the worker's thread, whose part of the work goes on: what ends is to be acknowledged.

        A signal handler may terminate the pool meanwhile.
        """
        return self._main.run_until(lambda: not self._jobs or self._thread is None, patience)

    def _end(self, patience: float | None = None) -> bool:
        """Whether it has in so many seconds: tasks and threads that bodies have left behind are waited for."""
        thread, self._thread = self._thread, None
        if thread is not None:
            closing = threading.Thread(target=thread.close, daemon=True)
            closing.start()
            closing.join(patience)
            if closing.is_alive():
                return False
        self._undo()
        self._main.run_all()
        return True

    def _undo(self) -> None:
        for each in (self._bodies, self._waits):
            if each is not None:
                each.undo()
        if self._watch is not None:
            self._watch.stop()
        self._main.close()


def _may_be_revoked(request: Any) -> bool:
    if request is None:
        return False
    return bool(request.expires or state.revoked_stamps or request.id in state.revoked)


def _do_not_wait_for_threads() -> None:
    """At its end the interpreter waits for the threads of executors, for as long as they block. This process is not to."""
    ends = threading.Event()

    def end() -> None:
        ends.wait()
        time.sleep(_PATIENCE)
        os._exit(1)

    # Called before that of `concurrent.futures`, which was registered earlier.
    threading._register_atexit(ends.set)  # type: ignore[attr-defined]
    threading.Thread(target=end, name="fiberback.celery end", daemon=True).start()
