"""Serves psycopg2: `install()`, and its queries suspend the task that makes them.

libpq waits in C, where no hook of `fiberback.blocking` reaches it. But psycopg2 has a place for a function that waits in
its stead, `psycopg2.extensions.set_wait_callback`; this puts one there.
"""

from __future__ import annotations

import select
from importlib import import_module
from typing import Any

from . import _extras
from ._blocking import poller
from ._blocking.waiter import here
from ._in_force import Handle, InForce

__all__ = ["Installed", "install", "uninstall", "wait"]

_extras.need(__name__, "psycopg2", "psycopg2")
# It has no types.
_extensions: Any = import_module("psycopg2.extensions")

_EVENTS = {_extensions.POLL_READ: poller.IN, _extensions.POLL_WRITE: poller.OUT}
_in_force: InForce[_Callback] = InForce()


def install() -> Installed:
    """Have psycopg2 wait on the event loop, in the whole process, until `uninstall()`.

    Connecting, queries, commits and notifications of all connections suspend their caller where `await_` could; in other
    threads, without a loop, and where nothing can wait, they block as ever. As with every such callback of
    psycopg2's, COPY and large objects raise `psycopg2.ProgrammingError`, and a wait that is cancelled
    closes its connection. One connection is for one task at a time.

    `with install():` undoes it at its end, unless it had been installed before.
    """
    return Installed(_in_force, _in_force.put(_Callback))


def uninstall() -> None:
    """Undo `install()`. Does nothing where nothing is installed."""
    _in_force.take_back(_in_force.current)


class Installed(Handle["_Callback"]):
    """What `install` returns. As a context manager it undoes at its end what it did."""

    def uninstall(self) -> None:
        """Put back the callback that was there before, if any."""
        self._take_back()


class _Callback:
    def __init__(self) -> None:
        self._before = _extensions.get_wait_callback()
        _extensions.set_wait_callback(wait)

    def undo(self) -> None:
        if _extensions.get_wait_callback() is wait:
            _extensions.set_wait_callback(self._before)


def wait(connection: Any) -> None:
    """What `install()` puts there: wait until the connection has done what it is at."""
    while True:
        state = connection.poll()
        if state == _extensions.POLL_OK:
            return
        events, fd = _EVENTS[state], connection.fileno()
        caller = here() if poller.IS_THERE else None
        if caller is not None:
            poller.wait([(fd, events)], None, caller)
        elif hasattr(select, "poll"):  # `select` takes no number above 1023
            files = select.poll()
            files.register(fd, events)
            files.poll()
        elif events == poller.IN:
            select.select([fd], [], [])
        else:
            select.select([], [fd], [])
