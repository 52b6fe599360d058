"""Serves fsspec: `install()`, and its filesystems' sync methods let the event loop that runs there go on.

fsspec runs the I/O of its async filesystems on a loop in a thread of its own, and `fsspec.asyn.sync`, on which
every sync method stands (`fs.cat(...)`, `file.read()`, the mappings that zarr and others read), blocks the calling
thread until that is done: in a running event loop, all of it. After `install()` the caller is suspended instead.

The I/O stays on the filesystem's loop. Sessions, connection pools and locks of a filesystem are bound to the loop that it
was made for, and its instances are cached and shared by all loops and threads of the process: run on the
caller's loop, the second loop that uses one would find them bound to the first. What it costs is a hand-over between
threads for each call, which fsspec has anyway.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from . import _extras
from ._fiberback import await_
from ._in_force import Handle, InForce
from ._loop.library import current_library
from ._replacements import Replacement
from ._sync import caller

__all__ = ["Installed", "install", "uninstall"]

_extras.need(__name__, "fsspec", "fsspec")
# It has no types.
_asyn: Any = import_module("fsspec.asyn")
_FSTimeoutError: Any = import_module("fsspec.exceptions").FSTimeoutError
_ZARR = "zarr.core.sync"

_in_force: InForce[_Replaced] = InForce()


def install() -> Installed:
    """Have `fsspec.asyn.sync` suspend its caller where an event loop runs, in the whole process, until `uninstall()`.

    With a portal the caller's task is suspended, on a stock asyncio loop the caller is parked, on Trio it takes a portal;
    where nothing can wait (uvloop without a portal) the thread is blocked, as fsspec does. Threads without a loop
    are served by fsspec as ever. In the filesystem's own loop, where fsspec raises NotImplementedError, the caller is
    suspended, too.

    Cancelling the caller cancels the I/O, and is raised when that has ended. All that one task has done so runs in one
    task of the filesystem's loop, in the caller's context. `timeout` is fsspec's, and raises FSTimeoutError.

    zarr 3, which has a loop and a `sync` of its own, is served likewise if it is loaded: import it first, or call this
    again after that.

    Modules that have imported `sync` by its name are served as well, if they are loaded by then or later.
    `with install():` undoes it at its end, unless it had been installed before.
    """
    with _in_force.lock:
        if _in_force.current is not None:
            _in_force.current.serve_zarr()
        return Installed(_in_force, _in_force.put(_Replaced))


def uninstall() -> None:
    """Undo `install()`; calls that wait go on. Does nothing where nothing is installed."""
    _in_force.take_back(_in_force.current)


class Installed(Handle["_Replaced"]):
    """What `install` returns. As a context manager it undoes at its end what it did."""

    def uninstall(self) -> None:
        """Put back fsspec's function, wherever it was replaced by this `install()`."""
        self._take_back()


class _Replaced:
    """`sync`, in all modules that have it under this name."""

    def __init__(self) -> None:
        self._replacements: list[Replacement] = []
        self._replace(_asyn, _fsspecs)
        self.serve_zarr()

    def _replace(self, module: Any, make: Callable[[Any], Any]) -> None:
        replacement = Replacement(module, "sync", make(module.sync), by_name=True)
        self._replacements.append(replacement.put())

    def serve_zarr(self) -> None:
        module = sys.modules.get(_ZARR)
        if module is not None and len(self._replacements) == 1 and hasattr(module, "sync"):
            self._replace(module, _zarrs)

    def undo(self) -> None:
        for each in self._replacements:
            each.undo()


def _fsspecs(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sync(
        loop: AbstractEventLoop | None,
        func: Callable[..., Awaitable[Any]],
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        if current_library() is None or loop is None or loop.is_closed():
            return original(loop, func, *args, timeout=timeout, **kwargs)
        try:
            return _wait(loop, func(*args, **kwargs), timeout)
        except TimeoutError as error:
            raise _FSTimeoutError from error

    return sync


def _zarrs(original: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[int, AbstractEventLoop] = {}

    async def here() -> AbstractEventLoop:
        return asyncio.get_running_loop()

    @functools.wraps(original)
    def sync(
        coro: Awaitable[Any], loop: AbstractEventLoop | None = None, timeout: float | None = None
    ) -> Any:
        if current_library() is None:
            return original(coro, loop, timeout)
        if loop is None:
            # zarr's own loop, made and set up by zarr, once in each process.
            loop = known.get(os.getpid())
            if loop is None or loop.is_closed():
                loop = known[os.getpid()] = original(here())
        return _wait(loop, coro, timeout)

    return sync


def _wait(loop: AbstractEventLoop, awaitable: Awaitable[Any], timeout: float | None) -> Any:
    running = _run(awaitable, timeout)
    if _get_running_loop() is loop:
        return await_(running)
    return caller.wait(loop, running)


async def _run(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    # As fsspec has it, 0 is none.
    return await (asyncio.wait_for(awaitable, timeout) if timeout else awaitable)
