"""Sockets in unmodified code: overlap, timeouts, cancellation, modes, and others' waits for the same file."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import threading

import fiberback
import pytest
from servers import Meeting, pair, serving, together
from support import only_fiberback

pytestmark = only_fiberback

TIMEOUTS = [None, 60]


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install("sockets", "dns"):
        yield


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_a_hundred_clients_in_one_thread(backend, timeout):
    meeting = Meeting(100)

    def handle(connection):
        received = connection.recv(10)
        meeting()
        connection.sendall(received * 2)

    def client(number):
        with socket.create_connection(("localhost", address[1]), timeout=timeout) as sock:
            sock.sendall(b"%d" % number)
            with sock.makefile("rb") as file:
                return int(file.read())

    with serving(handle) as address:
        found = together(backend, *(lambda n=n: client(n) for n in range(100, 200)))
    assert found == [n * 1000 + n for n in range(100, 200)]


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_a_server_and_its_clients_in_one_thread(backend, timeout):
    def serve():
        for _ in range(20):
            connection, peer = listener.accept()
            assert connection.gettimeout() is None
            with connection:
                assert peer[0] == "127.0.0.1"
                connection.sendall(connection.recv(100))

    def client():
        with socket.create_connection(listener.getsockname(), timeout) as sock:
            sock.send(b"hello")
            return sock.recv(100)

    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        listener.settimeout(timeout)
        found = together(backend, serve, *[client] * 20)
        assert listener.gettimeout() == timeout
    assert found == [None, *[b"hello"] * 20]


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_more_than_the_buffers_hold(backend, timeout):
    data = bytes(range(256)) * 20_000

    def receive(method):
        got = bytearray()
        while len(got) < len(data):
            got += method()
        return bytes(got)

    def into():
        buffer = bytearray(50_000)
        count = theirs.recv_into(buffer)
        return buffer[:count]

    for method in (lambda: theirs.recv(70_000), into):
        with pair(timeout) as (ours, theirs):
            found = together(backend, lambda: ours.sendall(data), lambda: receive(method))
        assert found == [None, data]


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_every_other_method(backend, timeout):
    """Each receives before anything is there."""
    plain = bytearray(3)

    def recv_into():
        assert ours.recv_into(memoryview(plain)[1:], 2) == 2
        return bytes(plain)

    def recvfrom_into():
        buffer = bytearray(5)
        return ours.recvfrom_into(buffer, nbytes=3)[0], bytes(buffer)

    def recvmsg_into():
        buffers = bytearray(1), bytearray(2)
        assert ours.recvmsg_into(buffers)[0] == 3
        return bytes(buffers[0] + buffers[1])

    def peek():
        assert ours.recv(3, socket.MSG_PEEK) == b"abc"
        return ours.recv(3)

    for receive, wanted in (
        (lambda: ours.recvfrom(3)[0], b"abc"),
        (lambda: ours.recvmsg(3)[0], b"abc"),
        (recv_into, b"\0ab"),
        (recvfrom_into, (3, b"abc\0\0")),
        (recvmsg_into, b"abc"),
        (peek, b"abc"),
    ):
        for send in (
            lambda: theirs.send(b"abc"),
            lambda: theirs.sendmsg([b"a", b"bc"]),
            lambda: theirs.sendall(b"abc", 0),
        ):
            with pair(timeout) as (ours, theirs):
                assert together(backend, receive, send)[0] == wanted


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_datagrams(backend, timeout):
    def receive():
        return [ours.recvfrom(10)[0] for _ in range(3)]

    def send():
        for data in (b"a", b"", b"c"):
            assert theirs.sendto(data, ours.getsockname()) == len(data)

    with (
        socket.socket(type=socket.SOCK_DGRAM) as ours,
        socket.socket(type=socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        ours.settimeout(timeout)
        assert together(backend, receive, send)[0] == [b"a", b"", b"c"]


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_all_of_it_at_once(backend, timeout):
    """MSG_WAITALL, also where some is there."""

    def send():
        for part in (b"ab", b"cd", b"e"):
            theirs.send(part)
            yield_here()

    def yield_here():
        fiberback.await_(backend.sleep(0.001))

    buffer = bytearray(7)
    with pair(timeout) as (ours, theirs):
        assert together(backend, lambda: ours.recv(5, socket.MSG_WAITALL), send)[0] == b"abcde"
        wait = lambda: ours.recv_into(buffer, 5, socket.MSG_WAITALL)  # noqa: E731
        assert together(backend, wait, send)[0] == 5
        assert bytes(buffer) == b"abcde\0\0"
        theirs.send(b"xy")
        theirs.close()
        assert together(backend, lambda: ours.recv(5, socket.MSG_WAITALL)) == [b"xy"]


def test_all_of_it_until_the_time_is_up(backend):
    """What has come is not lost."""

    def receive():
        got = ours.recv(5, socket.MSG_WAITALL)
        with pytest.raises(TimeoutError):
            ours.recv(5, socket.MSG_WAITALL)
        return got

    with pair(0.01) as (ours, theirs):
        theirs.send(b"ab")
        assert together(backend, receive) == [b"ab"]


def test_timeouts(backend):
    def check():
        for attempt in (
            lambda: ours.recv(1),
            lambda: ours.recv_into(bytearray(1)),
            lambda: ours.recvfrom(1),
            lambda: ours.sendall(bytes(10_000_000)),
            listener.accept,
        ):
            with pytest.raises(TimeoutError, match="^timed out$"):
                attempt()
        with ours.makefile("rb") as file:
            with pytest.raises(TimeoutError):
                file.read(1)
            with pytest.raises(OSError, match="cannot read from timed out object"):
                file.read(1)
        assert ours.gettimeout() == listener.gettimeout() == 0.01

    with pair(0.01) as (ours, _), socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.01)
        together(backend, check)


def test_connecting_takes_too_long(backend):
    """Nobody accepts: once the queue is full, what comes is not answered."""

    def connect(how):
        with socket.socket() as sock:
            sock.settimeout(0.01)
            return how(sock)

    def check():
        # The first ones are in the queue.
        full = [socket.socket() for _ in range(3)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        fiberback.await_(backend.sleep(0.01))
        with pytest.raises(TimeoutError, match="timed out"):
            connect(lambda sock: sock.connect(listener.getsockname()))
        error = connect(lambda sock: sock.connect_ex(listener.getsockname()))
        for each in full:
            each.close()
        return error

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        assert together(backend, check) == [errno.EWOULDBLOCK]


def test_connecting_goes_on_when_it_is_woken_for_another(backend):
    """What the file's number stood for before may wake who waits for it now."""
    from fiberback._blocking import poller

    def connect():
        full = [socket.socket() for _ in range(3)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        fiberback.await_(backend.sleep(0.01))
        with socket.socket() as sock:
            sock.settimeout(0.05)
            sockets.append(sock)
            with pytest.raises(TimeoutError):
                sock.connect(listener.getsockname())
        for each in full:
            each.close()

    def wake():
        while not sockets:
            fiberback.await_(backend.sleep(0))
        poller.closed(sockets[0].fileno())

    sockets = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        together(backend, connect, wake)


def test_connecting_to_nobody(backend):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    def check():
        with pytest.raises(ConnectionRefusedError) as caught:
            socket.create_connection(address)
        assert caught.value.errno == errno.ECONNREFUSED
        with socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED
        with socket.socket() as sock, pytest.raises(TypeError):
            sock.connect(5)

    together(backend, check)


def test_a_name_in_an_address(backend):
    def check():
        with pytest.raises(socket.gaierror), socket.socket() as sock:
            sock.connect(("no-such-host.invalid", 1))
        found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert ("127.0.0.1", 80) in [each[4] for each in found]
        assert socket.gethostbyname("localhost") == "127.0.0.1"
        return socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICSERV)[1]

    assert together(backend, check) == ["80"]


def test_unix_sockets_whose_queue_is_full(backend, tmp_path):
    path = str(tmp_path / "s")

    def client():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            return sock.recv(10)

    def serve():
        for _ in range(10):
            connection, _ = listener.accept()
            connection.sendall(b"hello")
            connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        assert together(backend, *[client] * 10, serve)[:-1] == [b"hello"] * 10


def test_modes(backend):
    """A socket that does not block says so at once, however it came to that; the mode is never seen to change."""

    def check():
        with pair() as (ours, _):
            ours.setblocking(False)
            for attempt in (
                lambda: ours.recv(1),
                lambda: ours.recvfrom(1),
                lambda: ours.recvmsg(1),
            ):
                with pytest.raises(BlockingIOError):
                    attempt()
            ours.setblocking(True)
            for flags in (socket.MSG_DONTWAIT, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                with pytest.raises(BlockingIOError):
                    ours.recv(1, flags)
                with pytest.raises(BlockingIOError):
                    ours.recvfrom(1, flags)
            assert ours.gettimeout() is None and ours.getblocking()
            with pytest.raises(ValueError):
                ours.recv(-1)
            with pytest.raises(TypeError):
                ours.send("text")
            ours.settimeout(1)
            with pytest.raises(TypeError):
                ours.sendall("text")
            with pytest.raises(ValueError):
                ours.recv(-1)
        for method in (lambda: ours.recv(1), lambda: ours.send(b"x"), lambda: ours.sendall(b"x")):
            with pytest.raises(OSError) as caught:
                method()
            assert caught.value.errno == errno.EBADF

    together(backend, check)


def test_a_flag_against_waiting_and_a_timeout(backend):
    """As ever, the timeout is what counts; and the loop goes on."""

    def receive():
        return ours.recv(1, socket.MSG_DONTWAIT), ours.recvfrom(1, socket.MSG_DONTWAIT)[0]

    def send():
        for data in (b"a", b"b"):
            fiberback.await_(backend.sleep(0.001))
            theirs.send(data)

    with pair(5) as (ours, theirs):
        assert together(backend, receive, send)[0] == (b"a", b"b")


def test_the_mode_is_left_alone(backend, monkeypatch):
    """Where there is a flag against waiting: other threads may be at the same socket."""
    from fiberback._blocking import retry

    changed = []
    monkeypatch.setattr(retry, "_set_timeout", lambda *args: changed.append(args))
    data = bytes(1_000_000)

    def receive():
        got = len(ours.recv(1)) + len(ours.recvfrom(1)[0]) + len(ours.recvmsg(1)[0])
        got += ours.recv_into(bytearray(1)) + ours.recvfrom_into(bytearray(5), nbytes=1)[0]
        got += ours.recvmsg_into([bytearray(1)])[0]
        left = 2 * len(data)
        while left:
            left -= len(ours.recv(100_000))
        return got

    def send():
        for _ in range(6):
            fiberback.await_(backend.sleep(0.001))
            theirs.send(b"x")
        theirs.sendall(data)
        sent = 0
        while sent < len(data):
            sent += theirs.sendmsg([data[sent:]])

    with pair() as (ours, theirs):
        assert together(backend, receive, send)[0] == 6
    with pair(kind=socket.SOCK_DGRAM) as (ours, theirs):

        def send_to():
            with pytest.raises(OSError):
                theirs.sendto(b"x", 0, "/nobody/is/there")
            theirs.sendmsg([b"x"])

        together(backend, lambda: ours.recvfrom(1), send_to)
    assert changed == []


def test_a_timeout_that_is_set_meanwhile(backend):
    def accept():
        return listener.accept()[0].close()

    def connect():
        fiberback.await_(backend.sleep(0.001))
        listener.settimeout(60)
        socket.create_connection(listener.getsockname()).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        together(backend, accept, connect)
        assert listener.gettimeout() == 60


class Pair(ctypes.Structure):
    _fields_ = (("one", ctypes.c_int), ("other", ctypes.c_double))


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("value", [Pair(1, 2.0), (ctypes.c_int * 3)(1, 2, 3), ctypes.c_int(0)])
def test_objects_of_c_types(backend, timeout, value):
    def talk():
        for send in (ours.send, ours.sendall):
            for flags in (0, socket.MSG_WAITALL):
                send(value)
                got = type(value)()
                assert theirs.recv_into(got, 0, flags) == ctypes.sizeof(value)
                assert bytes(got) == bytes(value)

    with pair(timeout) as (ours, theirs):
        together(backend, talk)


def test_what_is_iterated_once_and_must_wait(backend):
    def send():
        fill = 0
        ours.setblocking(False)
        try:
            while True:
                fill += ours.send(bytes(10_000))
        except BlockingIOError:
            ours.setblocking(True)
        filled.append(fill)
        return ours.sendmsg(iter([b"ab", b"c"]))

    def receive():
        while not filled:
            fiberback.await_(backend.sleep(0))
        left = filled[0]
        while left:
            left -= len(theirs.recv(min(left, 100_000)))
        return theirs.recv(10)

    filled = []
    with pair() as (ours, theirs):
        assert together(backend, send, receive) == [3, b"abc"]


def test_nobody_is_there_any_more(backend):
    def check():
        ours.settimeout(5)
        theirs.close()
        assert ours.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"x")

    with pair() as (ours, theirs):
        together(backend, check)


def test_two_wait_for_the_same_direction_and_one_for_the_other(backend):
    data = bytes(5_000_000)

    def drain():
        left = len(data)
        while left:
            left -= len(theirs.recv(100_000))
        theirs.sendall(b"ab")

    with pair() as (ours, theirs):
        found = together(
            backend,
            lambda: ours.recv(1),
            lambda: ours.recv(1),
            lambda: ours.sendall(data),
            drain,
        )
    assert sorted(found[:2]) == [b"a", b"b"]


def test_a_socket_closed_by_another_task(backend):
    def receive():
        with pytest.raises(OSError) as caught:
            ours.recv(1)
        return caught.value.errno

    def close():
        fiberback.await_(backend.sleep(0.001))
        ours.close()

    with pair() as (ours, _):
        assert together(backend, receive, close)[0] == errno.EBADF


def test_a_number_that_is_used_again(backend):
    """What the kernel's list has forgotten is entered again."""

    def check():
        for _ in range(20):
            ours, theirs = socket.socketpair()
            with ours, theirs:

                def send(theirs=theirs):
                    theirs.send(b"x")

                timer = threading.Timer(0.001, send)
                timer.start()
                assert ours.recv(1) == b"x"
                timer.join()

    together(backend, check)


def test_cancellation_leaves_the_socket_as_it_was(backend):
    async def main():
        ended = []

        def receive():
            try:
                ours.recv(1)
            except backend.Cancelled:
                ended.append(ours.gettimeout())
                raise

        with pair(60) as (ours, theirs):
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, receive)
                await backend.sleep(0.001)
                handle.cancel()
            theirs.send(b"x")
            ended.append(await fiberback.with_portal_run_sync(ours.recv, 10))
        return ended

    assert backend.run(main) == [60, b"x"]


def test_a_file_that_the_loop_reads_itself(backend):
    """asyncio would lose its reader, uvloop refuse the transport's file, Trio have one waiter only."""
    if backend.library != "asyncio":
        pytest.skip("transports are asyncio's")

    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        copy = socket.socket(fileno=ours.fileno())
        try:
            copy.setblocking(True)
            writer.transport.pause_reading()

            def receive():
                return copy.recv(1)

            task = asyncio.ensure_future(fiberback.with_portal_run_sync(receive))
            await asyncio.sleep(0.001)
            theirs.send(b"a")
            found = await task
            copy.setblocking(False)
        finally:
            copy.detach()
        writer.transport.resume_reading()
        theirs.send(b"b")
        found += await reader.read(1)
        writer.close()
        theirs.close()
        await writer.wait_closed()
        return found

    assert backend.run(main) == b"ab"


def test_sendfile(backend, tmp_path):
    path = tmp_path / "file"
    data = bytes(range(256)) * 10_000
    path.write_bytes(data)

    def send():
        with path.open("rb") as file:
            count = ours.sendfile(file)
        ours.shutdown(socket.SHUT_WR)
        return count

    def receive():
        with theirs.makefile("rb") as file:
            return file.read()

    with pair() as (ours, theirs):
        assert together(backend, send, receive) == [len(data), data]


def test_types_stay(backend):
    with pair() as (ours, _):
        assert type(ours) is socket.socket and isinstance(ours, socket.SocketType)
        assert type(ours.fileno()) is int
        assert socket.socket.recv.__name__ == "recv" and socket.socket.recv.__doc__


def test_the_loop_s_own_sockets_go_on(backend):
    """asyncio's servers and clients, begun while it is in force."""
    if backend.library != "asyncio":
        pytest.skip("asyncio's streams")

    async def main():
        async def handle(reader, writer):
            writer.write(await reader.read(10))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello")
        found = await reader.read()
        writer.close()
        server.close()
        return found

    assert backend.run(main) == b"hello"
