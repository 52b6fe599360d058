"""A kernel's messages, each on a portal, and interrupts while its code waits.

ipykernel handles a message of the shell channel (a cell, a widget's event) in a task of its loop, one after
the other, with Python's own handler of SIGINT in its place meanwhile: KeyboardInterrupt is raised in
whatever runs. While the message's code waits, that would be the loop, which ends the kernel, or a task of somebody
else's. So for that time, and only for that, there is another handler, which cancels what the code waits
for and has it raise KeyboardInterrupt when that has ended, as `asyncio.run` does with Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import signal
import threading
import types
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import Any

from .._fiberback import Portal
from .._portal.call_portal import through


@contextlib.contextmanager
def serve(kernel: Any) -> Iterator[None]:
    """Have the handlers of a kernel's shell messages be called by `_Message`."""
    handlers: dict[str, Any] | None = getattr(kernel, "shell_handlers", None)
    if not isinstance(
        handlers, dict
    ):  # a kernel that is not ipykernel's: its loop is enabled, that is all
        yield
        return
    before = dict(handlers)
    ours = {name: _on_portal(handler) for name, handler in before.items()}
    handlers.update(ours)
    try:
        yield
    finally:
        for name, handler in ours.items():
            if handlers.get(name) is handler:
                handlers[name] = before[name]


def _on_portal(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    async def handle(*args: Any) -> None:
        await _Message().driven(through(Portal(_call(handler, args)), asyncio.current_task()))

    return handle


async def _call(handler: Callable[..., Any], args: Any) -> None:
    result = handler(*args)
    if inspect.isawaitable(result):
        await result


class _Message:
    """One message while it is handled, in the current task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._is_waiting = False
        self._is_interrupted = False  # since it waits
        self._cancels = 0  # of that wait, by us
        self._can_be_interrupted = threading.current_thread() is threading.main_thread()

    @types.coroutine
    def driven(self, portal: Any) -> Generator[Any, Any, None]:
        """`await portal`, with KeyboardInterrupt for what an interrupt has cancelled.

        The portal is one of its own also where the task has one: what that waits for would not come by here.
        """
        step, value = portal.send, None
        try:
            while True:
                try:
                    awaited = self._step(step, value)
                except StopIteration:
                    return
                try:
                    step, value = portal.send, (yield awaited)
                    if self._is_interrupted and not self._cancels:  # it was about to go on
                        step, value = portal.throw, KeyboardInterrupt()
                except BaseException as error:
                    is_ours = self._is_interrupted and isinstance(error, asyncio.CancelledError)
                    step, value = portal.throw, KeyboardInterrupt() if is_ours else error
                self._is_answered()
                del awaited
        finally:
            self._is_waiting = False
            self._enters()
            del value

    def _step(self, step: Callable[[Any], Any], value: Any) -> Any:
        """One step of the message's code, with Python's own handler in its place."""
        self._enters()
        try:
            return step(value)
        finally:
            del value
            self._leaves()
            self._is_waiting = True
            if self._is_interrupted:  # before it began to wait
                self._loop.call_soon(self._cancel)

    # --- SIGINT --------------------------------------------------------------------------------------

    def _leaves(self) -> None:
        """Other code than the message's is about to run."""
        if self._can_be_interrupted and signal.getsignal(signal.SIGINT) is _STOCK:
            signal.signal(signal.SIGINT, self._interrupt)

    def _enters(self) -> None:
        self._is_waiting = False
        if self._can_be_interrupted and signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, _STOCK)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._is_interrupted and self._is_waiting
        if is_second and asyncio.current_task(self._loop) not in (None, self._task):
            # The first has not helped: some task is at work and does not pause. KeyboardInterrupt in it would
            # end the loop, and with it the kernel.
            raise asyncio.CancelledError
        self._is_interrupted = True
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._is_interrupted and self._is_waiting and self._task is not None:
            self._cancels += self._task.cancel()

    def _is_answered(self) -> None:
        """What was waited for has ended, by the interrupt or otherwise."""
        self._is_interrupted = False
        for _ in range(self._cancels):
            if self._task is not None:
                self._task.uncancel()
        self._cancels = 0


_STOCK = signal.default_int_handler
