"""`Portal`: a coroutine around a coroutine, whose steps run on a greenlet.

Each step of the inner coroutine runs on a `Stack` of its own, so `await_` can suspend in the middle of one,
anywhere below: it switches to the greenlet that has stepped the portal, which returns what is awaited. The next
step switches back.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any
from weakref import ref

from . import frames, messages, scopes
from .call import Call
from .report import report
from .step import RAISED, RETURNED, YIELDED, step, steps
from .switching import (
    GreenletExit,
    Stack,
    can_switch,
    context_of_stack,
    current_context,
    getcurrent,
    lend,
    put_back,
    stack_here,
)
from .thrown import exception_of

_IDLE, _RUNNING, _SUSPENDED = range(3)
# Times that a finalizer throws GeneratorExit into a portal that goes on awaiting.
_MOST_EXITS = 100

# Those that await_() waits in, by their ids.
_suspended: dict[int, ref[Portal]] = {}


class Portal:
    """A coroutine around a coroutine, in which synchronous code can await_().

    Give it to whatever would have run the coroutine itself: a task, an event loop, an await.
    """

    __slots__ = (
        "__qualname__",
        "__weakref__",
        "_coroutine",
        "_phase",
        "_ref",
        "_since",
        "_stack",
        "_task",
        "stepped",
    )

    _coroutine: Any
    _phase: int
    _stack: Stack | None
    _ref: ref[Portal]
    _task: ref[Any] | None
    _since: float
    stepped: bool

    def __new__(cls, coro: Any, /) -> Portal:
        if type(coro) is Portal:
            return coro
        if type(coro) not in (CoroutineType, Call) and not all(
            hasattr(coro, name) for name in ("send", "throw", "close")
        ):
            raise TypeError(messages.PORTAL_WHAT)
        self = object.__new__(cls)
        self._coroutine = coro
        self._phase = _IDLE
        self._stack = None
        self._ref = ref(self)
        self._task = None
        self._since = 0.0
        self.stepped = False
        return self

    def __init_subclass__(cls) -> None:
        raise TypeError(messages.NO_BASE)

    def __repr__(self) -> str:
        return f"<fiberback.Portal of {self._coroutine!r} at {id(self):#x}>"

    # --- steps ---------------------------------------------------------------------------------------

    def __await__(self) -> Portal:
        return self

    def __iter__(self) -> Portal:
        return self

    def __next__(self) -> Any:
        return self._advance(False, None)

    def send(self, value: Any, /) -> Any:
        return self._advance(False, value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        return self._advance(True, exception_of(typ, val, tb))

    def close(self) -> None:
        if self._phase == _IDLE and not _is_started(self._coroutine):
            scopes.leave(self)
            self._coroutine.close()
            return
        try:
            self._advance(True, GeneratorExit())
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError(messages.IGNORED_EXIT)

    def _advance(self, throws: bool, value: Any) -> Any:
        kind, result = self._switch(throws, value)
        if kind == YIELDED:
            return result
        scopes.leave(self)
        if kind == RETURNED:
            raise StopIteration(result) if result is not None else StopIteration
        try:
            raise result
        finally:
            del result, value

    def _switch(self, throws: bool, value: Any) -> tuple[int, Any]:
        phase, stack = self._phase, self._stack
        if phase == _RUNNING:
            raise ValueError(messages.ALREADY_RUNNING)
        if stack is not None and stack.thread != threading.get_ident():
            if phase == _SUSPENDED:
                raise RuntimeError(messages.WRONG_THREAD)
            stack = None  # between two steps it can go on anywhere
        self.stepped = True
        self._phase = _RUNNING
        outcome: tuple[int, Any] | None = None
        try:
            if can_switch:
                stack, outcome = self._switch_to(stack, phase == _SUSPENDED, throws, value)
            else:
                outcome = step(self._coroutine, throws, value)
            return outcome
        finally:
            self._since = time.monotonic()
            if stack is not None:
                stack.portal = None  # or each would keep the other
            if stack is not None and stack.top is not None:
                self._phase = _SUSPENDED
                _suspended[id(self)] = self._ref
            else:
                self._phase = _IDLE
                _suspended.pop(id(self), None)
                if outcome is None or outcome[0] != YIELDED:
                    stack = None
            self._stack = stack
            del outcome, value

    def _switch_to(
        self, stack: Stack | None, is_suspended: bool, throws: bool, value: Any
    ) -> tuple[Stack, Any]:
        """The stack's next step, or the rest of one."""
        context = current_context()
        target: Any = stack
        if stack is None:
            target = stack = Stack(steps)
            stack.thread = threading.get_ident()
            arguments: tuple[Any, ...] = (ref(stack), self._coroutine, throws, value)
        elif is_suspended:
            target, stack.top, stack.awaiting = stack.top, None, None
            arguments = (throws, value)
        else:
            arguments = (self._coroutine, throws, value)
        if stack.context is None or context_of_stack(target) is stack.context:
            lend(target, context)
        stack.context, stack.portal, stack.parent = context, self, getcurrent()
        self._stack = stack
        outcome = target.switch(*arguments)
        put_back(context)
        # A greenlet that was killed has returned what it was killed by.
        return stack, (RAISED, outcome) if isinstance(outcome, GreenletExit) else outcome

    # --- the end -------------------------------------------------------------------------------------

    def _finish(self) -> bool:
        """Ends the step that a suspended portal is in the middle of; what goes wrong is reported."""
        for attempt in range(_MOST_EXITS):
            try:
                self.close()
                return True
            except BaseException as error:
                if attempt == 0 or self._phase != _SUSPENDED:
                    report(error, self._coroutine)
                if self._phase != _SUSPENDED:
                    return True
        return False

    def __del__(self) -> None:
        stack = self._stack
        if self._phase == _SUSPENDED and stack is not None:
            # On another thread greenlet itself ends it, when that thread next switches.
            if stack.thread == threading.get_ident():
                self._finish()
            _suspended.pop(id(self), None)
        elif (
            self._phase == _IDLE
            and can_switch
            and type(self._coroutine) is CoroutineType
            and inspect.getcoroutinestate(self._coroutine) == inspect.CORO_SUSPENDED
            and _references(self) == _ALONE
        ):
            # Its own finalizer would run its `finally` blocks where nothing can wait.
            self._finish()

    # --- what coroutines tell of themselves ------------------------------------------------------------

    @property
    def __name__(self) -> str:
        name: str = self._coroutine.__name__
        return name

    @__name__.setter
    def __name__(self, value: str) -> None:
        self._coroutine.__name__ = value

    def __getattr__(self, name: str) -> Any:
        # A class's body cannot have a property of this name; what is set is in the slot.
        if name == "__qualname__":
            return self._coroutine.__qualname__
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def cr_await(self) -> Any:
        if self._phase == _SUSPENDED and self._stack is not None:
            return self._stack.awaiting
        return self._coroutine.cr_await

    @property
    def cr_code(self) -> Any:
        return self._coroutine.cr_code

    @property
    def cr_frame(self) -> Any:
        if self._phase == _SUSPENDED and self._stack is not None:
            frame = frames.of_suspended(self._stack)
            if frame is not None:
                return frame
        return self._coroutine.cr_frame

    @property
    def cr_origin(self) -> Any:
        return self._coroutine.cr_origin

    @property
    def cr_running(self) -> bool:
        return self._phase == _RUNNING

    @property
    def cr_suspended(self) -> bool:
        if self._phase != _IDLE:
            return self._phase == _SUSPENDED
        suspended: bool = self._coroutine.cr_suspended
        return suspended

    if sys.version_info >= (3, 15):

        @property
        def cr_state(self) -> Any:
            if self._phase == _IDLE:
                return self._coroutine.cr_state
            return inspect.CORO_RUNNING if self._phase == _RUNNING else inspect.CORO_SUSPENDED

    @property
    def waits(self) -> float | None:
        waits = self._phase == _SUSPENDED or (
            self._phase == _IDLE and self.stepped and _is_started(self._coroutine)
        )
        return time.monotonic() - self._since if waits else None

    @property
    def in_await(self) -> bool:
        return self._phase == _SUSPENDED

    @property
    def wrapped(self) -> Any:
        return self._coroutine


Coroutine.register(Portal)


def _is_started(coro: Any) -> bool:
    """Whether there is something in a coroutine for `close()` to unwind. An unknown kind counts as started."""
    if type(coro) is Call:
        return coro.is_running
    if type(coro) is not CoroutineType:
        return True
    return inspect.getcoroutinestate(coro) in (inspect.CORO_SUSPENDED, inspect.CORO_RUNNING)


def _references(portal: Portal) -> int:
    """To a portal's coroutine, as far as they are counted."""
    count = getattr(sys, "getrefcount", None)
    return -1 if count is None else count(portal._coroutine)


def _references_of_one_alone() -> int:
    async def sample() -> None: ...

    portal = Portal(sample())
    count = _references(portal)
    portal.close()
    return count if count > 0 else 0


_ALONE = _references_of_one_alone()


def unwrap_idle(portal: Portal) -> Any:
    """The inner coroutine of a portal that has made no step; None if it has, or makes one.

    Greenlets that its steps have begun go back to its stack.
    """
    return portal._coroutine if portal._phase == _IDLE and portal._stack is None else None


def suspended() -> list[Portal]:
    """The portals in whose steps await_() waits, of all threads."""
    found = (each() for each in list(_suspended.values()))
    return [portal for portal in found if portal is not None]


def suspended_lines(portal: Portal, /) -> Any:
    """The code and the line of each frame of a portal in whose step await_() waits; None of any other."""
    stack = portal._stack
    if portal._phase != _SUSPENDED or stack is None:
        return None
    return frames.lines_from(frames.of_suspended(stack), -1)


def count_suspended() -> int:
    """Of this thread."""
    return len(_of_this_thread())


def _of_this_thread() -> list[Portal]:
    mine = threading.get_ident()
    return [each for each in suspended() if each._stack is not None and each._stack.thread == mine]


def close_all() -> int:
    """Raise GeneratorExit in all that await_() waits in in this thread; returns how many have ended."""
    closed = 0
    stubborn: list[Portal] = []
    for _ in range(2 * len(_of_this_thread()) + 64):
        portal = next((p for p in _of_this_thread() if not any(p is s for s in stubborn)), None)
        if portal is None:
            break
        if portal._finish():
            closed += 1
        else:
            stubborn.append(portal)
    return closed


def usable_stack() -> Stack | None:
    """The stack that this code is on, if it may be suspended there."""
    stack = stack_here()
    return None if stack is None or is_masked(stack) else stack


def is_masked(stack: Stack) -> bool:
    if stack.forked_on is not None:
        from asyncio import _get_running_loop

        return stack.masked or _get_running_loop() is not stack.forked_on
    return stack.masked


def current_portal() -> Portal | None:
    """The portal whose step runs on this thread now, or None."""
    stack = usable_stack()
    return None if stack is None else stack.portal


def on_portal() -> bool:
    """Whether a portal's step runs on this thread now."""
    return usable_stack() is not None


def call_masked(fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call with no portal current, so that await_() cannot suspend the one we are on."""
    stack = stack_here()
    if stack is None:
        return fn(*args, **kwargs)
    before, stack.masked = stack.masked, True
    try:
        return fn(*args, **kwargs)
    finally:
        stack.masked = before


def note_fork(loop: object, /) -> None:
    """In a forked child: the portals that this code is on are of 'loop', which is the parent's."""
    current = getcurrent() if getcurrent is not None else None
    while current is not None:
        if type(current) is Stack:
            current.forked_on = loop
        current = current.parent
