"""Serves ASGI: every request of an application can `await_`, on any server and any of its loops.

One line, for FastAPI, Starlette, Litestar, Quart, Django or a plain ASGI application, on asyncio,
uvloop or Trio::

    app = fiberback.asgi.PortalMiddleware(app)      # or app.add_middleware(PortalMiddleware)

Nothing has to be known of the server. Where all of a process's tasks should have portals, those that
other libraries start included, `fiberback.enable(everywhere=True)` in the module with the application
does that instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import with_portal_run_tree

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PortalMiddleware:
    """ASGI 3 middleware: a portal for each request, websocket and lifespan, and for what they start.

    `app(scope, receive, send)` runs in the server's task as it would without: with the task's context,
    its cancellation when the client goes away, its exceptions. In it, and in tasks that are started
    below it (task groups, background tasks, streamed bodies), `fiberback.await_` waits, however deep.
    Sync endpoints that a framework runs in threads wait for the loop, as they do without this.

    Attributes that are not its own are the application's (`state`, `routes`), so it can take its place.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await with_portal_run_tree(self.app, scope, receive, send)

    def __repr__(self) -> str:
        return f"fiberback.asgi.PortalMiddleware({self.app!r})"

    def __getattr__(self, name: str) -> Any:
        if name == "app":  # not yet: while being unpickled or copied
            raise AttributeError(name)
        return getattr(self.app, name)
