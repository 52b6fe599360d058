"""The sync face of `httpx.AsyncClient`, on a real server: as httpx's own sync client behaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json

import fiberback
import pytest
from fiberback import syncify
from places import of_block, parked
from support import import_or_skip, only_fiberback

httpx = import_or_skip("httpx")

pytestmark = only_fiberback

Client = syncify(httpx.AsyncClient)


class Server:
    """HTTP/1.1, as much as is needed: its paths say what it answers."""

    def __init__(self):
        self.waiting = 0
        self.all_are_here = asyncio.Event()
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.strip().split("\r\n")
                method, path, _ = line.split()
                headers = {k.lower(): v for k, v in (each.split(": ", 1) for each in lines)}
                if headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(await reader.readline(), 16):
                        body += await reader.readexactly(size + 2)
                        body = body[:-2]
                    await reader.readline()
                else:
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.answer(writer, method, path, headers, body)
        writer.close()

    async def answer(self, writer, method, path, headers, body):
        status, more, answer = "200 OK", {}, b""
        if path == "/meet":
            self.waiting += 1
            if self.waiting == 50:
                self.all_are_here.set()
            await self.all_are_here.wait()
            answer = b"met"
        elif path == "/never":
            await asyncio.sleep(3600)
        elif path == "/redirect":
            status, more = "302 Found", {"Location": "/echo"}
        elif path == "/missing":
            status = "404 Not Found"
        elif path == "/lines":
            more["Content-Encoding"] = "gzip"
            answer = gzip.compress(b"one\ntwo\nthree\n")
        elif path == "/cookie":
            more["Set-Cookie"] = "name=value"
        else:
            said = {"method": method, "path": path, "headers": headers, "body": body.decode()}
            answer = json.dumps(said).encode()
            more["Content-Type"] = "application/json"
        more["Content-Length"] = str(len(answer))
        head = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + answer)
        await writer.drain()


@pytest.fixture(scope="module")
def server():
    """In another thread, so that it answers whatever the tests do."""
    with fiberback.threads.LoopThread() as thread:
        served = thread.wrap_context(_serve)
        with served as server:
            yield server


@contextlib.asynccontextmanager
async def _serve():
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()


def on_portal(function):
    return fiberback.run(fiberback.with_portal_run_sync(function))


def in_worker(function):
    async def main():
        return await asyncio.to_thread(function)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "place", [on_portal, parked, in_worker, of_block], ids=lambda each: each.__name__
)
def test_behaves_as_the_sync_client(server, place):
    seen = []

    class Auth(httpx.Auth):
        def auth_flow(self, request):
            request.headers["Authorization"] = "secret"
            yield request

    def request_hook(request):
        seen.append(request.url.path)

    def response_hook(response):
        assert type(response) is syncify(httpx.Response)
        seen.append(len(response.read()))

    def function():
        hooks = {"request": [request_hook], "response": [response_hook]}
        with Client(base_url=server.url, event_hooks=hooks, verify=False) as client:
            response = client.get("/echo", params={"a": 1}, headers={"X-Y": "z"})
            assert isinstance(response, httpx.Response) and repr(response) == "<Response [200 OK]>"
            assert (
                response.json()["path"] == "/echo?a=1" and response.json()["headers"]["x-y"] == "z"
            )
            assert seen == ["/echo", len(response.content)]
            client.event_hooks = {}

            assert client.post("/echo", json={"b": 2}).json()["body"] == '{"b":2}'
            sent = client.put("/echo", content=(part for part in [b"in ", b"parts"]))
            assert sent.json()["body"] == "in parts"
            assert client.get("/echo", auth=Auth()).json()["headers"]["authorization"] == "secret"

            assert client.get("/redirect").status_code == 302
            followed = client.get("/redirect", follow_redirects=True)
            assert followed.url.path == "/echo" and followed.history[0].status_code == 302

            client.get("/cookie")
            assert client.cookies["name"] == "value"
            assert client.get("/echo").json()["headers"]["cookie"] == "name=value"

            with client.stream("GET", "/lines") as response:
                assert list(response.iter_lines()) == ["one", "two", "three"]
            assert response.is_closed
            with client.stream("GET", "/lines") as response:
                assert response.read() == b"one\ntwo\nthree\n" == response.content
            with client.stream("GET", "/lines") as response:
                raw = b"".join(response.iter_raw())
                assert gzip.decompress(raw) == b"one\ntwo\nthree\n"
            request = client.build_request("GET", "/lines")
            response = client.send(request, stream=True)
            assert "".join(response.iter_text()) == "one\ntwo\nthree\n"
            response.close()

            with pytest.raises(httpx.HTTPStatusError, match="404"):
                client.get("/missing").raise_for_status()
            with pytest.raises(httpx.ReadTimeout):
                client.get("/never", timeout=0.01)
            client.headers["X-Client"] = "all"
            assert client.get("/echo").json()["headers"]["x-client"] == "all"
            assert not client.is_closed
        assert client.is_closed
        with pytest.raises(RuntimeError, match="closed"):
            client.get("/echo")
        client = Client(verify=False)
        client.close()
        assert client.is_closed

    place(function)


def test_fifty_calls_overlap_on_one_loop(server):
    """The server answers none before all of them have come."""

    async def main():
        limits = httpx.Limits(max_connections=50)
        with Client(base_url=server.url, limits=limits, timeout=60, verify=False) as client:
            calls = [fiberback.with_portal_run_sync(client.get, "/meet") for _ in range(50)]
            return [response.text for response in await asyncio.gather(*calls)]

    assert fiberback.run(main()) == ["met"] * 50
