"""Who calls: sync code anywhere, which wants something done on an event loop in another thread.

All that one task wants done there, or one thread outside of tasks, is done by one host task
(`_thread/host`), so that what one call enters another one can leave. A caller that can wait by `await_`
does that, and its own loop goes on. One that cannot (in a task of uvloop's without a portal, say) blocks
its thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from weakref import WeakKeyDictionary, finalize

from .. import _messages
from .._fiberback import await_
from .._loop.current_task import current_task
from .._loop.external_event import ExternalEvent
from .._loop.library import current_library, is_trio_in_charge
from .._thread import generators, parent_loop
from .._thread.channel import Channel
from .._thread.contexts import set_all
from .._thread.request import Request
from .attempt import Attempt

_lock = threading.Lock()
_channels: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[Any, Channel]] = (
    WeakKeyDictionary()
)


def wait(loop: asyncio.AbstractEventLoop, awaitable: Any) -> Any:
    """The result of `awaitable`, which runs on `loop`, in another thread than this."""
    if current_library() is None:
        return block(loop, awaitable)
    attempt = Attempt(ask(loop, awaitable))
    try:
        return await_(attempt)
    except RuntimeError:
        if attempt.is_begun:
            raise
    finally:
        attempt.close()
    return block(loop, awaitable)


def block(loop: asyncio.AbstractEventLoop, awaitable: Any) -> Any:
    """`wait` by blocking this thread, whatever runs in it."""
    with _channel_to(loop) as channel:
        return channel.wait(awaitable)


async def ask(loop: asyncio.AbstractEventLoop, awaitable: Any) -> Any:
    """`wait` for code that can `await`.

    Cancelling the task cancels what is awaited, and is raised here when that has ended. The awaitable
    runs in a copy of the current context; what it sets there is set here at its end.
    """
    with _channel_to(loop) as channel:
        return await ask_by(channel, awaitable)


async def ask_by(channel: Channel, awaitable: Any) -> Any:
    """`ask` by a channel of one's own."""
    event, context = ExternalEvent(), contextvars.copy_context()
    request = Request(awaitable, context, event.set, generators.begun(awaitable))
    try:
        channel.loop.call_soon_threadsafe(channel.deliver, request, context=contextvars.Context())
    except RuntimeError:
        request.refuse(RuntimeError(_messages.LOOP_CLOSED))
    error: BaseException | None
    try:
        await event.wait()
    except GeneratorExit:
        _interrupt(channel, request)
        raise
    except BaseException:  # the library's own kind of cancellation
        _interrupt(channel, request)
        await _shielded(event, channel, request)
        error = request.error
        if error is None or isinstance(error, asyncio.CancelledError):
            raise
    else:
        error = request.error
    set_all(context)
    if error is None:
        return request.result
    try:
        raise error
    finally:
        del error, request  # they are in the frames of the error's traceback


@contextmanager
def _channel_to(loop: asyncio.AbstractEventLoop) -> Iterator[Channel]:
    """The current task's, the thread's where nothing runs, one for this time in a callback."""
    task = current_task()
    if task is not None:
        yield _channel_of(task, loop)
    elif current_library() is None:
        yield parent_loop.channel_to(loop)
    else:
        with closing(Channel(loop)) as channel:
            yield channel


def _channel_of(task: Any, loop: asyncio.AbstractEventLoop) -> Channel:
    with _lock:
        of_tasks = _channels.setdefault(loop, WeakKeyDictionary())
        channel = of_tasks.get(task)
        if channel is None:
            channel = of_tasks[task] = Channel(loop)
            finalize(task, channel.close).atexit = False
        return channel


def _interrupt(channel: Channel, request: Request) -> None:
    try:
        channel.loop.call_soon_threadsafe(request.interrupt, context=contextvars.Context())
    except RuntimeError:
        request.refuse(asyncio.CancelledError())


async def _shielded(event: ExternalEvent, channel: Channel, request: Request) -> None:
    if is_trio_in_charge():
        import trio

        with trio.CancelScope(shield=True):
            await event.wait()
        return
    while not request.is_answered:
        try:
            await event.wait()
        except asyncio.CancelledError:
            _interrupt(channel, request)


def belongs_here(awaitable: Any) -> bool:
    """Whether no loop in another thread can run this: a future of the loop that runs here, Trio's code."""
    if asyncio.isfuture(awaitable):
        return awaitable.get_loop() is asyncio._get_running_loop()
    return is_trio_in_charge()
