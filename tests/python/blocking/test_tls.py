"""TLS in unmodified code, between tasks of one thread and with a server in another one."""

from __future__ import annotations

import socket
import ssl
import subprocess

import fiberback
import pytest
from servers import Meeting, serving, together
from support import only_fiberback

pytestmark = only_fiberback


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """Of a server and a client that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost"],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install("sockets", "ssl", "dns"):
        yield


@pytest.mark.parametrize("timeout", [None, 60])
def test_many_clients_in_one_thread(backend, contexts, timeout):
    meeting = Meeting(20)

    def handle(plain):
        with contexts[0].wrap_socket(plain, server_side=True) as connection:
            data = connection.recv(100)
            meeting()
            connection.sendall(data * 20_000)

    def client(number):
        with (
            socket.create_connection(("localhost", address[1]), timeout=timeout) as plain,
            contexts[1].wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"%03d" % number)
            with sock.makefile("rb") as file:
                return file.read() == b"%03d" % number * 20_000 and sock.gettimeout() == timeout

    with serving(handle) as address:
        assert all(together(backend, *(lambda n=n: client(n) for n in range(20))))


@pytest.mark.parametrize("timeout", [None, 60])
def test_both_sides_in_one_thread(backend, contexts, timeout):
    data = bytes(range(256)) * 8_000
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout)
    theirs.settimeout(timeout)

    def serve():
        with contexts[0].wrap_socket(theirs, server_side=True) as sock:
            got = bytearray()
            while len(got) < len(data):
                buffer = bytearray(9_000)
                count = sock.recv_into(buffer)
                got += buffer[:count]
            sock.write(b"done")
            with sock.unwrap() as plain:
                plain.sendall(b"plain")
            return bytes(got)

    def ask():
        with contexts[1].wrap_socket(ours, server_hostname="localhost") as sock:
            sock.sendall(data)
            assert sock.read(4) == b"done"
            with sock.unwrap() as plain:
                return plain.recv(10)

    assert together(backend, ask, serve) == [b"plain", data]


def test_timeouts(backend, contexts):
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)

    def check():
        with pytest.raises(TimeoutError, match="handshake operation timed out"):
            contexts[1].wrap_socket(ours, server_hostname="localhost")

    with theirs:
        together(backend, check)

    silent, asks = socket.socketpair()

    def read():
        with contexts[1].wrap_socket(asks, server_hostname="localhost") as sock:
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError, match="read operation timed out"):
                sock.recv(1)
            with pytest.raises(TimeoutError, match="write operation timed out"):
                while True:
                    sock.sendall(bytes(1_000_000))

    async def main():
        async with backend.group() as group:
            serving = group.spawn(fiberback.with_portal_run_sync, handshake)
            await fiberback.with_portal_run_sync(read)
            serving.cancel()

    def handshake():
        with contexts[0].wrap_socket(silent, server_side=True):
            fiberback.await_(backend.sleep(1000))

    backend.run(main)


def test_cancelled_in_the_middle_of_a_handshake(backend, contexts):
    async def main():
        ours, theirs = socket.socketpair()
        ended = []

        def ask():
            try:
                contexts[1].wrap_socket(ours, server_hostname="localhost")
            except BaseException as error:
                ended.append(type(error))
                raise

        with theirs:
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, ask)
                await backend.sleep(0.001)
                handle.cancel()
        return ended

    assert backend.run(main) == [backend.Cancelled]


def test_without_blocking(backend, contexts):
    """A socket in non-blocking mode says what it wants, and as ever."""

    def check():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            sock = contexts[1].wrap_socket(
                ours, server_hostname="localhost", do_handshake_on_connect=False
            )
            with sock:
                with pytest.raises(ssl.SSLWantReadError):
                    sock.do_handshake()
                assert sock.gettimeout() == 0

    together(backend, check)


def test_a_certificate_that_is_not_trusted(backend, contexts):
    ours, theirs = socket.socketpair()

    def serve():
        with pytest.raises(ssl.SSLError):
            contexts[0].wrap_socket(theirs, server_side=True)

    def ask():
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(ours, server_hostname="localhost")
        ours.close()

    with ours, theirs:
        together(backend, serve, ask)
