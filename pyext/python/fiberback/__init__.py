"""Await from ordinary, synchronous functions.

`await_(x)` waits for async work where `await x` cannot stand, however deep in the call stack, and the
event loop goes on meanwhile::

    import asyncio, fiberback

    async def fetch(url):
        await asyncio.sleep(0.1)
        return f"the page at {url}"

    def load(url):                           # plain sync code, any number of frames deep
        return fiberback.await_(fetch(url))

    async def main():
        print(load("https://example.org"))

    fiberback.run(main())                    # in place of asyncio.run(main())

What to do where:

- in a program of your own: `fiberback.run(main())`. It works inside a running loop, too;
- in a notebook, a debugger, a program that calls `asyncio.run`: call `await_`, nothing else; `%load_ext fiberback`
  makes `asyncio.run` work in cells, too;
- in a server, a test runner, on uvloop: `fiberback.enable(everywhere=True)` before its loop starts, or
  `fiberback.enable()` while it runs;
- on Trio: `trio.run(fiberback.with_portal_run_tree, main)`;
- for one task, or one call: `await ensure_portal()`, `await with_portal_run_sync(fn)`;
- in threads: `await to_thread(fn)`, and `asyncio.to_thread`, need nothing; elsewhere `parent_loop(loop)`;
- where there is no event loop: call `await_`; `thread_runner()` chooses the loop and closes it;
- several waits at once: `gather(a(), b())`, `map(fn, items, limit=8)`, `with TaskGroup() as group:`;
- in a library that cannot know: `sync(coroutine)`, or `@sync` on an `async def`;
- a class, an object or a module that is async, for sync code: `syncify(httpx.AsyncClient)`;
- blocking code that nobody is to change (requests, redis-py, time.sleep): `with blocking():`;
- where nothing may wait: `no_await()`;
- "my task hangs": `print(dump())`, `dump_on(signal.SIGQUIT)`, `stacks()`;
- "my loop is slow": `watch(threshold=0.1)` says who blocks it.

`fiberback.sqlalchemy`, `.django`, `.peewee`, `.dbapi`, `.asgi`, `.playwright`, `.psycopg2`, `.fsspec`, `.celery` and
`.dask` serve these libraries;
`from fiberback import greenback` serves code that was written for greenback, `from fiberback import nest`
code that was written for nest_asyncio, `fiberback.asgiref` code that was written for asgiref, `fiberback.gevent` for asyncio-gevent;
`fiberback.greenlet` is greenlet on fiberback's own fibers, for all that stands on it;
`fiberback.threads` has an event loop in a thread of its own, `fiberback.devlib` what devlib has of this kind.

`help(fiberback.await_)` has the details. `python -m fiberback` prints what it finds on this machine,
`python -m fiberback errors` what each error means.
"""

# Where things are, and why: the table in CONTRIBUTING.md, and docs/architecture.md.

from __future__ import annotations

import typing as _typing
from importlib import import_module as _import_module

# First of all: what `_fiberback` is, the native module ("native") or the fallback on greenlet ("pure").
from ._pure.choose import implementation as implementation

# isort: split
from ._await import dispatch as _dispatch
from ._await.can_await import can_await as can_await
from ._await.no_await import no_await as no_await
from ._await.wrappers import async_context as async_context
from ._await.wrappers import async_iter as async_iter
from ._await.wrappers import autoawait as autoawait
from ._await.wrappers import decorate_as_sync as decorate_as_sync
from ._blocking.blocking import blocking as blocking
from ._face.syncify import syncify as syncify
from ._fiberback import _C_API as _C_API  # for native extensions
from ._fiberback import StackMemoryError as StackMemoryError
from ._fiberback import __version__ as __version__
from ._fiberback import await_ as await_
from ._group.gather import gather as gather
from ._group.gather import map as map
from ._group.task_group import TaskGroup as TaskGroup
from ._group.task_group import TaskHandle as TaskHandle
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
from ._see.blocked import Blocked as Blocked
from ._see.dump import dump as dump
from ._see.dump_on import dump_on as dump_on
from ._see.stacks import Stack as Stack
from ._see.stacks import stacks as stacks
from ._see.watch import Watch as Watch
from ._see.watch import watch as watch
from ._stacks import get_stack_size as get_stack_size
from ._stacks import set_stack_size as set_stack_size
from ._stacks import stats as stats
from ._stacks import trim as trim
from ._sync.call import sync as sync
from ._thread.parent_loop import parent_loop as parent_loop
from ._thread.runner import close_thread_runner as close_thread_runner
from ._thread.runner import thread_runner as thread_runner
from ._thread.to_thread import to_thread as to_thread

__all__ = [
    "AutoPortalInstrument",
    "Blocked",
    "Enabled",
    "Stack",
    "StackMemoryError",
    "TaskGroup",
    "TaskHandle",
    "Watch",
    "__version__",
    "async_context",
    "async_iter",
    "autoawait",
    "await_",
    "bestow_portal",
    "blocking",
    "can_await",
    "close_thread_runner",
    "create_task_factory",
    "decorate_as_sync",
    "dump",
    "dump_on",
    "enable",
    "ensure_portal",
    "gather",
    "get_stack_size",
    "has_portal",
    "no_await",
    "parent_loop",
    "portals_for_children",
    "portals_for_tree",
    "run",
    "set_stack_size",
    "stacks",
    "stats",
    "sync",
    "syncify",
    "task_factory",
    "thread_runner",
    "to_thread",
    "trim",
    "watch",
    "with_portal_run",
    "with_portal_run_sync",
    "with_portal_run_tree",
]

# The modules for libraries are imported when they are first named: not all of these are there. (Type checkers
# want the import, or any misspelt name would pass.)
if not _typing.TYPE_CHECKING:

    def __getattr__(name):
        if name in (
            "asgi",
            "asgiref",
            "celery",
            "dask",
            "dbapi",
            "devlib",
            "django",
            "fsspec",
            "gevent",
            "greenback",
            "greenlet",
            "ipython",
            "nest",
            "peewee",
            "playwright",
            "psycopg2",
            "pytest",
            "sqlalchemy",
            "threads",
        ):
            return _import_module("." + name, __name__)
        if name in ("load_ipython_extension", "unload_ipython_extension"):  # `%load_ext fiberback`
            return getattr(_import_module(".ipython", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: object, pluginmanager: _typing.Any) -> None:
    """For `pytest -p fiberback`, which is to cost others nothing: the plugin is `fiberback.pytest`."""
    plugin = _import_module(".pytest", __name__)
    if not pluginmanager.is_registered(plugin):
        pluginmanager.register(plugin)


# They are this module's, wherever they lie: in `help()`, in pickles, in the repr of classes.
for _name in (*__all__, "map"):  # not in `__all__`: `import *` leaves the built-in function alone
    _value = globals()[_name]
    for _each in (_value, *(vars(_value).values() if isinstance(_value, type) else ())):
        _each = getattr(_each, "__func__", _each)  # of a staticmethod
        if (getattr(_each, "__module__", None) or "").startswith(__name__):
            _each.__module__ = __name__

_dispatch.install()
del _dispatch, _name, _value, _each
