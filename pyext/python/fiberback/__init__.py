"""Await from ordinary, synchronous functions.

To let sync code wait for async work, give its task a *portal* and call `await_`::

    import asyncio, fiberback

    def load(url):                       # plain sync code, any number of frames deep
        return fiberback.await_(fetch(url))

    async def main():
        print(load("https://example.org"))

    fiberback.run(main())                # like asyncio.run(); every task has a portal

Where you do not start the loop yourself, a single task gets its portal by `ensure_portal()`, or
one call by `with_portal_run()` / `with_portal_run_sync()`. All of this works on asyncio, uvloop
and Trio; `run` and the task factories are asyncio's. `fiberback.greenback` is a drop-in
replacement of the greenback package.

`await_` works in worker threads, too, and where there is no event loop at all; see its docstring.
`no_await` forbids it for a region.

General layout: the native module `_fiberback` owns stacks and switching. Above it lie rooms, each
named after the question that it answers (its first line says it) and importing only from those before it:

- `_messages`, `_stacks`, `_thread_end`, `_user_frames`: what every room stands on;
- `_loop`: what it needs of the event loop; `_portal`: who gets a portal; `_deadlock`: whether a wait
  can ever end; `_thread`: how a thread without a loop waits; `_await`: what `await_` does, place by
  place; `_run`: how a program begins;
- this file: the public names;
- libraries that we serve, each under its name; the first line begins with "Serves";
- libraries that we stand in for, each under its name; the first line begins with "Stands in for".

`tests/python/test_layout.py` holds us to it.
"""

from __future__ import annotations

from ._await import dispatch as _dispatch
from ._await.can_await import can_await as can_await
from ._await.no_await import no_await as no_await
from ._await.wrappers import async_context as async_context
from ._await.wrappers import async_iter as async_iter
from ._await.wrappers import autoawait as autoawait
from ._await.wrappers import decorate_as_sync as decorate_as_sync
from ._fiberback import StackMemoryError as StackMemoryError
from ._fiberback import __version__ as __version__
from ._fiberback import await_ as await_
from ._portal.call_portal import with_portal_run as with_portal_run
from ._portal.call_portal import with_portal_run_sync as with_portal_run_sync
from ._portal.task_factory import create_task_factory as create_task_factory
from ._portal.task_factory import task_factory as task_factory
from ._portal.task_portal import bestow_portal as bestow_portal
from ._portal.task_portal import ensure_portal as ensure_portal
from ._portal.task_portal import has_portal as has_portal
from ._portal.task_tree import portals_for_children as portals_for_children
from ._portal.task_tree import portals_for_tree as portals_for_tree
from ._portal.task_tree import with_portal_run_tree as with_portal_run_tree
from ._portal.trio_instrument import AutoPortalInstrument as AutoPortalInstrument
from ._run.enable import Enabled as Enabled
from ._run.enable import enable as enable
from ._run.run import run as run
from ._stacks import get_stack_size as get_stack_size
from ._stacks import set_stack_size as set_stack_size
from ._stacks import stats as stats
from ._stacks import trim as trim
from ._thread.parent_loop import parent_loop as parent_loop
from ._thread.runner import close_thread_runner as close_thread_runner
from ._thread.runner import thread_runner as thread_runner
from ._thread.to_thread import to_thread as to_thread

__all__ = [
    "AutoPortalInstrument",
    "Enabled",
    "StackMemoryError",
    "__version__",
    "async_context",
    "async_iter",
    "autoawait",
    "await_",
    "bestow_portal",
    "can_await",
    "close_thread_runner",
    "create_task_factory",
    "decorate_as_sync",
    "enable",
    "ensure_portal",
    "get_stack_size",
    "has_portal",
    "no_await",
    "parent_loop",
    "portals_for_children",
    "portals_for_tree",
    "run",
    "set_stack_size",
    "stats",
    "task_factory",
    "thread_runner",
    "to_thread",
    "trim",
    "with_portal_run",
    "with_portal_run_sync",
    "with_portal_run_tree",
]

_dispatch.install()
del _dispatch
