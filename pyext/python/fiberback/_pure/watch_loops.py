"""Loops that begin to run: each calls `asyncio._set_running_loop` then, in whose place ours is put.

uvloop takes that function when it is imported; where it has been by then, its class's `run_forever` is wrapped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from .report import report

_hook: Callable[[Any], object] | None = None
_original: Any = asyncio.events._set_running_loop
_MODULES: tuple[Any, ...] = (asyncio, asyncio.events)


def _tell(loop: Any) -> None:
    if _hook is None or loop is None:
        return
    try:
        _hook(loop)
    except Exception as error:
        # The loop is to run, whatever is wrong with us.
        report(error, _hook)


def _set_running_loop(loop: Any, /) -> None:
    _original(loop)
    _tell(loop)


def watch_loops(hook: Callable[[Any], object] | None, /) -> None:
    """Call hook(loop) whenever an event loop of any class begins to run; None ends it."""
    global _hook, _original
    _hook = hook
    for module in _MODULES:
        if hook is not None and module._set_running_loop is not _set_running_loop:
            _original = module._set_running_loop
            module._set_running_loop = _set_running_loop
        elif hook is None and module._set_running_loop is _set_running_loop:
            module._set_running_loop = _original
    _wrap_uvloop(hook is not None)


def _wrap_uvloop(wrap: bool) -> None:
    loop_class: Any = getattr(sys.modules.get("uvloop"), "Loop", None)
    if loop_class is None:
        return
    own = vars(loop_class).get("run_forever")
    if wrap and own is None:

        def run_forever(self: Any) -> Any:
            _tell(self)
            return super(loop_class, self).run_forever()

        run_forever.__module__ = __name__
        loop_class.run_forever = run_forever
    elif not wrap and getattr(own, "__module__", None) == __name__:
        del loop_class.run_forever
