"""`install` and `uninstall`: code that imports asgiref itself is served, too."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from . import _async_to_sync, _sync_to_async

_lock = threading.Lock()
_installed: list[Installed] = []


def install(*, on_fiber: bool = False) -> Installed:
    """Have asgiref's own `async_to_sync` and `sync_to_async` do what this module's do, in the whole process.

    Whoever has imported them, and whatever they have decorated, before or later: Django, Channels and its
    `database_sync_to_async`. `with install():` takes back at its end what that call did; `uninstall()` takes
    all back.

    `on_fiber`: thread-sensitive functions of `sync_to_async`, this module's, too, run on a fiber in the loop's
    thread where asgiref would choose the process's one thread, or one for a `ThreadSensitiveContext`. Others
    keep to their threads. For programs whose sync code does not block: under Django, those whose databases are
    fiberback's (`fiberback.django`). The last call decides.
    """
    with _lock:
        installed = Installed(on_fiber)
        _installed.append(installed)
        _put_in_force()
    return installed


def uninstall() -> None:
    """Give asgiref its own ways back; does nothing where nothing is installed. Calls that wait go on as they
    would have."""
    with _lock:
        _installed.clear()
        _put_in_force()


class Installed:
    """What `install` returns, for `with`."""

    def __init__(self, on_fiber: bool) -> None:
        self.on_fiber = on_fiber

    def __repr__(self) -> str:
        state = f"on_fiber={self.on_fiber}" if self in _installed else "undone"
        return f"<fiberback.asgiref.Installed: {state}>"

    def __enter__(self) -> Installed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            if self in _installed:
                _installed.remove(self)
            _put_in_force()


_METHODS: list[tuple[Any, Any, Any]] = [
    (module.stock_class, module.stock_call, module.call)
    for module in (_async_to_sync, _sync_to_async)
]


def _put_in_force() -> None:
    _sync_to_async.by_default_on_fiber = bool(_installed) and _installed[-1].on_fiber
    for cls, stock, ours in _METHODS:
        present = vars(cls)["__call__"]
        if _installed and present is stock:
            cls.__call__ = ours
        elif not _installed and present is ours:  # and nothing that somebody else has put there
            cls.__call__ = stock
