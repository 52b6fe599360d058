"""gevent's hub, which a running event loop may drive."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from asyncio import AbstractEventLoop, _get_running_loop
from typing import Any

import gevent.hub
from gevent import getcurrent

from ._drive import Drive
from ._hub_loop import HubLoop
from ._task_greenlet import TaskGreenlet
from ._ways import is_on_gevent


class Hub(gevent.hub.Hub):
    """gevent's hub, which a running event loop may drive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop: Any = HubLoop(self.loop)

    def switch(self) -> Any:
        """Has the calling code wait until somebody switches to its greenlet."""
        current = getcurrent()
        is_tasks = isinstance(current, TaskGreenlet)
        if is_tasks or current.parent is None:
            event_loop = _get_running_loop()
            if event_loop is not None and not is_on_gevent(event_loop):
                drive = Drive.of(event_loop, adopted(self))
                if not is_tasks:
                    return drive.wait()
                drive.soon()
        if is_tasks:
            return current.wait()
        return super().switch()


def adopted(hub: Any) -> Any:
    """gevent's hub of the thread, made one of ours."""
    if type(hub) is gevent.hub.Hub:
        hub.__class__ = Hub
    if not isinstance(hub.loop, HubLoop):
        hub.loop = HubLoop(hub.loop, is_late=True)
    return hub


def drive(event_loop: AbstractEventLoop) -> None:
    """Has a running loop drive the hub of its thread, unless it runs in a greenlet of gevent's itself."""
    if not is_on_gevent(event_loop):
        Drive.of(event_loop, adopted(gevent.get_hub()))


gevent.hub.set_default_hub_class(Hub)
