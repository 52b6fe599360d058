"""Who would wake somebody who waits: a task, a timer, a socket, a thread, whoever releases a lock."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

from .._deadlock.wait_cycle import is_full
from .lines import Walk

# What the innermost of asyncio's methods waits for somebody to do, with its object.
_DOES = {
    "Lock.acquire": "releases",
    "Semaphore.acquire": "releases",
    "BoundedSemaphore.acquire": "releases",
    "Event.wait": "sets",
    "Condition.wait": "notifies",
    "Barrier.wait": "comes to",
    "Queue.get": "puts something into",
    "Queue.put": "takes something out of",
    "Queue.join": "calls task_done() of",
}


class Wakers:
    """What one loop would do next, by the ids of the futures that it would set."""

    def __init__(self, loop: Any, thread_of_work: Callable[[Any], str | None]) -> None:
        self._thread_of_work = thread_of_work
        self._texts: dict[int, str] = {}
        self._timeouts: dict[int, float] = {}
        try:
            self._now = loop.time()
            for handle in tuple(getattr(loop, "_scheduled", ())):
                self._note_timer(handle)
            for handle in tuple(getattr(loop, "_ready", ())):
                for future in _futures(getattr(handle, "_args", None)):
                    self._texts[id(future)] = "the loop, in its next turn"
            selector = getattr(loop, "_selector", None)
            if selector is not None:
                for key in tuple((selector.get_map() or {}).values()):
                    self._note_file(key.fd, key.data)
        except (
            Exception
        ):  # of a loop that runs in another thread, which has changed something meanwhile
            pass

    def _note_timer(self, handle: Any) -> None:
        if handle._cancelled:
            return
        seconds = max(0.0, handle._when - self._now)
        for future in _futures(handle._args):
            self._texts[id(future)] = f"a timer in {seconds:.1f} s"
        owner = getattr(handle._callback, "__self__", None)
        task = getattr(owner, "_task", None)
        if isinstance(owner, asyncio.Timeout) and task is not None:
            self._timeouts[id(task)] = min(seconds, self._timeouts.get(id(task), seconds))

    def _note_file(self, fd: int, handles: Any) -> None:
        if not isinstance(handles, tuple):
            return
        for handle, what in zip(
            handles, ("something to read from", "room to write to"), strict=False
        ):
            if handle is None:
                continue
            text = f"{what} file {fd}"
            for future in _futures(handle._args):
                self._texts[id(future)] = text
            transport = getattr(handle._callback, "__self__", None)
            protocol = getattr(transport, "_protocol", None)
            weak = getattr(protocol, "_stream_reader_wr", None)
            reader = weak() if weak is not None else getattr(protocol, "_stream_reader", None)
            waiter = getattr(reader, "_waiter", None)
            if waiter is not None:
                self._texts[id(waiter)] = text + _peer(transport)

    def timeout_of(self, task: Any) -> float | None:
        """Seconds until a timeout cancels the task."""
        return self._timeouts.get(id(task))

    def of(self, future: Any, walk: Walk) -> str | None:
        """Who would wake the task that waits for `future` at the end of `walk`; None if that is not known."""
        if future is None:
            return None
        if hasattr(future, "get_coro"):
            return f"task {future.get_name()!r}"
        if type(future).__name__ == "_GatheringFuture":
            return "the last of the tasks that it gathers"
        known = self._texts.get(id(future))
        if known is not None:
            return known
        source = _source(future)
        if source is not None:
            return self._thread_of_work(source) or "a thread of a pool, when one is free"
        return _by_code(walk)


def _futures(args: Any) -> Iterator[Any]:
    for arg in args or ():
        if isinstance(arg, asyncio.Future) or hasattr(type(arg), "_asyncio_future_blocking"):
            yield arg


def _peer(transport: Any) -> str:
    try:
        peer = transport.get_extra_info("peername")
    except Exception:
        return ""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f" (socket to {peer[0]}:{peer[1]})"
    return ""


def _source(future: Any) -> Any:
    """The future of a thread's work that `future` stands for (`asyncio.wrap_future`)."""
    for callback, _ in tuple(getattr(future, "_callbacks", None) or ()):
        if type(callback) is not FunctionType or callback.__code__.co_name != "_call_check_cancel":
            continue
        for cell in callback.__closure__ or ():
            if is_full(cell) and isinstance(cell.cell_contents, concurrent.futures.Future):
                return cell.cell_contents
    return None


def _by_code(walk: Walk) -> str | None:
    """As the innermost of asyncio's own methods tells."""
    frame = getattr(walk.innermost, "cr_frame", None)
    if frame is None or not frame.f_globals.get("__name__", "").startswith("asyncio."):
        return None
    name = frame.f_code.co_qualname
    held: Mapping[str, Any] = frame.f_locals
    if name == "sleep":
        return f"a timer ({held.get('delay')} s in all)"
    does = _DOES.get(name)
    owner = held.get("self")
    if does is None or owner is None:
        return None
    kind = type(owner)
    return f"whoever {does} {kind.__module__}.{kind.__qualname__} at {id(owner):#x}"
