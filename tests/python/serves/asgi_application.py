"""FastAPI, and plain ASGI, for test_asgi.py: served by real servers in processes of their own.

Annotations are evaluated here: FastAPI reads them, and the names are those of a function.
"""

import asyncio
import contextlib
import contextvars
import os
import runpy
import signal
import sys

import fiberback
from fiberback.asgi import PortalMiddleware

HOW = os.environ["FIBERBACK_HOW"]  # "middleware", "everywhere" or "outside"
if HOW == "everywhere":
    fiberback.enable(everywhere=True)

events: list[str] = []
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def library() -> str:
    import sniffio

    with contextlib.suppress(sniffio.AsyncLibraryNotFoundError):
        return sniffio.current_async_library()
    return "asyncio"


async def sleep(seconds: float) -> float:
    if library() == "trio":
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
    return seconds


def deep(n: int) -> float:
    return deep(n - 1) if n else fiberback.await_(sleep(0.001))


def loop_name() -> str:
    if library() == "trio":
        return "trio"
    return type(asyncio.get_running_loop()).__module__


async def plain(scope, receive, send):
    """A plain ASGI application, on any library."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            deep(3)
            events.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("lifespan", *events, flush=True)
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            deep(3)
            fiberback.await_(send({"type": "websocket.send", "text": message["text"] * 2}))
        return
    path = scope["path"]
    if path == "/slow":
        events.append("begun")
        try:
            fiberback.await_(until_gone(receive))
        finally:
            events.append("gone")
        return
    if path == "/boom":
        deep(3)
        raise ZeroDivisionError("boom")
    var.set(path)
    deep(3)
    assert var.get() == path
    body = f"{loop_name()} {fiberback.has_portal()} {' '.join(events)}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-plain", b"1")]})
    for part in (body[:3], body[3:]):
        deep(1)
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


def with_fastapi():
    from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
    from fastapi.responses import StreamingResponse
    from starlette.middleware.base import BaseHTTPMiddleware

    @contextlib.asynccontextmanager
    async def lifespan(app):
        deep(3)
        app.state.begun = True
        app.state.background = asyncio.create_task(in_background())
        yield
        deep(3)
        print("lifespan over", flush=True)

    async def in_background():
        deep(2)
        events.append("background")

    app = FastAPI(lifespan=lifespan)

    async def around(request, call_next):  # the application runs in a task of AnyIO's
        deep(2)
        response = await call_next(request)
        deep(2)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=around)

    def dependency():
        return deep(2)

    async def async_dependency():
        return deep(2)

    in_thread_first, in_task_first = Depends(dependency), Depends(async_dependency)

    @app.get("/async")
    async def in_task(a=in_thread_first, b=in_task_first):
        return {"slept": [deep(5), a, b], "loop": loop_name(), "portal": fiberback.has_portal()}

    @app.get("/sync")
    def in_thread():
        return {"slept": deep(5), "main": app.state.begun}

    @app.get("/stream")
    async def stream():
        async def parts():
            for n in range(3):
                deep(2)
                yield f"{n},"

        return StreamingResponse(parts())

    @app.get("/later")
    async def later(tasks: BackgroundTasks):
        async def after():
            deep(3)
            events.append("after")

        def after_in_thread():
            deep(3)
            events.append("thread")

        tasks.add_task(after)
        tasks.add_task(after_in_thread)
        return {}

    @app.get("/events")
    async def which():
        return events

    @app.get("/boom")
    async def boom():
        deep(2)
        raise ZeroDivisionError("boom")

    @app.websocket("/ws")
    async def ws(socket: WebSocket):
        await socket.accept()
        for _ in range(2):
            text = fiberback.await_(socket.receive_text())
            fiberback.await_(socket.send_text(text * 2))
        await socket.close()

    return app


if "fastapi" in os.environ["FIBERBACK_APP"]:
    app = with_fastapi()
else:
    app = plain
if HOW == "middleware":
    app = PortalMiddleware(app)


async def on_trio(port):
    """Hypercorn's command line knows Ctrl-C only there, which may hit any task."""
    import hypercorn.trio
    import trio

    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]

    with trio.open_signal_receiver(signal.SIGTERM) as signals:

        async def until_terminated():
            await anext(signals)

        await hypercorn.trio.serve(app, config, shutdown_trigger=until_terminated)


if __name__ == "__main__":
    if sys.argv[1] == "trio":
        import trio

        trio.run(on_trio, sys.argv[2])
    else:  # a server's command line, prepared from the outside
        sys.argv = sys.argv[1:]
        with fiberback.enable(everywhere=True):
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
