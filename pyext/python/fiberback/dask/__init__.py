"""Serves Dask: workers whose tasks wait side by side on the worker's event loop, and a sync client that suspends.

`Plugin` adds an executor to each worker of a cluster, and an annotation chooses it::

    client.register_plugin(fiberback.dask.Plugin())

    def page(url):                               # plain sync code, any number of frames deep
        return fiberback.await_(http.get(url)).text

    with dask.annotate(executor="fiberback"):
        pages = client.map(page, urls)           # 1,000 of them wait, on a worker with two threads

Each task is an asyncio task on a portal. It leaves the worker's slots when it begins, as by `distributed.secede()`, so that
how many wait does not depend on the worker's threads. Code that blocks holds up the worker: leave that to Dask's own
executor, which is there as ever.

`install()` has Dask's sync client (`client.gather`, `future.result()`, `compute()`) suspend its caller where an event loop
runs, instead of blocking it. In tasks of the executor it always does.
"""

# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "dask", "distributed")

from ._executor import Executor as Executor
from ._plugin import Plugin as Plugin
from ._sync import Installed as Installed
from ._sync import install as install
from ._sync import uninstall as uninstall

__all__ = ["Executor", "Installed", "Plugin", "install", "uninstall"]

for _each in (Executor, Installed, Plugin, install, uninstall):
    _each.__module__ = __name__  # also by pickle, in the worker
del _each
