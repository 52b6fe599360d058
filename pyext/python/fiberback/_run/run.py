"""`run`: asyncio.run() for programs whose every task can `await_`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from .. import _messages
from .._blocking.blocking import blocking as _blocking
from .._fiberback import await_
from .._thread import parent_loop
from .enable import enable
from .nested import run_in_task

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    blocking: bool = False,
) -> T:
    """Run `main` on a new event loop on which every task has a portal.

    Like `asyncio.run`: at the end the remaining tasks are cancelled, async generators and the
    executor are shut down, Ctrl-C cancels `main` and then raises KeyboardInterrupt. A task factory
    that `loop_factory` has set (for eager tasks, say) is kept and gets portals on top.
    `loop_factory=uvloop.new_event_loop` works.

    Inside a running event loop, `main` runs as a new task of that loop, in a copy of the current
    context, and the caller waits for it in `await_` while everything else goes on. At the end the
    tasks that were started by `main`, or by those, and are not done, are cancelled and waited for
    (not those that are made past the loop's `create_task`, by calling `asyncio.Task(...)`).
    Cancelling the caller cancels `main`. `loop_factory` is not used then, and `debug` is set for the
    time. What `await_` raises where it cannot wait is raised here, with `main` closed.
    Async generators that `main` and those tasks have begun and not ended are closed, and what they
    have running in the loop's default executor is waited for, up to five minutes; the executor stays,
    for it is the loop's.

    `blocking=True`: in `main` and the tasks that it starts, blocking code of others waits on the loop, as in a
    `with fiberback.blocking():` block.

    Raises TypeError for anything but a coroutine.
    """
    if not asyncio.iscoroutine(main):
        name = _messages.typed(main, "main")
        raise TypeError(_messages.NOT_A_COROUTINE.format(value=main, main=name))
    with _blocking() if blocking else contextlib.nullcontext():
        loop = _get_running_loop()
        if loop is not None:
            return _run_inside(loop, main, debug)
        runner = asyncio.Runner(debug=debug, loop_factory=loop_factory)
        with enable(runner.get_loop()), runner:
            context = contextvars.copy_context()
            context.run(parent_loop.mark, runner.get_loop())
            return runner.run(main, context=context)


def _run_inside(
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T], debug: bool | None
) -> T:
    with debugging(loop, debug):
        try:
            return await_(run_in_task(loop, main))
        finally:
            main.close()  # if it could not even begin


@contextlib.contextmanager
def debugging(loop: asyncio.AbstractEventLoop, debug: bool | None) -> Iterator[None]:
    """The loop's debug mode as given, for a time; None leaves it as it is."""
    before = loop.get_debug()
    if debug is not None:
        loop.set_debug(debug)
    try:
        yield
    finally:
        if debug is not None:
            loop.set_debug(before)
