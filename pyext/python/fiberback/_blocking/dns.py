"""Names of hosts: looked up in the loop's executor, as asyncio does, because C code does that and cannot be suspended."""

from __future__ import annotations

import socket
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from .executor import in_executor
from .waiter import waiter_for

_getaddrinfo = socket.getaddrinfo
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def is_numeric(host: Any) -> bool:
    """Whether nothing has to be asked for what `host` stands for."""
    if host is None or host == "" or host == b"":
        return True
    text = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else host
    if not isinstance(text, str):
        return True  # the original says what is wrong with it
    if text == "<broadcast>" or "%" in text:
        return True
    for family in _INTERNET:
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def resolved(sock: Any, address: Any) -> Any:
    """A socket's address, with the host's name looked up if it has one."""
    if sock.family not in _INTERNET or type(address) is not tuple or not address:
        return address
    host = address[0]
    if is_numeric(host) or len(address) < 2 or waiter_for("dns") is None:
        return address
    found = in_executor(_getaddrinfo, host, None, sock.family, sock.type)
    return (found[0][4][0], *address[1:])


def _through(name: str, host_of: Callable[..., Any]) -> Replacement:
    original = getattr(socket, name)

    def function(*args: Any, **kwds: Any) -> Any:
        if (
            (_get_running_loop() is None and not on_portal())
            or is_numeric(host_of(*args, **kwds))
            or waiter_for("dns") is None
        ):
            return original(*args, **kwds)
        return in_executor(original, *args, **kwds)

    return Replacement(socket, name, named(function, original), by_name=True)


def _first(host: Any = None, *args: Any, **kwds: Any) -> Any:
    return host


def _always(*args: Any, **kwds: Any) -> str:
    return "a name must be found for it"


REPLACEMENTS = [
    _through("getaddrinfo", _first),
    _through("gethostbyname", _first),
    _through("gethostbyname_ex", _first),
    _through("gethostbyaddr", _always),
    _through("getnameinfo", _always),
]
