"""asyncio: task factories, and new tasks that inherit a portal where a scope asks for it.

A scope is a flag in a context variable: tasks copy their creator's context, so everything that
is started below the scope inherits, however deep, and nothing else does. A task factory that
looks at the flag is on the loop while scopes are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

from .._fiberback import Portal, task_class
from .._fiberback import create_task_factory as create_task_factory
from .._fiberback import task_factory as task_factory

_inherits: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "fiberback_children_inherit", default=False
)


def _with_portal(coro: Any) -> Any:
    try:
        return Portal(coro)
    except TypeError:
        return coro  # the task says what is wrong with it


class _InheritingFactory:
    """Portals for tasks in whose context the flag is set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwds: Any) -> Any:
        if _is_heir(kwds.get("context")):
            coro = _with_portal(coro)
        return _make(self.inner, loop, coro, kwds)


class _WrappingFactory:
    """Tasks of something put around the coroutines that are meant."""

    def __init__(self, inner: Any, wrap: Callable[[Any], Any]) -> None:
        self.inner = inner
        self.wrap = wrap

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwds: Any) -> Any:
        return _make(self.inner, loop, self.wrap(coro), kwds)


class _TellingFactory:
    """Somebody is told of each task."""

    def __init__(self, inner: Any, tell: Callable[[Any], object]) -> None:
        self.inner = inner
        self.tell = tell

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwds: Any) -> Any:
        task = _make(self.inner, loop, coro, kwds)
        self.tell(task)
        return task


def _make(inner: Any, loop: asyncio.AbstractEventLoop, coro: Any, kwds: dict[str, Any]) -> Any:
    if inner is not None:
        return inner(loop, coro, **kwds)
    if kwds.get("name", loop) is None:
        del kwds["name"]  # CPython 3.13.0 passes it, and Task would make 'None' of it
    return task_class()(coro, loop=loop, **kwds)


def _is_heir(context: contextvars.Context | None) -> bool:
    return _inherits.get() if context is None else context.get(_inherits, False)


class _Around:
    """Our factory around the one that others set on a loop, whenever they set it.

    The loop's `set_task_factory` and `get_task_factory` are this object's while it is there, as
    attributes of the loop. So a factory that is set later (`asyncio.eager_task_factory`, a library's
    own, None) goes inside instead of in ours's place; whoever asks is told of that one, and can put
    it back, or wrap it, without keeping ours; and ours can be taken off in any order.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = ref(loop)
        self._theirs = loop.get_task_factory()
        self._ours: Any = None
        self.for_all = 0
        self.for_heirs = 0
        self.wrap: Callable[[Any], Any] | None = None
        self.tell: Callable[[Any], object] | None = None
        self._before = {name: _own(loop, name) for name in ("set_task_factory", "get_task_factory")}
        try:
            loop.set_task_factory, loop.get_task_factory = self.set, self.get
        except (AttributeError, TypeError):
            _on_sealed[loop] = self

    def update(self) -> None:
        """After one of the counts, or who is told, has changed."""
        ours = self._theirs
        if self.for_all:
            ours = create_task_factory(ours)
        elif self.for_heirs:
            ours = _InheritingFactory(ours)
        if self.wrap is not None:
            ours = _WrappingFactory(ours, self.wrap)  # inside of the portal
        if self.tell is not None:
            ours = _TellingFactory(ours, self.tell)
        if ours is not self._theirs:
            self._install(ours)
        else:
            self._take_off()

    def is_there(self) -> bool:
        """Whether the loop's tasks are made by ours."""
        return self._call("get_task_factory") is self._ours

    def set(self, factory: Any) -> None:
        """`loop.set_task_factory`."""
        if factory is self._ours:
            return
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._theirs = factory
        self.update()

    def get(self) -> Any:
        """`loop.get_task_factory`."""
        theirs = self._theirs
        if _eager_code is None or getattr(theirs, "__code__", None) is not _eager_code:
            return theirs
        asks = sys._getframe(1).f_globals.get("__name__", "")
        return self._for_anyio(theirs) if asks.startswith("anyio.") else theirs

    def _for_anyio(self, eager: Any) -> Any:
        """AnyIO's task groups begin no task eagerly. They take asyncio's eager factories apart, to
        call what makes the tasks themselves: that has to make portals, too."""
        make = eager.__closure__[0].cell_contents

        def make_with_portal(coro: Any, **kwds: Any) -> Any:
            if self.wrap is not None:
                coro = self.wrap(coro)
            if self.for_all or (self.for_heirs and _is_heir(kwds.get("context"))):
                coro = _with_portal(coro)
            task = make(coro, **kwds)
            if self.tell is not None:
                self.tell(task)
            return task

        create: Any = asyncio.create_eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        return create(make_with_portal)

    def _install(self, ours: Any) -> None:
        self._call("set_task_factory", ours)
        self._ours = ours

    def _take_off(self) -> None:
        loop: Any = self._loop()
        if self._call("get_task_factory") is self._ours:
            self._call("set_task_factory", self._theirs)
        if _on_sealed.get(loop) is self:
            del _on_sealed[loop]
            return
        for name, before in self._before.items():
            if getattr(_own(loop, name), "__self__", None) is not self:
                continue  # somebody else's by now
            if before is None:
                delattr(loop, name)
            else:
                setattr(loop, name, before)

    def _call(self, name: str, *args: Any) -> Any:
        """The method that the loop had without us."""
        loop: Any = self._loop()
        before = self._before[name]
        return before(*args) if before is not None else getattr(type(loop), name)(loop, *args)


# Loops that take no attributes. A factory that others set there takes the place of ours.
_on_sealed: WeakKeyDictionary[asyncio.AbstractEventLoop, _Around] = WeakKeyDictionary()
_eager_code = getattr(getattr(asyncio, "eager_task_factory", None), "__code__", None)


def _own(loop: Any, name: str) -> Any:
    return getattr(loop, "__dict__", {}).get(name)


def _around(loop: Any) -> _Around:
    found = getattr(_own(loop, "set_task_factory"), "__self__", None)
    if not isinstance(found, _Around):
        found = _on_sealed.get(loop)
    return found if found is not None else _Around(loop)


def begin_for_all(loop: asyncio.AbstractEventLoop) -> None:
    """From now on every new task of `loop` has a portal, whatever its task factory is or becomes."""
    around = _around(loop)
    around.for_all += 1
    around.update()


def end_for_all(loop: asyncio.AbstractEventLoop) -> None:
    """Undoes one `begin_for_all`."""
    around = _around(loop)
    around.for_all -= 1
    around.update()


def is_for_all(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether new tasks of `loop` have portals, if the loop makes them."""
    around = getattr(_own(loop, "set_task_factory"), "__self__", None) or _on_sealed.get(loop)
    return isinstance(around, _Around) and around.for_all > 0


def wrap_coroutines(loop: asyncio.AbstractEventLoop, wrap: Callable[[Any], Any]) -> bool:
    """From now on every new task of `loop` runs `wrap(coroutine)`, whatever its task factory is or becomes, and a
    portal is put around that. One for a loop. False if it is so already."""
    around = _around(loop)
    if around.wrap is wrap:
        return False
    around.wrap = wrap
    around.update()
    return True


class Telling:
    """`tell(task)` is called with every new task that the loop makes, until `end()`. One at a time for a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[Any], object]) -> None:
        self._around = _around(loop)
        self._around.tell = tell
        self._around.update()

    def is_whole(self) -> bool:
        """Not where others have put a task factory in the place of ours, as can be on loops that take no
        attributes."""
        return self._around.is_there()

    def end(self) -> None:
        self._around.tell = None
        self._around.update()


@contextlib.contextmanager
def portals_for_children() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    around = _around(loop)
    around.for_heirs += 1
    if around.for_heirs == 1:
        around.update()
    outside = _inherits.get()
    _inherits.set(True)
    try:
        yield
    finally:
        # Not Token.reset(): a scope may be left in another context than it was entered in.
        _inherits.set(outside)
        around.for_heirs -= 1
        if around.for_heirs == 0:
            around.update()
