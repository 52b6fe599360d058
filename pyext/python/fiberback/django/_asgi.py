"""Django's ASGI application with all of a request in its own task: no threads.

Django hands sync code (receivers of signals, sync views and middleware, `response.close`, the `a...`
methods of the ORM) to asgiref's `sync_to_async`, which runs it in a thread. Here such code runs in the
request's task, which has a portal, so it may wait there and finds the task's own connection and
transaction; and its `async_to_sync` waits. Code that blocks (a sync HTTP client, a long computation)
then holds up the loop: give it to `asyncio.to_thread`, or to `sync_to_async(...,
thread_sensitive=False)`.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.handlers import asgi

from .. import await_, with_portal_run_tree
from ._in_task import let_async_to_sync_wait, use_task
from ._safety import say_what_to_type


class ASGIHandler(asgi.ASGIHandler):
    """`django.core.handlers.asgi.ASGIHandler` whose requests have portals and need no threads."""

    def __init__(self) -> None:
        let_async_to_sync_wait()
        say_what_to_type()
        super().__init__()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await with_portal_run_tree(super().__call__, scope, receive, send)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Called by `__call__` within the context that asgiref would make a thread for."""
        context: ThreadSensitiveContext | None = SyncToAsync.thread_sensitive_context.get(None)
        if context is not None:
            use_task(context)
        await super().handle(scope, receive, send)

    def adapt_method_mode(
        self,
        is_async: bool,
        method: Any,
        method_is_async: bool | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> Any:
        """As Django's, but sync code waits for an async `method` with `await_`."""
        if method_is_async is None:
            method_is_async = asgi.base.iscoroutinefunction(method)
        if is_async or not method_is_async:
            return super().adapt_method_mode(is_async, method, method_is_async, debug, name)

        def call(*args: Any, **kwds: Any) -> Any:
            return await_(method(*args, **kwds))

        return call


def get_asgi_application() -> ASGIHandler:
    """`django.core.asgi.get_asgi_application` with this module's `ASGIHandler`."""
    django.setup(set_prefix=False)
    return ASGIHandler()
