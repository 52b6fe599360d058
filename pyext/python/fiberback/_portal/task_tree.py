"""Portals for a task and everything it starts: one vocabulary for Trio and asyncio.

On Trio this is greenback's meaning: children of nurseries opened inside the scope inherit. On
asyncio (where greenback offers nothing) tasks created inside the scope inherit, and their
children in turn, also those that outlive the scope.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

from .. import _messages
from .._blocks import async_block, block
from .._loop.current_task import current_task
from .._loop.library import current_library
from . import task_factory, trio_instrument
from .call_portal import refuse_what_is_called, with_portal_run
from .task_portal import ensure_portal, usable_portal

T = TypeVar("T")
P = ParamSpec("P")


@block
def portals_for_children() -> Iterator[None]:
    """A `with` block whose new child tasks have portals; the task itself gets none.

    Raises RuntimeError outside a task of asyncio or Trio. Meaning as in greenback on Trio.
    """
    task = current_task()
    if task is None:
        raise RuntimeError(_messages.NO_CURRENT_TASK)
    scope: AbstractContextManager[None]
    if current_library() == "trio":
        scope = trio_instrument.portals_for_children(task)
    else:
        scope = task_factory.portals_for_children()
    with scope:
        yield


@async_block
async def portals_for_tree() -> AsyncIterator[None]:
    """An `async with` block in which this task and its new children have portals.

    Under Trio, entering and leaving are schedule points but not cancellation points, and a portal
    made on entry is taken off on exit. Under asyncio, entering is a checkpoint and the portal
    stays for the rest of the task's life. Raises RuntimeError outside a task of asyncio or Trio.
    """
    with portals_for_children():
        if current_library() != "trio":
            await ensure_portal()
            yield
        elif usable_portal(current_task()):
            import trio

            await trio.lowlevel.cancel_shielded_checkpoint()
            try:
                yield
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            async with trio_instrument.detachable_portal():
                yield


async def with_portal_run_tree(
    async_fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
) -> T:
    """`await async_fn(*args, **kwds)`, with portals for it and for all the tasks it starts.

    Adds no checkpoint. `trio.run(with_portal_run_tree, main)` covers a whole Trio program; on
    asyncio `fiberback.run(main())` is the shorter way. Raises RuntimeError outside a task of
    asyncio or Trio.
    """
    refuse_what_is_called("with_portal_run_tree", async_fn)
    with portals_for_children():
        return await with_portal_run(async_fn, *args, **kwds)
