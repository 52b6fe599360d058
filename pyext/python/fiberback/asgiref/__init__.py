"""Stands in for asgiref: `async_to_sync` where a loop runs, and `sync_to_async` without a thread.

`from fiberback.asgiref import async_to_sync, sync_to_async` in place of `from asgiref.sync import ...` is all
that changes; or `fiberback.asgiref.install()`, once, for code that imports asgiref itself (Django, Channels).

- `async_to_sync` works in the loop's own thread, too, where asgiref's raises: the caller is suspended, and the
  loop goes on. In threads of `sync_to_async` it takes some three quarters of the time.
- `sync_to_async(fn, on_fiber=True)` calls `fn` in the loop's own thread, on a fiber: no thread hop, and what it
  waits for by `async_to_sync` or `fiberback.await_` suspends it. For code that does not block.
- Thread-sensitive code finds its thread also if that runs a loop itself, or if the `async_to_sync` that it was
  started in is over.

All else is asgiref's own: these classes are derived from asgiref's, and work together with code that uses those.
docs/coming-from-asgiref.md has before and after.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from .. import _extras, _messages

_extras.need(__name__, "asgiref", "asgiref")

import asgiref as _asgiref

if tuple(int(part) for part in _asgiref.__version__.split(".")[:2]) < (3, 13):
    raise ImportError(_messages.UNKNOWN_ASGIREF.format(version=_asgiref.__version__), name=__name__)

from asgiref.sync import AsyncSingleThreadContext as AsyncSingleThreadContext
from asgiref.sync import ThreadSensitiveContext as ThreadSensitiveContext
from asgiref.sync import iscoroutinefunction as iscoroutinefunction
from asgiref.sync import markcoroutinefunction as markcoroutinefunction

from ._async_to_sync import AsyncToSync as AsyncToSync
from ._async_to_sync import async_to_sync as async_to_sync
from ._install import Installed as Installed
from ._install import install as install
from ._install import uninstall as uninstall
from ._sync_to_async import SyncToAsync as SyncToAsync
from ._sync_to_async import sync_to_async as sync_to_async

__all__ = [
    "AsyncSingleThreadContext",
    "AsyncToSync",
    "Installed",
    "SyncToAsync",
    "ThreadSensitiveContext",
    "async_to_sync",
    "install",
    "iscoroutinefunction",
    "markcoroutinefunction",
    "sync_to_async",
    "uninstall",
]
