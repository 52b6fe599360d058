"""asyncio: task factories, and new tasks that inherit a portal where a scope asks for it.

A scope is a flag in a context variable: tasks copy their creator's context, so everything that
is started below the scope inherits, however deep, and nothing else does. A task factory that
looks at the flag is on the loop while scopes are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from .._fiberback import Portal, task_class
from .._fiberback import create_task_factory as create_task_factory
from .._fiberback import task_factory as task_factory

_inherits: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "fiberback_children_inherit", default=False
)


class _InheritingFactory:
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.scopes = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwds: Any) -> Any:
        context = kwds.get("context")
        if _inherits.get() if context is None else context.get(_inherits, False):
            coro = Portal(coro)
        if self.inner is not None:
            return self.inner(loop, coro, **kwds)
        if kwds.get("name", self) is None:
            del kwds["name"]  # CPython 3.13.0 passes it, and Task would make 'None' of it
        return task_class()(coro, loop=loop, **kwds)


@contextlib.contextmanager
def portals_for_children() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    factory: Any = loop.get_task_factory()
    if not isinstance(factory, _InheritingFactory):
        factory = _InheritingFactory(factory)
        loop.set_task_factory(factory)
    factory.scopes += 1
    outside = _inherits.get()
    _inherits.set(True)
    try:
        yield
    finally:
        # Not Token.reset(): a scope may be left in another context than it was entered in.
        _inherits.set(outside)
        factory.scopes -= 1
        current: Any = loop.get_task_factory()
        if factory.scopes == 0 and current is factory:
            loop.set_task_factory(factory.inner)
