"""Trio: new tasks get a portal when the nursery they start in was opened inside a portal scope.

Trio tells instruments about each task it spawns. One instrument serves all scopes of a run; it
remembers, for each task, how many nurseries that task had open when its scope began: children
of later nurseries inherit, children of those that enclose the scope do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .task_portal import bestow_portal

if TYPE_CHECKING:
    from trio.abc import Instrument
    from trio.lowlevel import Task
else:
    Instrument = object  # Trio calls the methods that exist; importing it here would load it


class AutoPortalInstrument(Instrument):
    """A Trio instrument that gives every task a portal: `trio.run(…, instruments=[it])`.

    Passed to `trio.run`, it covers the whole run, system tasks included. `portals_for_children`
    and its relatives add one to the run themselves while they need it. Meaning as in greenback.
    """

    _bestow = staticmethod(bestow_portal)

    def __init__(self) -> None:
        # task → the number of its nurseries whose children do not inherit
        self.tasks: dict[Task, int] = {}
        self.scopes = 0

    def __repr__(self) -> str:
        return f"<fiberback.AutoPortalInstrument: {len(self.tasks)} tasks in {self.scopes} scopes>"

    def before_run(self) -> None:
        self.scopes = 1  # the run itself is a scope that no `with` block ends
        _instrument_of_run().set(self)

    def task_spawned(self, task: Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None:
            parent = nursery.parent_task
            excluded = self.tasks.get(parent)
            if excluded is None or nursery in parent.child_nurseries[:excluded]:
                return
        self._bestow(task)
        self.tasks[task] = 0

    def task_exited(self, task: Task) -> None:
        self.tasks.pop(task, None)


_run_var: Any = None


def _instrument_of_run() -> Any:
    """The RunVar that holds the run's instrument; made on first use, because it needs Trio."""
    global _run_var
    if _run_var is None:
        import trio

        _run_var = trio.lowlevel.RunVar("fiberback_instrument", default=None)
    return _run_var


@contextlib.contextmanager
def portals_for_children(
    task: Task, make_instrument: type[AutoPortalInstrument] = AutoPortalInstrument
) -> Iterator[None]:
    import trio

    holder = _instrument_of_run()
    instrument = holder.get()
    if instrument is not None and task in instrument.tasks:
        yield
        return
    if instrument is None:
        instrument = make_instrument()
        trio.lowlevel.add_instrument(instrument)
        holder.set(instrument)
    instrument.tasks[task] = len(task.child_nurseries)
    instrument.scopes += 1
    try:
        yield
    finally:
        del instrument.tasks[task]
        instrument.scopes -= 1
        if instrument.scopes == 0:
            holder.set(None)
            trio.lowlevel.remove_instrument(instrument)


class detachable_portal:
    """A portal for the running task that can be taken off again, with a schedule point each."""

    def __init__(self, bestow: Callable[[Task], object] = bestow_portal) -> None:
        self._bestow = bestow

    async def __aenter__(self) -> None:
        import trio

        self._task = trio.lowlevel.current_task()
        self._inner = self._task.coro
        self._bestow(self._task)
        self._portal = self._task.coro
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def __aexit__(self, *exc: Any) -> None:
        import trio

        # Trio steps the inner coroutine itself from its next step on. The portal is between two
        # steps then, with nothing suspended in it.
        if self._task.coro is self._portal:
            self._task.coro = self._inner
        await trio.lowlevel.cancel_shielded_checkpoint()
