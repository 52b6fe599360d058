"""TLS: the methods of `ssl.SSLSocket` that hand over to OpenSSL, which reads and writes the socket by itself.

OpenSSL does so without blocking only on a socket in non-blocking mode; so each step of a handshake, a read or a write is
taken by `settimeout(0)`. Two tasks may read and write one connection at a time, as two threads may.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from . import poller
from .retry import until_done
from .waiter import waiter_for

try:
    import ssl
except ImportError:
    _SSLSocket: Any = None
else:
    _SSLSocket = ssl.SSLSocket


def _through(name: str, events: int, late: str) -> Replacement:
    original = getattr(_SSLSocket, name)

    def method(self: Any, *args: Any, **kwds: Any) -> Any:
        # Without a session the original refuses, or calls the socket's own method.
        if (_get_running_loop() is None and not on_portal()) or self._sslobj is None:
            return original(self, *args, **kwds)
        return until_done("ssl", self, events, original, args, kwds, late)

    return Replacement(_SSLSocket, name, named(method, original))


def _handshake() -> Replacement:
    original = _SSLSocket.do_handshake

    def do_handshake(self: Any, block: bool = False) -> None:
        if (
            (_get_running_loop() is None and not on_portal())
            or self._sslobj is None
            or (block and waiter_for("ssl") is None)
        ):
            original(self, block)
            return
        late = "_ssl.c: The handshake operation timed out"
        until_done("ssl", self, poller.IN, original, (), {}, late, is_blocking=block)

    return Replacement(_SSLSocket, "do_handshake", named(do_handshake, original))


def _replacements() -> list[Replacement]:
    return [
        _through("read", poller.IN, "The read operation timed out"),
        _through("write", poller.OUT, "The write operation timed out"),
        _through("send", poller.OUT, "The write operation timed out"),
        _through("unwrap", poller.IN, "The read operation timed out"),
        _handshake(),
    ]


REPLACEMENTS = _replacements() if poller.IS_THERE and _SSLSocket is not None else []
