"""The event loop that runs in a greenlet of gevent's, and the policy that makes such loops."""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import sys
from typing import Any

import gevent.hub
import gevent.selectors

from ._hub import adopted
from ._tasks import in_greenlets


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop that runs in a greenlet of gevent's, each of its tasks in one of its own."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__(selector or gevent.selectors.DefaultSelector())
        in_greenlets(self)

    def run_forever(self) -> None:
        forever = super().run_forever

        def until_stopped() -> BaseException | None:
            try:
                forever()
            except BaseException as error:
                return error
            return None

        adopted(gevent.get_hub())
        error = gevent.spawn(until_stopped).get()
        if error is not None:
            raise error


# Without the warning of 3.14, for those who do not ask for policies.
_loops: Any = sys.modules[asyncio.SelectorEventLoop.__module__]
_Policy: Any = getattr(_loops, "_DefaultEventLoopPolicy", None) or asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(_Policy):
    """The default policy, but each loop is an `EventLoop`."""

    _loop_factory = EventLoop
