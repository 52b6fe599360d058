"""`install` and `uninstall`: code that imports asgiref itself is served, too."""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import functools
import inspect
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


class _Method:
    """`__call__` of one of asgiref's classes while ours is there, below or above what others put there
    (`fiberback.django` does). Ours acts while something is installed, else what was there before."""

    def __init__(self, cls: Any, ours: Any) -> None:
        before = vars(cls)["__call__"]
        if inspect.iscoroutinefunction(before):

            async def call(self: Any, /, *args: Any, **kwds: Any) -> Any:
                return await (ours if _installed else before)(self, *args, **kwds)

        else:

            def call(self: Any, /, *args: Any, **kwds: Any) -> Any:
                return (ours if _installed else before)(self, *args, **kwds)

        self._cls, self._before = cls, before
        self._call = cls.__call__ = functools.wraps(before)(call)

    def is_in(self, cls: Any) -> bool:
        return vars(cls)["__call__"] is self._call

    def take_back(self) -> bool:
        """False where somebody has wrapped it since: there it stays, without effect."""
        if not self.is_in(self._cls):
            return False
        self._cls.__call__ = self._before
        return True


_methods: list[_Method] = []


def _put_in_force() -> None:
    _sync_to_async.by_default_on_fiber = bool(_installed) and _installed[-1].on_fiber
    if not _installed:
        # The last one first, which is the outermost.
        left = [method for method in reversed(_methods) if not method.take_back()]
        _methods[:] = reversed(left)
        return
    for module in (_async_to_sync, _sync_to_async):
        cls = module.stock_class
        if not any(method.is_in(cls) for method in _methods):
            _methods.append(_Method(cls, module.call))
