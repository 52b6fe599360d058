"""fiberback.asgi, and `enable(everywhere=True)`, under real servers: uvicorn and Hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

HERE = os.path.dirname(__file__)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def command(server, port):
    name, _, loop = server.partition(" ")
    where = f"127.0.0.1:{port}"
    if name == "uvicorn":
        return ["uvicorn", "asgi_application:app", "--port", str(port), "--loop", loop]
    if loop == "processes":
        # Two processes of their own, which import the application.
        return ["hypercorn", "asgi_application:app", "--bind", where, "--workers", "2"]
    return ["hypercorn", "asgi_application:app", "--bind", where, "--worker-class", loop,
            "--workers", "0"]  # fmt: skip


class Served:
    def __init__(self, port, process):
        self.port = port
        self.process = process
        self.output = ""

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def json(self, path):
        status, body = self.get(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def until(self, path, text):
        until = time.monotonic() + 60
        while text not in (answer := self.get(path)[1]):
            assert time.monotonic() < until, answer
            time.sleep(0.05)


@contextlib.contextmanager
def serving(server, how, application):
    import_or_skip(server.split()[0])
    port = free_port()
    arguments = command(server, port)
    script = os.path.join(HERE, "asgi_application.py")
    start = [script] if how == "outside" else ["-m"]
    if server == "hypercorn trio":
        start, arguments = [script], ["trio", str(port)]
    environment = {
        **os.environ,
        "FIBERBACK_HOW": how,
        "FIBERBACK_APP": application,
        "PYTHONPATH": HERE,
        "PYTHONFAULTHANDLER": "1",
    }
    process = subprocess.Popen(
        [sys.executable, *start, *arguments],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    served = Served(port, process)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
            time.sleep(0.05)
        yield served
    finally:
        process.terminate()
        try:
            served.output = process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            served.output = process.communicate()[0]
            raise
        print(served.output)
    assert process.returncode in (0, -signal.SIGTERM), served.output
    assert "await_() was called" not in served.output


def talk(port, path):
    websockets = import_or_skip("websockets.sync.client")
    with websockets.connect(f"ws://127.0.0.1:{port}{path}") as client:
        answers = []
        for text in ("a", "bc"):
            client.send(text)
            answers.append(client.recv(60))
    return answers


WAYS = ["middleware", "everywhere", "outside"]
SERVERS = ["uvicorn uvloop", "uvicorn asyncio", "uvicorn auto", "hypercorn asyncio",
           "hypercorn uvloop"]  # fmt: skip


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("server", SERVERS)
def test_fastapi(server, how):
    import_or_skip("fastapi")
    with serving(server, how, "fastapi") as served:
        answer = served.json("/async")
        assert answer["slept"] == [0.001] * 3 and answer["portal"]
        if "uvloop" in server or "auto" in server:
            assert answer["loop"] == "uvloop"
        assert served.json("/sync") == {"slept": 0.001, "main": True}
        assert served.get("/stream") == (200, "0,1,2,")
        assert served.json("/later") == {}
        for event in ("background", "after", "thread"):
            served.until("/events", event)
        assert served.get("/boom")[0] == 500
        assert talk(served.port, "/ws") == ["aa", "bcbc"]
        assert served.json("/async")["portal"]
    assert "ZeroDivisionError: boom" in served.output
    assert "lifespan over" in served.output


@pytest.mark.parametrize(
    "server", ["uvicorn uvloop", "uvicorn asyncio", "hypercorn uvloop", "hypercorn trio"]
)
def test_plain_asgi(server):
    with serving(server, "middleware", "plain") as served:
        loop = {"uvloop": "uvloop", "trio": "trio"}.get(server.split()[1], "asyncio")
        status, body = served.get("/here")
        assert status == 200 and body.startswith(loop)
        assert body.split()[1:] == ["True", "lifespan.startup"]
        assert served.get("/boom")[0] == 500
        assert talk(served.port, "/") == ["aa", "bcbc"]
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            served.until("/here", "begun")
        served.until("/here", "gone")
    assert "lifespan lifespan.startup begun gone lifespan.shutdown" in served.output


def test_processes_of_a_server():
    with serving("hypercorn processes", "everywhere", "plain") as served:
        for _ in range(8):
            status, body = served.get("/here")
            assert status == 200 and body.split()[1] == "True"


# In this process.


def application(log):
    async def app(scope, receive, send):
        log.append(scope["type"])
        raise KeyError(scope["type"])

    app.state = "of the application"
    return app


def test_exceptions_pass_and_attributes_are_the_applications(fb, backend):
    import fiberback.asgi

    log = []
    wrapped = fiberback.asgi.PortalMiddleware(application(log))
    assert wrapped.state == "of the application"
    with pytest.raises(AttributeError):
        _ = wrapped.nothing

    async def main():
        with pytest.raises(KeyError, match="http"):
            await wrapped({"type": "http"}, None, None)
        assert not fb.has_portal()

    backend.run(main)
    assert log == ["http"]


def test_cancelled_and_with_the_context_of_the_server(fb, backend):
    import contextvars

    import fiberback.asgi

    var = contextvars.ContextVar("var", default="unset")
    log = []

    async def app(scope, receive, send):
        log.append(var.get())
        var.set("by the application")
        try:
            fb.await_(backend.sleep(1000))
        except backend.Cancelled:
            fb.await_(receive()) if backend.library == "asyncio" else None
            log.append("cancelled")
            raise

    async def receive():
        await asyncio.sleep(0)

    async def main():
        var.set("by the server")
        with pytest.raises(backend.TimedOut):
            async with backend.timeout(0.01):
                await fiberback.asgi.PortalMiddleware(app)({}, receive, None)
        assert var.get() == "by the application"  # as without: the same task

    backend.run(main)
    assert log == ["by the server", "cancelled"]
