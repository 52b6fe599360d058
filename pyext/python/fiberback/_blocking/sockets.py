"""Sockets: the methods of `socket.socket` that block.

Those of the class in C cannot be replaced, but its subclass `socket.socket`, of which all sockets in Python are, takes
methods of the same names, and loses them again. Each tries first, without blocking: a socket without a timeout by
MSG_DONTWAIT; one with a timeout, which is non-blocking to the kernel, by the functions for plain files, as the
methods in C would wait; and what has neither for the moment of the call by `settimeout(0)`.
"""

from __future__ import annotations

import errno
import os
import socket
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from . import dns, poller
from .places import Place, named
from .retry import at_once, go_on, timeout_of, until_done
from .waiter import waiter_for

_Socket: Any = socket.socket.__base__
_recv, _recv_into, _send, _sendall = (
    _Socket.recv,
    _Socket.recv_into,
    _Socket.send,
    _Socket.sendall,
)
_connect, _connect_ex, _fileno = _Socket.connect, _Socket.connect_ex, _Socket.fileno
_real_close: Any = vars(socket.socket)["_real_close"]
_sendfile: Any = vars(socket.socket)["sendfile"]
_read, _write = os.read, os.write
_readv: Any = getattr(os, "readv", None)
# As plain numbers: the operators of an enum take microseconds.
_DONTWAIT, _WAITALL, _ERRQUEUE, _PEEK = (
    int(getattr(socket, name, 0))
    for name in ("MSG_DONTWAIT", "MSG_WAITALL", "MSG_ERRQUEUE", "MSG_PEEK")
)
# These do not block, whatever the socket.
_NEVER = _DONTWAIT | _ERRQUEUE
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR)
# Seconds: a listening Unix socket whose queue is full cannot be waited for.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def recv(self: Any, bufsize: int, flags: int = 0, /) -> bytes:
    if _get_running_loop() is None and not on_portal():
        return _recv(self, bufsize, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or (flags and flags & _NEVER):
        return _recv(self, bufsize, flags)  # type: ignore[no-any-return]
    if flags and flags & _WAITALL and not flags & _PEEK:
        buffer = bytearray(bufsize)
        return bytes(buffer[: recv_into(self, buffer, 0, flags)])
    try:
        if seconds is None:
            return _recv(self, bufsize, flags | _DONTWAIT)  # type: ignore[no-any-return]
        if not flags and bufsize > 0:
            return _read(_fileno(self), bufsize)
    except BlockingIOError:

        def attempt() -> Any:
            if seconds is None:
                return _recv(self, bufsize, flags | _DONTWAIT)
            return _read(_fileno(self), bufsize)

        return go_on(self, poller.IN, seconds, attempt, _recv, bufsize, flags)  # type: ignore[no-any-return]
    return until_done("sockets", self, poller.IN, _recv, (bufsize, flags), {})  # type: ignore[no-any-return]


def recv_into(self: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    if _get_running_loop() is None and not on_portal():
        return _recv_into(self, buffer, nbytes, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or flags & _NEVER:
        return _recv_into(self, buffer, nbytes, flags)  # type: ignore[no-any-return]
    if flags & _WAITALL and not flags & _PEEK:
        return _recv_all_into(self, buffer, nbytes, flags)
    try:
        if seconds is None:
            return _recv_into(self, buffer, nbytes, flags | _DONTWAIT)  # type: ignore[no-any-return]
        if not flags and not nbytes and buffer:
            return _readv(_fileno(self), (buffer,))  # type: ignore[no-any-return]
    except BlockingIOError:

        def attempt() -> Any:
            if seconds is None:
                return _recv_into(self, buffer, nbytes, flags | _DONTWAIT)
            return _readv(_fileno(self), (buffer,))

        return go_on(self, poller.IN, seconds, attempt, _recv_into, buffer, nbytes, flags)  # type: ignore[no-any-return]
    args = (buffer, nbytes, flags)
    return until_done("sockets", self, poller.IN, _recv_into, args, {})  # type: ignore[no-any-return]


def _recv_all_into(sock: Any, buffer: Any, nbytes: int, flags: int) -> int:
    view = memoryview(buffer).cast("B")
    rest = view[: nbytes or len(view)]
    got = 0
    flags &= ~_WAITALL
    while rest:
        count = recv_into(sock, rest, 0, flags)
        if not count:
            break
        got += count
        rest = rest[count:]
        if sock.type != socket.SOCK_STREAM:
            break
    return got


def send(self: Any, data: Any, flags: int = 0, /) -> int:
    if _get_running_loop() is None and not on_portal():
        return _send(self, data, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or flags & _NEVER:
        return _send(self, data, flags)  # type: ignore[no-any-return]
    try:
        if seconds is None:
            return _send(self, data, flags | _DONTWAIT)  # type: ignore[no-any-return]
        if not flags and data:
            return _write(_fileno(self), data)
    except BlockingIOError:
        pass
    return until_done("sockets", self, poller.OUT, _send, (data, flags), {})  # type: ignore[no-any-return]


def sendall(self: Any, data: Any, flags: int = 0, /) -> None:
    if _get_running_loop() is None and not on_portal():
        return _sendall(self, data, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or flags & _NEVER or not data:
        return _sendall(self, data, flags)  # type: ignore[no-any-return]
    with memoryview(data) as view, view.cast("B") as octets:
        try:
            if seconds is None:
                sent = _send(self, octets, flags | _DONTWAIT)
            elif not flags:
                sent = _write(_fileno(self), octets)
            else:
                sent = at_once(self, seconds, _send, (octets, flags), {})
        except BlockingIOError:
            sent = 0
        if sent < len(octets):
            _send_rest(self, octets, sent, flags, seconds)


def _send_rest(self: Any, octets: memoryview, sent: int, flags: int, seconds: float | None) -> None:
    caller = waiter_for("sockets")
    if caller is None:
        _sendall(self, octets[sent:], flags)
        return
    waits = poller.Wait(caller, seconds)
    while sent < len(octets):
        if not waits.until_ready((_fileno(self), poller.OUT)):
            raise TimeoutError("timed out")
        try:
            sent += at_once(self, seconds, _send, (octets[sent:], flags), {})
        except BlockingIOError:
            pass


def connect(self: Any, address: Any, /) -> None:
    if _get_running_loop() is None and not on_portal():
        return _connect(self, address)  # type: ignore[no-any-return]
    error = _connected(self, address, _connect)
    if error is None:
        raise TimeoutError("timed out")
    if error:
        raise OSError(error, os.strerror(error))


def connect_ex(self: Any, address: Any, /) -> int:
    if _get_running_loop() is None and not on_portal():
        return _connect_ex(self, address)  # type: ignore[no-any-return]
    error = _connected(self, address, _connect_ex)
    return errno.EWOULDBLOCK if error is None else error


def _connected(sock: Any, address: Any, original: Any) -> int | None:
    """The error's number, 0 if there is none, None if the time was up."""
    seconds = timeout_of(sock)
    caller = waiter_for("sockets") if seconds != 0 else None
    if caller is None:
        return original(sock, address) or 0
    address = dns.resolved(sock, address)
    waits = poller.Wait(caller, seconds)
    pause = _FIRST_PAUSE
    while True:
        error: int = at_once(sock, seconds, _connect_ex, (address,), {})
        if error not in _IN_PROGRESS:
            return error
        if error != errno.EWOULDBLOCK or sock.family != socket.AF_UNIX:
            break
        if not waits.pause(pause):
            return None
        pause = min(2 * pause, _LONGEST_PAUSE)
    if not waits.until_ready((_fileno(sock), poller.OUT)):
        return None
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error


def _through(name: str, events: int, flags_at: int) -> Place:
    """A method that is used less: all of it by `settimeout(0)`. Its flags are the argument at `flags_at`."""
    original = getattr(_Socket, name)

    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        if _get_running_loop() is None and not on_portal():
            return original(self, *args, **kwds)
        flags = args[flags_at] if len(args) > flags_at else kwds.get("flags", 0)
        if isinstance(flags, int) and flags & _NEVER:
            return original(self, *args, **kwds)
        return until_done("sockets", self, events, original, args, kwds)

    return Place(socket.socket, name, named(method, original))


def close(self: Any, *args: Any) -> None:
    fd = _fileno(self)
    _real_close(self, *args)
    if fd >= 0:
        poller.closed(fd)


def sendfile(self: Any, file: Any, offset: int = 0, count: int | None = None) -> Any:
    if (_get_running_loop() is None and not on_portal()) or waiter_for("sockets") is None:
        return _sendfile(self, file, offset, count)
    return self._sendfile_use_send(file, offset, count)


def _places() -> list[Place]:
    ours = [(recv, _recv), (recv_into, _recv_into), (send, _send), (sendall, _sendall)]
    ours += [(connect, _connect), (connect_ex, _connect_ex)]
    found = [Place(socket.socket, old.__name__, named(new, old)) for new, old in ours]
    for name, events, flags_at in (
        ("_accept", poller.IN, 9),
        ("recvfrom", poller.IN, 1),
        ("recvfrom_into", poller.IN, 2),
        ("recvmsg", poller.IN, 2),
        ("recvmsg_into", poller.IN, 2),
        ("sendmsg", poller.OUT, 2),
    ):
        found.append(_through(name, events, flags_at))
    found.append(_sendto())
    found.append(Place(socket.socket, "_real_close", named(close, _real_close)))
    found.append(Place(socket.socket, "sendfile", named(sendfile, _sendfile)))
    return found


def _sendto() -> Place:
    original = _Socket.sendto

    def method(self: Any, /, *args: Any) -> Any:
        if _get_running_loop() is None and not on_portal():
            return original(self, *args)
        if len(args) > 2 and isinstance(args[1], int) and args[1] & _NEVER:
            return original(self, *args)
        if args:
            args = (*args[:-1], dns.resolved(self, args[-1]))
        return until_done("sockets", self, poller.OUT, original, args, {})

    return Place(socket.socket, "sendto", named(method, original))


PLACES = _places() if poller.IS_THERE and _DONTWAIT else []
