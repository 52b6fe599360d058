"""What a callback of an event loop awaits, where there is no task.

All of it runs in one host (`_thread.host`), in the callback's own context, which the callback leaves for
that time. The host ends when the callback does. Nobody tells of that; but a callback that is not
parked has run to its end when the next one runs, so then it is looked whether it is over.

Which callback it is that waits, the native module knows of those that a runner runs. That of any other the frame
of `Handle._run` tells: each wait looks through the frames from the one that has called `await_`, so that it
costs with the callback's own depth, and nothing for what else there is, other callbacks that wait included.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import _get_running_loop
from types import FrameType
from typing import Any

from .._fiberback import current_turn, lend_context
from .._loop.parking import Turn, is_hosted
from .._thread.host import Host
from .._thread.request import Request

_RUN = asyncio.Handle._run.__code__
# Seconds until a callback is looked at again that cannot go on yet.
_AGAIN = 0.002


class _CallbackHost(Host):
    """`callback` tells it from all others, as long as it is kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: FrameType | Turn | None) -> None:
        super().__init__(loop, "fiberback.await_() in a callback")
        self._callback = callback
        self._own_context = contextvars.Context()
        self._is_to_look = False
        self._is_plain = loop.get_task_factory() is None
        self._is_hosted = is_hosted(loop)

    def begins_at_once(self) -> bool:
        """Whether what is awaited may begin on the callback's stack.

        On a loop that is not enabled, not where it may start eager tasks, which would be parked
        there, in contexts that have been left; nor greenlets, while which wait the stack could not
        be parked.
        """
        return self._is_hosted or (self._is_plain and sys.modules.get("greenlet") is None)

    def look_soon(self, _: object = None) -> None:
        # A portal that waited when its loop was closed is ended later, by the collector.
        if not self._is_to_look and not self.loop.is_closed():
            self._is_to_look = True
            self.loop.call_soon(self._look, context=self._own_context)

    def _look(self) -> None:
        self._is_to_look = False
        if self._finished or self._current is not None or self._requests:
            return  # it will be answered, and looked at then
        callback = self._callback
        if callback is not None:
            if not _is_over(callback):
                self._is_to_look = True
                self.loop.call_later(_AGAIN, self._look, context=self._own_context)
                return
            self._callback = None
            _forget(self.loop, callback)
        self.finish()


def _is_over(callback: FrameType | Turn) -> bool:
    if isinstance(callback, Turn):
        return callback.is_over
    try:
        callback.clear()
    except RuntimeError:  # it is executing
        return False
    return True


# Of each loop, by its id, the loop and the hosts of its callbacks, by the id of what tells the callback from all
# others. The host keeps that, so that the id is nothing else's.
_of_loops: dict[int, tuple[asyncio.AbstractEventLoop, dict[int, _CallbackHost]]] = {}


def _of_callbacks(loop: asyncio.AbstractEventLoop | None) -> dict[int, _CallbackHost]:
    known = _of_loops.get(id(loop))
    return known[1] if known is not None else {}


def _forget(loop: asyncio.AbstractEventLoop, callback: FrameType | Turn) -> None:
    of_callbacks = _of_callbacks(loop)
    del of_callbacks[id(callback)]
    if not of_callbacks:
        del _of_loops[id(loop)]


class _Answer(asyncio.Future[Any]):
    """Of one request to `host`. Cancelling it ends the request."""

    __slots__ = ("_host", "request")

    def __init__(self, host: _CallbackHost) -> None:
        super().__init__(loop=host.loop)
        self._host = host
        self.request: Request | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done() or self.request is None:
            return False
        self.request.interrupt()
        return True

    def settle(self) -> None:
        request, self.request = self.request, None
        if request is not None and not self.done():
            error = request.error
            if error is None:
                self.set_result(request.result)
            elif isinstance(error, asyncio.CancelledError):
                super().cancel(*error.args[:1])
            else:
                self.set_exception(error)
                self.exception()  # its caller may be gone, and has had an error then
        # After what wakes the callback.
        self._host.look_soon()


def answer(
    loop: asyncio.AbstractEventLoop, awaitable: Any, context: contextvars.Context | None
) -> asyncio.Future[Any]:
    """A future for what `awaitable` gives, for the callback on whose stack this is called."""
    host = _host(loop)
    wait = _Answer(host)
    if context is None:
        context = contextvars.copy_context()
    request = wait.request = Request(awaitable, context, wait.settle)
    if host.begins_at_once() and host.task is not None:
        lend_context(lambda _: host.deliver(request, in_callback=True))
    else:
        host.deliver(request)
    return wait


def served(future: Any) -> tuple[Any, Any]:
    """What a callback waits for that waits for `future`, and the task that runs it; None for what there is not."""
    if not isinstance(future, _Answer) or future.request is None:
        return None, None
    return future.request._coro, future._host.task


def is_future(thing: Any) -> bool:
    """`asyncio.isfuture(thing)`, which a callback is about to wait for if it is one."""
    if not asyncio.isfuture(thing):
        return False
    if _of_loops and not thing.done():
        callback = _current(sys._getframe(1))
        host = None
        if callback is not None:
            host = _of_callbacks(_get_running_loop()).get(id(callback))
        if host is not None:
            thing.add_done_callback(host.look_soon, context=contextvars.Context())
    return True


def _host(loop: asyncio.AbstractEventLoop) -> _CallbackHost:
    callback = _current(sys._getframe(1))
    if callback is None:  # for this one alone
        return _CallbackHost(loop, None)
    host = _of_callbacks(loop).get(id(callback))
    if host is None:
        # A process has few loops, and each is dropped here once.
        for key, (other, _) in list(_of_loops.items()):
            if other.is_closed():
                del _of_loops[key]
        host = _CallbackHost(loop, callback)
        _of_loops.setdefault(id(loop), (loop, {}))[1][id(callback)] = host
    return host


def _current(frame: FrameType | None) -> FrameType | Turn | None:
    """The callback that runs now, in or below `frame`."""
    turn: Turn | None = current_turn()
    if turn is not None:
        return turn
    while frame is not None and frame.f_code is not _RUN:
        frame = frame.f_back
    return frame
