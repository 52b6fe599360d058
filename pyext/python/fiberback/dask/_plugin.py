"""`Plugin`: a worker's executor, and what the worker tells it."""

# Dask has few types.
# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-call,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from ._executor import Executor
from ._scheduler import send_at_once
from ._sync import in_tasks


class Plugin(WorkerPlugin):
    """For `client.register_plugin(Plugin())`: workers that are there, and those that come, run what is annotated
    `executor="fiberback"` (or another `executor`) on their event loops. `limit` is that of `Executor`.

    A task of which Dask wants nothing any more (`future.cancel()`) is cancelled where it waits.
    """

    def __init__(self, executor: str = "fiberback", limit: int = 1000) -> None:
        self.name = f"fiberback.dask {executor}"
        self._executor = executor
        self._limit = limit
        self._in_worker: Executor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_in_worker": None}

    async def setup(self, worker: Any) -> None:
        in_tasks()
        self._in_worker = worker.executors[self._executor] = Executor(worker, self._limit)
        await send_at_once(worker, self._executor)

    def teardown(self, worker: Any) -> None:
        executor, self._in_worker = self._in_worker, None
        if executor is not None and worker.executors.get(self._executor) is executor:
            del worker.executors[self._executor]
            executor.shutdown()

    def transition(self, key: Any, start: Any, finish: Any, **_: Any) -> None:
        running = ("executing", "long-running")
        if start in running and finish == "released" and self._in_worker is not None:
            self._in_worker.cancel(key)
