"""What a task of a group runs: a function, sync or async, with a portal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import CO_COROUTINE, isawaitable
from typing import Any

from .._portal.call_portal import with_portal_run, with_portal_run_sync


async def call(fn: Callable[..., Any], args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
    """`fn(*args, **kwds)`, awaited if it is to be awaited."""
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        return await with_portal_run(fn, *args, **kwds)
    result = await with_portal_run_sync(fn, *args, **kwds)
    if isawaitable(result):
        return await with_portal_run(_given, result)
    return result


def _given(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    return awaitable
