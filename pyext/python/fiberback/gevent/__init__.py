"""Stands in for asyncio-gevent: greenlets of gevent's and tasks of asyncio's wait for each other in one thread.

The names are asyncio-gevent 0.2.5's, and `run` and `enable`. There are two ways to begin:

- asyncio is there first, as in `fiberback.gevent.run(main())`: the running loop drives gevent's hub. Each task runs
  in a greenlet of its own, so that `gevent.sleep()`, a lock or a queue of gevent's in it has that task wait, however
  deep in sync code, and neither the loop nor other greenlets stand still. `enable()` does that in a loop that runs
  already.
- gevent is there first (`gevent.monkey.patch_all()`): an `EventLoop` runs in a greenlet, and its tasks are greenlets
  in the same way.

It works with the greenlet package as with `fiberback.greenlet`. gevent's hub has to run on libev (as it does, where
nobody has asked for libuv) with a backend that can be waited for (epoll, kqueue). Each task has a portal, too. What runs without a task or
without a greenlet of its own, a loop's callback say, can wait for gevent too, one at a time. A `gevent.Timeout`
ends gevent's waits and what a task awaits, but not an `await_()`.
"""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False

# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "gevent", "gevent")

from ._event_loop import EventLoop as EventLoop
from ._event_loop import EventLoopPolicy as EventLoopPolicy
from ._future_to_greenlet import async_to_sync as async_to_sync
from ._future_to_greenlet import future_to_greenlet as future_to_greenlet
from ._greenlet_to_future import greenlet_to_future as greenlet_to_future
from ._greenlet_to_future import sync_to_async as sync_to_async
from ._hub import Hub as Hub
from ._tasks import enable as enable
from ._tasks import run as run

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "async_to_sync",
    "enable",
    "future_to_greenlet",
    "greenlet_to_future",
    "run",
    "sync_to_async",
]

# What is public is found here, by pickle and in messages, too.
for _each in (*map(globals().__getitem__, __all__), Hub):
    _each.__module__ = __name__
del _each
