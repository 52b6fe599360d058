"""Pyodide: WebAssembly's own stack switching in place of greenlets, where the engine has it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from types import CoroutineType
from typing import Any

from .. import _messages
from .contexts import set_all
from .hooks import hooks

is_here = sys.platform == "emscripten"


def can_wait() -> bool:
    """Whether this code is where Pyodide can switch stacks."""
    if not is_here:
        return False
    from pyodide.ffi import can_run_sync  # type: ignore[import-not-found]

    return bool(can_run_sync())


def wait(awaitable: Any) -> Any:
    """`run_sync`, which the event loop goes on during."""
    if not inspect.isawaitable(awaitable):
        try:
            _as_coroutine(awaitable).send(None)
        except TypeError as error:  # in the words of `await`
            cure = hooks.not_awaitable(awaitable) if hooks.not_awaitable is not None else ""
            raise TypeError(f"{error}{cure}") from None
    if not can_wait():
        if type(awaitable) is CoroutineType:
            awaitable.close()
        raise RuntimeError(_messages.PYODIDE_CANNOT)
    from pyodide.ffi import run_sync

    # A task of its own, in a copy of the context: the caller's is entered.
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    task = loop.create_task(_as_coroutine(awaitable), context=context)
    try:
        return run_sync(task)
    finally:
        set_all(context)


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable
