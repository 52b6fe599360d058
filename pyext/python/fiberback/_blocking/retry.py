"""A socket's operation, tried without blocking until it is through."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from . import poller
from .waiter import waiter_for

_Socket: Any = socket.socket.__base__  # the one in C
timeout_of = _Socket.gettimeout
_set_timeout = _Socket.settimeout

# What says that an operation would block, and until when.
UNTIL: dict[type[BaseException], int] = {}
with contextlib.suppress(ImportError):
    import ssl

    UNTIL[ssl.SSLWantReadError] = poller.IN
    UNTIL[ssl.SSLWantWriteError] = poller.OUT
_blocks: tuple[type[BaseException], ...] = (BlockingIOError, *UNTIL)


def at_once(sock: Any, function: Any, args: Any, kwds: Any) -> Any:
    """`function(sock, ...)` with the socket in non-blocking mode."""
    seconds = timeout_of(sock)  # as it is now: others may set it while the caller waits
    if seconds == 0:
        return function(sock, *args, **kwds)
    try:
        _set_timeout(sock, 0)
        return function(sock, *args, **kwds)
    finally:
        _set_timeout(sock, seconds)


def until_done(
    switch: str,
    sock: Any,
    events: int,
    function: Any,
    args: Any,
    kwds: Any,
    late: str = "timed out",
    is_blocking: bool = False,
    attempt: Any = at_once,
) -> Any:
    """`function(sock, ...)`, with the caller suspended until it does not block; or as it is where that cannot be.

    Raises TimeoutError, with `late`, after the socket's timeout; `is_blocking` makes that None. `attempt` is called
    as `at_once` is.
    """
    seconds = timeout_of(sock)
    if seconds == 0:
        if not is_blocking:
            return function(sock, *args, **kwds)
        seconds = None
    waits = None
    while True:
        try:
            return attempt(sock, function, args, kwds)
        except _blocks as error:
            events = UNTIL.get(type(error), events)
        if waits is None:
            caller = waiter_for(switch)
            if caller is None:
                return function(sock, *args, **kwds)
            waits = poller.Wait(caller, seconds)
        if not waits.until_ready((sock.fileno(), events)):
            raise TimeoutError(late)


def go_on(
    sock: Any, events: int, seconds: float | None, attempt: Any, original: Any, *args: Any
) -> Any:
    """`original(sock, ...)` where `attempt()`, which does the same without blocking, has found that it would block."""
    caller = waiter_for("sockets")
    if caller is None:
        return original(sock, *args)
    waits = poller.Wait(caller, seconds)
    while True:
        if not waits.until_ready((sock.fileno(), events)):
            raise TimeoutError("timed out")
        try:
            return attempt()
        except BlockingIOError:
            pass
