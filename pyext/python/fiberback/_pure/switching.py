"""What switches stacks: the greenlet package, and the contextvars context that a stack runs in.

Greenlets have a context each, which can be set while they do not run. Those of older PyPys share the thread's, so
whoever switches puts it back.

Without greenlet (in Pyodide, say) there is nothing to switch with: portals step their coroutines where they
are called, and no code is on one.
"""

from __future__ import annotations

import sys
from contextvars import Context, copy_context
from typing import Any

_greenlet: Any
try:
    import greenlet as _greenlet
except ImportError:
    _greenlet = None


class _NeverRaised(BaseException): ...


getcurrent: Any = getattr(_greenlet, "getcurrent", None)
GreenletExit: Any = getattr(_greenlet, "GreenletExit", _NeverRaised)
_Greenlet: Any = getattr(_greenlet, "greenlet", object)
can_switch = getcurrent is not None

if sys.implementation.name == "pypy" and not hasattr(_Greenlet, "gr_context"):
    import __pypy__  # type: ignore[import-not-found]

    _get, _set = __pypy__.get_contextvar_context, __pypy__.set_contextvar_context

    def current_context() -> Context:
        """The very context that this code runs in."""
        context: Context | None = _get()
        if context is None:
            copy_context()  # makes one
            context = _get()
        assert context is not None
        return context

    def context_of_stack(stack: Any) -> Context | None:
        return None

    def lend(stack: Any, context: Context) -> None:
        """Have a stack that does not run go on in `context`."""

    def put_back(context: Context) -> None:
        """After a switch: this stack goes on in `context`."""
        _set(context)

else:

    def current_context() -> Context:
        """The very context that this code runs in."""
        context: Context | None = getcurrent().gr_context
        if context is None:
            copy_context()  # makes one
            context = getcurrent().gr_context
        assert context is not None
        return context

    def context_of_stack(stack: Any) -> Context | None:
        context: Context | None = stack.gr_context
        return context

    def lend(stack: Any, context: Context) -> None:
        """Have a stack that does not run go on in `context`."""
        stack.gr_context = context

    def put_back(context: Context) -> None:
        """After a switch: this stack goes on in `context`."""


class Stack(_Greenlet):  # type: ignore[misc,unused-ignore]
    """A greenlet that one step of a portal runs on."""

    portal: Any = None  # while it runs: who waits for it holds the portal
    context: Any = None  # of who has resumed it last
    top: Any = None  # while it is suspended: the greenlet that has called await_()
    awaiting: Any = None  # then: what await_() steps
    masked: bool = False
    forked_on: Any = None
    thread: int = 0


def stack_here() -> Stack | None:
    """The stack that this code is on: the current greenlet, or the one below the greenlets that it has begun."""
    if getcurrent is None:
        return None
    current = getcurrent()
    while current is not None:
        if type(current) is Stack:
            return current
        current = current.parent
    return None
