"""The steps of a portal's coroutine: what a stack runs, so the lowest frame on it.

A portal has one stack for all its steps. Greenlets that its code begins have that for a parent, and go back to it
in later steps.
"""

from __future__ import annotations

from types import FrameType
from typing import Any
from weakref import ref

YIELDED, RETURNED, RAISED = range(3)


def step(coro: Any, throws: bool, value: Any) -> tuple[int, Any]:
    """What one step comes to."""
    try:
        return YIELDED, coro.throw(value) if throws else coro.send(value)
    except StopIteration as stop:
        return RETURNED, stop.value
    except BaseException as error:
        return RAISED, error
    finally:
        del coro, value


def steps(here: ref[Any], coro: Any, throws: bool, value: Any) -> tuple[int, Any]:
    """All steps, each for who switches to the stack. The stack, `here`, must not refer to itself, nor between two
    steps to what it has stepped."""
    while True:
        outcome = step(coro, throws, value)
        coro = value = None
        if outcome[0] != YIELDED:
            return outcome
        kept = [outcome]
        del outcome  # or what was yielded would be kept until the next step
        coro, throws, value = _host(here).switch(kept.pop())


def _host(here: ref[Any]) -> Any:
    stack = here()
    return None if stack is None else stack.parent


_CODE = steps.__code__


def below(frame: FrameType) -> FrameType | None:
    """The frame that has called this one; of a stack's lowest frame, that of who has resumed the stack."""
    back = frame.f_back
    if back is None and frame.f_code is _CODE:
        host = _host(frame.f_locals["here"])
        back = host.gr_frame if host is not None else None
    return back
