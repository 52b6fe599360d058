"""Django's check that sync database code is not run on an event loop, with the right answer.

Django marks what would block with `@async_unsafe`, which refuses whenever a loop runs. With a driver
that waits, only those tasks are to be refused that cannot wait.
"""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.utils.asyncio import async_unsafe

from .. import _messages
from ..dbapi._waiting import can_wait

_CHECK = async_unsafe(lambda: None).__code__


def _allowed_where_it_waits(marked: Any) -> Any:
    original = marked.__wrapped__

    @functools.wraps(original)
    def call(*args: Any, **kwds: Any) -> Any:
        if not can_wait():
            raise SynchronousOnlyOperation(_messages.DJANGO_NO_PORTAL)
        return original(*args, **kwds)

    return call


def waits(cls: type) -> type:
    """A class decorator: overrides all that `cls` inherits and that is marked `@async_unsafe`."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, FunctionType) and value.__code__ is _CHECK:
            setattr(cls, name, _allowed_where_it_waits(value))
    return cls
