"""Django's check that sync database code is not run on an event loop, with the right answer.

Django marks what would block with `@async_unsafe`, which refuses whenever a loop runs. With a driver
that waits, only those tasks are to be refused that cannot wait.
"""

# The packages named here may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,misc"
# mypy: warn-unused-ignores=False

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.utils import asyncio as django_asyncio
from django.utils.asyncio import async_unsafe

from .. import _messages
from ..dbapi._waiting import can_wait

_CHECK = async_unsafe(lambda: None).__code__
# Whether what runs has been let through here, and Django's own check need not be made again.
_let_through: ContextVar[bool] = ContextVar("fiberback_django_let_through", default=False)


def _loop_to_block() -> asyncio.AbstractEventLoop:
    """What Django's check calls to see whether a loop runs here."""
    if _let_through.get():
        raise RuntimeError("no event loop that this call would block")
    loop = asyncio.get_running_loop()
    if can_wait() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        # Django would advise to use `sync_to_async`, which may run the code in the very same task.
        raise SynchronousOnlyOperation(_messages.DJANGO_BLOCKS)
    return loop


def say_what_to_type() -> None:
    """Where Django refuses a task that can wait, it says what to do there. Again it does nothing."""
    django_asyncio.get_running_loop = _loop_to_block


def _allowed_where_it_waits(cls: type, name: str) -> Any:
    @functools.wraps(getattr(cls, name))
    def call(self: Any, *args: Any, **kwds: Any) -> Any:
        if not can_wait():
            raise SynchronousOnlyOperation(_messages.DJANGO_NO_PORTAL)
        # Looked up at each call, because Django's test cases wrap these methods in the base class.
        inherited: Any = getattr(super(cls, self), name)
        function: Any = getattr(inherited, "__func__", None)
        if getattr(function, "__code__", None) is _CHECK:
            return function.__wrapped__(self, *args, **kwds)
        token = _let_through.set(True)
        try:
            return inherited(*args, **kwds)
        finally:
            _let_through.reset(token)

    return call


def that_waits(backend: type) -> Any:
    """A subclass of a backend's wrapper that overrides all that is marked `@async_unsafe` in it."""
    waiting: Any = type(backend.__name__, (backend,), {"__module__": __name__})
    for name in dir(backend):
        value = inspect.getattr_static(backend, name)
        if isinstance(value, FunctionType) and value.__code__ is _CHECK:
            setattr(waiting, name, _allowed_where_it_waits(waiting, name))
    say_what_to_type()
    return waiting
