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

General layout: the native module `_fiberback` owns stacks and switching; `_libraries` knows
which event loop is running; `_portals` makes portals; `_hooks` decides what `await_` does where
there is none; `_greenlets` has the native side meet the greenlet package; without a loop in the
thread, `_anywhere` asks `_parents` for one in another thread, which `_lines` lead to, or else `_runners`;
`_guards` and `_deadlock` refuse what must not wait, `_watch` looks again at what was let wait, and
`_closing` ends what can wait no longer; `_trio`, `_asyncio` and `_tree` hand portals down to child
tasks; `_run` is the asyncio entry point, `_inner_run` that inside a running loop;
`_utilities` is built on `await_` alone; `_stacks` counts and sizes the stacks. `_messages` has
every text a user can meet, `_users` tells their frames from ours.
"""

from __future__ import annotations

from . import _hooks
from ._asyncio import create_task_factory as create_task_factory
from ._asyncio import task_factory as task_factory
from ._enable import Enabled as Enabled
from ._enable import enable as enable
from ._fiberback import StackMemoryError as StackMemoryError
from ._fiberback import __version__ as __version__
from ._fiberback import await_ as await_
from ._guards import no_await as no_await
from ._parents import parent_loop as parent_loop
from ._portals import bestow_portal as bestow_portal
from ._portals import ensure_portal as ensure_portal
from ._portals import has_portal as has_portal
from ._portals import with_portal_run as with_portal_run
from ._portals import with_portal_run_sync as with_portal_run_sync
from ._possible import can_await as can_await
from ._run import run as run
from ._runners import close_thread_runner as close_thread_runner
from ._runners import thread_runner as thread_runner
from ._stacks import get_stack_size as get_stack_size
from ._stacks import set_stack_size as set_stack_size
from ._stacks import stats as stats
from ._stacks import trim as trim
from ._to_thread import to_thread as to_thread
from ._tree import portals_for_children as portals_for_children
from ._tree import portals_for_tree as portals_for_tree
from ._tree import with_portal_run_tree as with_portal_run_tree
from ._trio import AutoPortalInstrument as AutoPortalInstrument
from ._utilities import async_context as async_context
from ._utilities import async_iter as async_iter
from ._utilities import autoawait as autoawait
from ._utilities import decorate_as_sync as decorate_as_sync

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

_hooks.install()
del _hooks
