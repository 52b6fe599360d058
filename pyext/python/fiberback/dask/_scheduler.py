"""What is done in Dask's scheduler, so that tasks that leave their slots at once are sent at once."""

# Dask has few types.
# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-call,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import logging
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from .. import _messages

logger = logging.getLogger("fiberback")

# No host has this name.
_ANY = "fiberback: any host"


class SentAtOnce(SchedulerPlugin):
    """The scheduler keeps most of a large group of tasks back, and sends one when a worker's slot is free ("queuing"). Here that
    is when a task has left its slot: a message each way for every few tasks. Those with restrictions are not kept back; so
    they get one that any worker may overstep.
    """

    idempotent = True

    def __init__(self, executor: str) -> None:
        self.name = f"fiberback.dask {executor} in the scheduler"
        self._executor = executor
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def transition(self, key: Any, start: Any, finish: Any, *_: Any, **__: Any) -> None:
        """Where no worker runs, nothing is gained, and a worker that comes gets only what it satisfies the restrictions of."""
        if finish == "no-worker":
            task = self._scheduler.tasks.get(key)
            if task is not None and task.host_restrictions == {_ANY}:
                task.host_restrictions = None
                task.loose_restrictions = False

    def update_graph(self, scheduler: Any, *, annotations: Any = None, **_: Any) -> None:
        for key, executor in (annotations or {}).get("executor", {}).items():
            task = scheduler.tasks.get(key)
            # Its own restrictions, if it has some, are reason enough.
            if executor == self._executor and task is not None and scheduler.is_rootish(task):
                task.host_restrictions = {_ANY}
                task.loose_restrictions = True


async def send_at_once(worker: Any, executor: str) -> None:
    """Has the worker's scheduler do so. Without that tasks are as ever, only later."""
    plugin = SentAtOnce(executor)
    try:
        await worker.scheduler.register_scheduler_plugin(
            plugin=dumps(plugin), name=plugin.name, idempotent=True
        )
    except Exception as error:  # fiberback is not installed there, or it takes no plugins
        logger.warning(_messages.DASK_QUEUED.format(error=error))
