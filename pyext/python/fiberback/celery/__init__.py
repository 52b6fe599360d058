"""Serves Celery: a worker pool whose tasks, sync functions and `async def`, wait side by side on one event loop.

All there is to type is the worker's `--pool`::

    celery -A app worker --pool=fiberback.celery:Pool -c 1000

(or CELERY_CUSTOM_WORKER_POOL=fiberback.celery:Pool and `--pool=custom`)::

    @app.task
    def page(url):                               # plain sync code, any number of frames deep
        return fiberback.await_(client.get(url)).text

    @app.task
    async def pages(urls):                       # is awaited
        return [r.text for r in await asyncio.gather(*map(client.get, urls))]

    @app.task(in_thread=True)                    # blocks: has a thread
    def thumbnail(path): ...

One loop for each worker process, uvloop's where that is installed, runs in a thread of its own; the worker goes on in
the main thread, so heartbeats, remote control and shutdowns do not depend on what tasks do. `-c` is how many tasks are
begun and not over. `result.get()` and the retries of result backends suspend the task that calls them.

Time limits and termination arrive where a task waits: SoftTimeLimitExceeded is raised there, and what ends it for good
is `asyncio.CancelledError`. Code that does not wait is not interrupted. Who blocks the loop for longer than the setting
`fiberback_watch` (seconds, 1.0; None or 0 for never) is named in the log "fiberback".
"""

# ruff: noqa: E402

from __future__ import annotations

from .. import _extras

_extras.need(__name__, "celery", "celery")

from ._pool import Pool as Pool

__all__ = ["Pool"]

Pool.__module__ = __name__
