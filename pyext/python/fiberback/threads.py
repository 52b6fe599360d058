"""Stands in for loop-in-a-thread recipes: `LoopThread`, an event loop in a thread of its own.

For what people write with `asyncio.run_coroutine_threadsafe` and a daemon thread. Beside it, in the words of others:
`ThreadRunner` (asyncio-thread-runner), `start_blocking_portal` (AnyIO), `asyncio_run` (asyncio-anywhere).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from . import _messages
from ._run.nested import run_in_task
from ._run.run import debugging, run
from ._sync.blocking_portal import BlockingPortal as BlockingPortal
from ._sync.call import sync
from ._sync.loop_thread import LoopThread as LoopThread

__all__ = ["BlockingPortal", "LoopThread", "ThreadRunner", "asyncio_run", "start_blocking_portal"]

T = TypeVar("T")

LoopThread.__module__ = BlockingPortal.__module__ = __name__


class ThreadRunner(LoopThread):
    """`LoopThread`, with asyncio-thread-runner's name for `submit`."""

    def run_as_future(self, coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """`submit`."""
        return self.submit(coro)


def start_blocking_portal(
    backend: str = "asyncio",
    backend_options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
) -> BlockingPortal:
    """What AnyIO's function of this name gives: a portal to a loop in a new thread, for a `with` block.

    `backend_options` are AnyIO's for asyncio: `debug`, `loop_factory`, `use_uvloop`. Called where a loop runs,
    the portal's methods suspend their caller, and that loop goes on; in the portal's own loop, too.

    Raises ValueError for another backend: AnyIO has one for Trio.
    """
    if backend != "asyncio":
        raise ValueError(_messages.PORTAL_BACKEND.format(backend=backend))
    options = dict(backend_options or {})
    if options.pop("use_uvloop", False) and "loop_factory" not in options:
        import uvloop

        options["loop_factory"] = uvloop.new_event_loop
    return BlockingPortal(name=name or "fiberback.BlockingPortal", **options)


def asyncio_run(
    coro: Coroutine[Any, Any, T],
    debug: bool | None = None,
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """`asyncio.run(coro, debug=debug)`, wherever that is; what `coro` raises is raised.

    Inside a running loop, `coro` runs as a task of that loop, which goes on; the tasks that it leaves behind are
    cancelled and waited for. On a loop on which nothing can wait here (uvloop's without a portal) the loop of a
    helper thread runs it instead, in a copy of the caller's context, and the caller's is blocked. `loop_factory`
    (`uvloop.new_event_loop`, which asyncio-anywhere takes by itself) is used where no loop runs.

    Raises TypeError for anything but a coroutine.
    """
    loop = _get_running_loop()
    if loop is None or not asyncio.iscoroutine(coro):
        return run(coro, debug=debug, loop_factory=loop_factory)
    with debugging(loop, debug):
        try:
            return sync(_in_task(coro), fallback="thread")
        finally:
            coro.close()  # if it could not even begin


async def _in_task(coro: Coroutine[Any, Any, T]) -> T:
    return await run_in_task(asyncio.get_running_loop(), coro)
