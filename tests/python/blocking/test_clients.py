"""Clients that people run, unmodified, by the hundred in one thread: HTTP, Redis, MySQL, and the standard library's."""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import http.server
import smtplib
import socket
import threading
import time
import urllib.request

import fiberback
import pytest
from servers import Meeting, serving, together
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

COUNT = 100


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install():
        yield


@contextlib.contextmanager
def web(meeting):
    """A server that answers nobody before all have asked; /slow is never answered."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/slow":
                ended.wait()
                return
            meeting()
            body = self.path.encode() * 1000
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 300

    # Its threads are to block as threads do.
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def by_requests():
    requests = import_or_skip("requests")
    return lambda url, timeout=None: requests.get(url, timeout=timeout).content


def by_urllib3():
    pool = import_or_skip("urllib3").PoolManager(maxsize=COUNT, retries=False)
    return lambda url, timeout=None: pool.request("GET", url, timeout=timeout).data


def by_urllib():
    def get(url, timeout=60):
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read()

    return get


def by_http_client():
    def get(url, timeout=60):
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=timeout)
        connection.request("GET", "/" + path)
        body = connection.getresponse().read()
        connection.close()
        return body

    return get


HTTP_CLIENTS = [by_requests, by_urllib3, by_urllib, by_http_client]


@pytest.mark.parametrize("make", HTTP_CLIENTS)
def test_a_hundred_downloads_in_one_thread(backend, make):
    get = make()
    with web(Meeting(COUNT)) as port:
        urls = [f"http://127.0.0.1:{port}/{n}" for n in range(COUNT)]
        found = together(backend, *(lambda url=url: get(url) for url in urls))
    assert found == [f"/{n}".encode() * 1000 for n in range(COUNT)]


@pytest.mark.parametrize("make", HTTP_CLIENTS)
def test_timeouts_and_cancellation(backend, make):
    """What comes afterwards, by the same pool, is not the answer to what was given up."""
    get = make()

    async def main():
        ended = []

        def slow():
            try:
                get(f"http://127.0.0.1:{port}/slow")
            except backend.Cancelled:
                ended.append(1)
                raise

        def late():
            with pytest.raises(Exception, match="(?i)timed out"):
                get(f"http://127.0.0.1:{port}/slow", timeout=0.01)

        await fiberback.with_portal_run_sync(late)
        async with backend.group() as group:
            handle = group.spawn(fiberback.with_portal_run_sync, slow)
            await backend.sleep(0.005)
            handle.cancel()
        assert ended == [1]
        return await fiberback.with_portal_run_sync(get, f"http://127.0.0.1:{port}/x")

    with web(Meeting(1)) as port:
        assert backend.run(main) == b"/x" * 1000


def test_redis(backend, redis_server):
    """Each waits for a value that another one pushes when all of them wait."""
    redis = import_or_skip("redis")
    pool = redis.ConnectionPool.from_url(
        f"unix://{redis_server.socket}", max_connections=COUNT + 10
    )

    def pop(number):
        with redis.Redis(connection_pool=pool) as client:
            return client.blpop([f"list {number}"], 60)[1]

    def push():
        with redis.Redis(connection_pool=pool) as client:
            while client.info("clients")["blocked_clients"] < COUNT:
                time.sleep(0)
            with client.pipeline() as pipeline:
                for number in range(COUNT):
                    pipeline.rpush(f"list {number}", number)
                pipeline.execute()

    found = together(backend, *(lambda n=n: pop(n) for n in range(COUNT)), push)
    pool.disconnect()
    assert found == [*(b"%d" % n for n in range(COUNT)), None]


def test_redis_cancelled_and_too_late(backend, redis_server):
    redis = import_or_skip("redis")

    async def main():
        with redis.Redis(unix_socket_path=redis_server.socket, max_connections=1) as client:

            def late():
                with redis.Redis(
                    unix_socket_path=redis_server.socket, socket_timeout=0.01, retry=None
                ) as other:
                    with pytest.raises(redis.TimeoutError):
                        other.blpop(["nothing"], 60)

            await fiberback.with_portal_run_sync(late)
            async with backend.group() as group:
                handle = group.spawn(fiberback.with_portal_run_sync, client.blpop, ["nothing"], 60)
                await backend.sleep(0.005)
                handle.cancel()
            return await fiberback.with_portal_run_sync(client.echo, "hello")

    assert backend.run(main) == b"hello"


def test_mysql(backend, mariadb_socket):
    """One of them has a lock until all others ask for it."""
    pymysql = import_or_skip("pymysql")
    count, held = 30, []

    def query(connection, statement, *parameters):
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()

    def ask(number):
        while not held:
            time.sleep(0)
        with pymysql.connect(unix_socket=mariadb_socket, user="root") as connection:
            assert query(connection, "SELECT GET_LOCK('x', 60)") == (1,)
            assert query(connection, "SELECT RELEASE_LOCK('x')") == (1,)
            return query(connection, "SELECT %s + 1", number)

    def hold():
        with pymysql.connect(unix_socket=mariadb_socket, user="root") as connection:
            query(connection, "SELECT GET_LOCK('x', 60)")
            held.append(1)
            waiting = (
                "SELECT count(*) FROM information_schema.processlist WHERE state = 'User lock'"
            )
            while query(connection, waiting) != (count,):
                time.sleep(0.001)

    found = together(backend, *(lambda n=n: ask(n) for n in range(count)), hold)
    assert found == [*((n + 1,) for n in range(count)), None]


def test_mysql_cancelled_and_too_late(backend, mariadb_socket):
    pymysql = import_or_skip("pymysql")

    async def main():
        def late():
            # On a busy machine what is said at the beginning may be late already.
            with pytest.raises(pymysql.OperationalError, match="timed out"):
                with pymysql.connect(
                    unix_socket=mariadb_socket, user="root", read_timeout=0.01
                ) as connection:
                    connection.query("SELECT SLEEP(1000)")

        await fiberback.with_portal_run_sync(late)
        connection = pymysql.connect(unix_socket=mariadb_socket, user="root")
        async with backend.group() as group:
            handle = group.spawn(
                fiberback.with_portal_run_sync, connection.query, "SELECT SLEEP(1000)"
            )
            await backend.sleep(0.005)
            handle.cancel()
        return connection.open

    assert backend.run(main) is False


def test_mail(backend):
    meeting, received = Meeting(10), []

    def handle(connection):
        with connection.makefile("rwb") as file:

            def answer(line):
                file.write(line + b"\r\n")
                file.flush()

            answer(b"220 here")
            for line in file:
                word = line.split()[0].upper()
                if word == b"DATA":
                    meeting()
                    answer(b"354 go on")
                    while (part := file.readline()) != b".\r\n":
                        received.append(part)
                answer(b"221 bye" if word == b"QUIT" else b"250 ok")
                if word == b"QUIT":
                    return

    def send():
        with smtplib.SMTP(*address) as client:
            return client.sendmail("a@localhost", ["b@localhost"], "hello")

    with serving(handle) as address:
        assert together(backend, *[send] * 10) == [{}] * 10
    assert received.count(b"hello\r\n") == 10


def test_ftp(backend):
    meeting, data = Meeting(5), bytes(range(200)) * 1000

    def handle(connection):
        passive = socket.create_server(("127.0.0.1", 0))
        with connection.makefile("rwb") as file, passive:

            def answer(line):
                file.write(line + b"\r\n")
                file.flush()

            answer(b"220 here")
            for line in file:
                word = line.split()[0].upper()
                if word == b"PASV":
                    port = passive.getsockname()[1]
                    answer(b"227 (127,0,0,1,%d,%d)" % divmod(port, 256))
                elif word == b"RETR":
                    answer(b"150 opening")
                    meeting()
                    with passive.accept()[0] as sender:
                        sender.sendall(data)
                    answer(b"226 done")
                else:
                    answer(b"221 bye" if word == b"QUIT" else b"230 ok")

    def get():
        with ftplib.FTP() as client:
            client.connect(*address)
            client.login()
            parts = []
            client.retrbinary("RETR x", parts.append)
        return b"".join(parts)

    with serving(handle) as address:
        assert together(backend, *[get] * 5) == [data] * 5
