"""`run`: asyncio.run() for programs whose every task can `await_`."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from . import _messages, _parents
from ._fiberback import create_task_factory

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run `main` on a new event loop on which every task has a portal.

    Like `asyncio.run`: at the end the remaining tasks are cancelled, async generators and the
    executor are shut down, Ctrl-C cancels `main` and then raises KeyboardInterrupt. A task factory
    that `loop_factory` has set (for eager tasks, say) is kept and gets portals on top.
    `loop_factory=uvloop.new_event_loop` works. Raises TypeError for anything but a coroutine, and
    RuntimeError, closing it, inside a running event loop.
    """
    if not asyncio.iscoroutine(main):
        raise TypeError(_messages.NOT_A_COROUTINE.format(value=main))
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError(_messages.RUNNING_LOOP)
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        loop.set_task_factory(create_task_factory(loop.get_task_factory()))
        context = contextvars.copy_context()
        context.run(_parents.mark, loop)
        return runner.run(main, context=context)
