"""Sync endpoints of Starlette and FastAPI, which run in AnyIO's worker threads."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

starlette = import_or_skip("starlette")
httpx = import_or_skip("httpx")
anyio = import_or_skip("anyio")

from starlette.applications import Starlette  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

variable = contextvars.ContextVar("variable", default=None)


def make_fastapi(endpoints):
    fastapi = import_or_skip("fastapi")
    app = fastapi.FastAPI()
    for path, endpoint in endpoints.items():
        app.add_api_route(path, endpoint)
    return app


def make_starlette(endpoints):
    def route(path, endpoint):
        return Route(path, lambda request: JSONResponse(endpoint()))

    return Starlette(routes=[route(path, endpoint) for path, endpoint in endpoints.items()])


MAKERS = {"starlette": make_starlette, "fastapi": make_fastapi}
LOOPS = {"asyncio": None, "uvloop": "uvloop", "run": "run", "trio": "trio"}


@pytest.fixture(params=[f"{app}, {loop}" for app in MAKERS for loop in LOOPS])
def get(request, fb):
    """Asks an application of these endpoints for `paths`, all at once."""
    maker, loop = request.param.split(", ")

    def ask(endpoints, *paths):
        app = MAKERS[maker](endpoints)
        answers = {}

        async def one(client, at, path):
            response = await client.get(path)
            response.raise_for_status()
            answers[at] = response.json()

        async def main():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                async with anyio.create_task_group() as group:
                    for at, path in enumerate(paths):
                        group.start_soon(one, client, at, path)
            if loop != "trio":
                for _ in range(100):
                    if len(asyncio.all_tasks()) == 1:
                        break
                    await asyncio.sleep(0.005)
                assert len(asyncio.all_tasks()) == 1

        if loop == "run":
            fb.run(main())
        elif loop == "trio":
            import_or_skip("trio")
            anyio.run(main, backend="trio")
        elif loop == "uvloop":
            import_or_skip("uvloop")
            anyio.run(main, backend_options={"use_uvloop": True})
        else:
            anyio.run(main)
        return [answers[at] for at in range(len(paths))]

    return ask


async def task_id():
    await anyio.sleep(0)
    return anyio.get_current_task().id


def test_one_task_for_each_request(fb, get):
    """At least: on Trio it is the request's own."""

    def endpoint():
        ids = {fb.await_(task_id()) for _ in range(3)}
        assert len(ids) == 1
        return ids.pop()

    answers = get({"/": endpoint}, *["/"] * 20)
    assert len(answers) == 20


def test_a_task_group_and_a_timeout_across_waits(fb, get):
    async def work(done):
        await anyio.sleep(0)
        done.append(1)

    async def open_group():
        group = anyio.create_task_group()
        await group.__aenter__()
        return group

    async def enter():
        scope = anyio.move_on_after(0.05)
        scope.__enter__()
        return scope

    async def leave(scope, error):
        return scope.__exit__(type(error), error, error.__traceback__)

    async def start(group, done):
        group.start_soon(work, done)

    async def sleep(seconds):
        await anyio.sleep(seconds)

    def endpoint():
        done = []
        group = fb.await_(open_group())
        for _ in range(3):
            fb.await_(start(group, done))
        fb.await_(group.__aexit__(None, None, None))
        scope = fb.await_(enter())
        try:
            fb.await_(sleep(30))
        except BaseException as error:
            assert fb.await_(leave(scope, error))
        return [len(done), scope.cancelled_caught]

    assert get({"/": endpoint}, "/", "/") == [[3, True]] * 2


def test_tokens(fb, get):
    async def set_to(value):
        return variable.set(value)

    async def reset(token):
        variable.reset(token)

    def endpoint():
        token = fb.await_(set_to(1))
        seen = [variable.get()]
        fb.await_(reset(token))
        return [*seen, variable.get()]

    assert get({"/": endpoint}, "/", "/") == [[1, None]] * 2


def test_a_client_opened_by_one_wait_and_used_by_the_next(fb, get):
    """httpx keeps connections in AnyIO's streams and locks, which belong to tasks and loops."""

    inner = Starlette(routes=[Route("/", lambda request: PlainTextResponse("inner"))])

    async def make():
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(inner), base_url="http://inner", timeout=5
        )
        return await client.__aenter__()

    def endpoint():
        client = fb.await_(make())
        texts = [fb.await_(client.get("/")).text for _ in range(3)]
        fb.await_(client.aclose())
        return texts

    assert get({"/": endpoint}, "/", "/") == [["inner"] * 3] * 2


def test_a_session_like_those_of_mcp(fb, get):
    """A task group and memory streams, entered by one wait and left by another one."""

    class Session:
        async def __aenter__(self):
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
            self._send, receive = anyio.create_memory_object_stream(10)
            self._answers, self._read = anyio.create_memory_object_stream(10)
            self._group.start_soon(self._serve, receive)
            return self

        async def _serve(self, receive):
            async with receive, self._answers:
                async for request in receive:
                    await self._answers.send(request * 2)

        async def call(self, request):
            with anyio.fail_after(5):
                await self._send.send(request)
                return await self._read.receive()

        async def __aexit__(self, *exc):
            self._send.close()
            self._read.close()
            self._group.cancel_scope.cancel()
            return await self._group.__aexit__(*exc)

    def endpoint():
        with fb.async_context(Session()) as session:
            return [fb.await_(session.call(at)) for at in range(3)]

    assert get({"/": endpoint}, "/", "/") == [[0, 2, 4]] * 2
