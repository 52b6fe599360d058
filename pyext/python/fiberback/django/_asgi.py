"""Django's ASGI application with all of a request in its own task: no threads.

Django hands sync code (receivers of signals, sync views and middleware, `response.close`, the `a…`
methods of the ORM) to asgiref's `sync_to_async`, which runs it in a thread. Here such code runs in the
request's task, which has a portal, so it may wait there and finds the task's own connection and
transaction. Code that blocks (a sync HTTP client, a long computation) then holds up the loop: give it
to `asyncio.to_thread`, or to `sync_to_async(..., thread_sensitive=False)`.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import django
from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.handlers import asgi

from .. import await_, can_await, with_portal_run_tree


class _InTask(Executor):
    """Runs what is submitted at once, on the caller's stack, if that can wait; else in a thread."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
        if not can_await():
            if self._thread is None:
                self._thread = ThreadPoolExecutor(max_workers=1)
            return self._thread.submit(fn, *args, **kwds)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwds))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=wait, cancel_futures=cancel_futures)


class ASGIHandler(asgi.ASGIHandler):
    """`django.core.handlers.asgi.ASGIHandler` whose requests have portals and need no threads."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await with_portal_run_tree(super().__call__, scope, receive, send)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        # Called within a context that asgiref would make a thread for.
        context: ThreadSensitiveContext | None = SyncToAsync.thread_sensitive_context.get(None)
        if context is not None:
            SyncToAsync.context_to_thread_executor[context] = _InTask()
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
