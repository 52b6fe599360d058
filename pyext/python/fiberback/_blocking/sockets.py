"""Sockets: the methods of `socket.socket` that block.

Those of the class in C cannot be replaced, but its subclass `socket.socket`, of which all sockets in Python are, takes
methods of the same names, and loses them again. Each tries first, without blocking: a socket without a timeout by
MSG_DONTWAIT; one with a timeout, which is non-blocking to the kernel, by the functions for plain files, as the
methods in C would wait; and what has neither for the moment of the call by `settimeout(0)`.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
from asyncio import _get_running_loop
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from . import dns, poller
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
_of_python: Any = socket.socket
_real_close, _sendfile = _of_python._real_close, _of_python.sendfile
_read, _write = os.read, os.write
_readv: Any = getattr(os, "readv", None)
_poll: Any = getattr(select, "poll", None)
# As plain numbers: the operators of an enum take microseconds.
_DONTWAIT, _WAITALL, _ERRQUEUE, _PEEK = (
    int(getattr(socket, name, 0))
    for name in ("MSG_DONTWAIT", "MSG_WAITALL", "MSG_ERRQUEUE", "MSG_PEEK")
)
# These do not block, whatever the socket.
_NEVER = _DONTWAIT | _ERRQUEUE
# Of a `memoryview` that can be cast to octets; others, as those of `ctypes`, have formats of their own.
_PLAIN = {*"cbB?hHiIlLqQnNfdeP"}
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR)
# Seconds: a listening Unix socket whose queue is full cannot be waited for.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def recv(self: Any, bufsize: int, flags: int = 0, /) -> bytes:
    if _get_running_loop() is None and not on_portal():
        return _recv(self, bufsize, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or (flags and flags & _NEVER and seconds is None):
        return _recv(self, bufsize, flags)  # type: ignore[no-any-return]
    if flags and flags & _WAITALL and not flags & (_PEEK | _NEVER):
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
    if seconds == 0 or (flags & _NEVER and seconds is None):
        return _recv_into(self, buffer, nbytes, flags)  # type: ignore[no-any-return]
    if flags & _WAITALL and not flags & (_PEEK | _NEVER):
        return _recv_all_into(self, buffer, nbytes, flags)
    try:
        if seconds is None:
            return _recv_into(self, buffer, nbytes, flags | _DONTWAIT)  # type: ignore[no-any-return]
        if not flags and not nbytes:
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
    view = memoryview(buffer)
    if view.readonly or not 0 <= nbytes <= view.nbytes:
        return _recv_into(sock, buffer, nbytes, flags)  # type: ignore[no-any-return] # refused
    if not _is_plain(view):
        octets = bytearray(nbytes or view.nbytes)
        got = _recv_all_into(sock, octets, 0, flags)
        return io.BytesIO(octets[:got]).readinto(view)
    view = view.cast("B")
    rest = view[: nbytes or len(view)]
    got = 0
    flags &= ~_WAITALL
    while rest:
        try:
            count = recv_into(sock, rest, 0, flags)
        except TimeoutError:
            if got:
                break  # it would be lost
            raise
        if not count:
            break
        got += count
        rest = rest[count:]
        if sock.type != socket.SOCK_STREAM:
            break
    return got


def _is_plain(view: memoryview) -> bool:
    return view.ndim > 0 and view.c_contiguous and view.format in _PLAIN


def send(self: Any, data: Any, flags: int = 0, /) -> int:
    if _get_running_loop() is None and not on_portal():
        return _send(self, data, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or (flags & _NEVER and seconds is None):
        return _send(self, data, flags)  # type: ignore[no-any-return]
    try:
        return _send_now(self, data, flags, seconds)
    except BlockingIOError:

        def attempt() -> int:
            return _send_now(self, data, flags, seconds)

        return go_on(self, poller.OUT, seconds, attempt, _send, data, flags)  # type: ignore[no-any-return]


def _send_now(sock: Any, data: Any, flags: int, seconds: float | None) -> int:
    """What is sent without waiting. Only where there is no other way, the socket's mode is changed for that."""
    if seconds is None:
        return _send(sock, data, flags | _DONTWAIT)  # type: ignore[no-any-return]
    if not flags and (len(data) if type(data) is bytes else memoryview(data).nbytes):
        return _write(_fileno(sock), data)
    return at_once(sock, _send, (data, flags), {})  # type: ignore[no-any-return]


def sendall(self: Any, data: Any, flags: int = 0, /) -> None:
    if _get_running_loop() is None and not on_portal():
        return _sendall(self, data, flags)  # type: ignore[no-any-return]
    seconds = timeout_of(self)
    if seconds == 0 or (flags & _NEVER and seconds is None):
        return _sendall(self, data, flags)  # type: ignore[no-any-return]
    with memoryview(data) as view:
        if not view.nbytes or not view.c_contiguous:
            return _sendall(self, data, flags)  # type: ignore[no-any-return]
        with view.cast("B") if _is_plain(view) else memoryview(view.tobytes()) as octets:
            try:
                sent = _send_now(self, octets, flags, seconds)
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
            sent += _send_now(self, octets[sent:], flags, seconds)
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
    is_unix: bool = sock.family == socket.AF_UNIX
    error: int = 0

    def is_begun() -> bool:
        nonlocal error
        error = at_once(sock, _connect_ex, (address,), {})
        return error != errno.EWOULDBLOCK or not is_unix

    if not waits.until(is_begun, _FIRST_PAUSE, _LONGEST_PAUSE):
        return None
    if error not in _IN_PROGRESS:
        return error
    while waits.until_ready((_fileno(sock), poller.OUT)):
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or _is_writable(_fileno(sock)):
            return error
    return None


def _is_writable(fd: int) -> bool:
    poll = _poll()
    poll.register(fd, poller.OUT)
    return bool(poll.poll(0))


def _by_flag(flags_at: int, defaults: tuple[Any, ...]) -> Any:
    """As `at_once`; a socket that blocks gets a flag for that, and its mode is left alone. `defaults` are those of the
    arguments before the flags."""

    def attempt(sock: Any, function: Any, args: Any, kwds: Any) -> Any:
        if timeout_of(sock) is not None or not args:
            return at_once(sock, function, args, kwds)
        if kwds:
            kwds = {**kwds, "flags": kwds.get("flags", 0) | _DONTWAIT}
        elif len(args) > flags_at:
            args = *args[:flags_at], args[flags_at] | _DONTWAIT, *args[flags_at + 1 :]
        else:
            args = *args, *defaults[len(args) - 1 :], _DONTWAIT
        return function(sock, *args, **kwds)

    return attempt


def _lasting(value: Any) -> Any:
    """What is iterated once must last for several attempts."""
    return list(value) if hasattr(value, "__next__") else value


def _through(name: str, events: int, flags_at: int, attempt: Any = at_once) -> Replacement:
    """A method that is used less. Its flags are the argument at `flags_at`."""
    original = getattr(_Socket, name)

    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        if _get_running_loop() is None and not on_portal():
            return original(self, *args, **kwds)
        flags = args[flags_at] if len(args) > flags_at else kwds.get("flags", 0)
        # What is no number is refused by the original.
        if not isinstance(flags, int) or (flags & _NEVER and timeout_of(self) is None):
            return original(self, *args, **kwds)
        args = tuple(map(_lasting, args))
        return until_done("sockets", self, events, original, args, kwds, attempt=attempt)

    return Replacement(socket.socket, name, named(method, original))


def close(self: Any, *args: Any) -> None:
    fd = _fileno(self)
    _real_close(self, *args)
    if fd >= 0:
        poller.closed(fd)


def sendfile(self: Any, file: Any, offset: int = 0, count: int | None = None) -> Any:
    if (_get_running_loop() is None and not on_portal()) or waiter_for("sockets") is None:
        return _sendfile(self, file, offset, count)
    return self._sendfile_use_send(file, offset, count)


def _replacements() -> list[Replacement]:
    ours = [(recv, _recv), (recv_into, _recv_into), (send, _send), (sendall, _sendall)]
    ours += [(connect, _connect), (connect_ex, _connect_ex)]
    found = [Replacement(socket.socket, old.__name__, named(new, old)) for new, old in ours]
    found.append(_through("_accept", poller.IN, 9))
    defaults: tuple[Any, ...]
    for name, events, defaults in (
        ("recvfrom", poller.IN, ()),
        ("recvfrom_into", poller.IN, (0,)),
        ("recvmsg", poller.IN, (0,)),
        ("recvmsg_into", poller.IN, (0,)),
        ("sendmsg", poller.OUT, ((),)),
    ):
        flags_at = len(defaults) + 1
        found.append(_through(name, events, flags_at, _by_flag(flags_at, defaults)))
    found.append(_sendto())
    found.append(Replacement(socket.socket, "_real_close", named(close, _real_close)))
    found.append(Replacement(socket.socket, "sendfile", named(sendfile, _sendfile)))
    return found


def _sendto() -> Replacement:
    original = _Socket.sendto

    def attempt(sock: Any, function: Any, args: Any, kwds: Any) -> Any:
        if timeout_of(sock) is not None or len(args) not in (2, 3):
            return at_once(sock, function, args, kwds)
        flags = args[1] if len(args) > 2 else 0
        return function(sock, args[0], flags | _DONTWAIT, args[-1])

    def method(self: Any, /, *args: Any) -> Any:
        if _get_running_loop() is None and not on_portal():
            return original(self, *args)
        flags = args[1] if len(args) > 2 else 0
        # What is no number is refused by the original.
        if not isinstance(flags, int) or (flags & _NEVER and timeout_of(self) is None):
            return original(self, *args)
        if args:
            args = (*args[:-1], dns.resolved(self, args[-1]))
        return until_done("sockets", self, poller.OUT, original, args, {}, attempt=attempt)

    return Replacement(socket.socket, "sendto", named(method, original))


REPLACEMENTS = _replacements() if poller.IS_THERE and _DONTWAIT else []
