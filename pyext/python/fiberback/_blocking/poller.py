"""Files that callers wait for: of each loop one `epoll` object (or `kqueue`), which the loop itself watches.

So any number of callers may wait for one file, also for one that the loop has a reader or a transport for
(asyncio would replace that, uvloop refuses, Trio has one waiter for each). A wait costs one system call, and all
files that are ready at one time are asked for by one.
"""

from __future__ import annotations

import contextlib
import os
import select as _select
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from . import waiter
from .waiter import Waiter

# What of this module there is depends on the platform.
select: Any = _select
IN, OUT, URGENT = 1, 4, 2  # as in poll(2)
_FAILED = 8 | 16 | 32  # error, hang-up, no such file: all who wait find out by trying
# So many are woken in one turn of the loop. What they do then may take long together; between two turns timers are looked at.
_AT_ONCE = 16
IS_THERE = hasattr(select, "epoll") or hasattr(select, "kqueue")


class _Epoll:
    """Files each of which is told of once, and then armed again."""

    def __init__(self) -> None:
        self._epoll: Any = select.epoll()
        self._once = select.EPOLLONESHOT
        self._known: set[int] = set()

    def fileno(self) -> int:
        fd: int = self._epoll.fileno()
        return fd

    def arm(self, fd: int, events: int) -> None:
        # What was closed meanwhile has left the kernel's list; another file may have its number.
        events |= self._once
        if fd in self._known:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.modify(fd, events)
                return
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)
        self._known.add(fd)

    def ready(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = self._epoll.poll(0, _AT_ONCE)
        return found


class _Kqueue:
    """The same on BSD and macOS."""

    def __init__(self) -> None:
        self._kqueue: Any = select.kqueue()
        self._filters = {
            IN: select.KQ_FILTER_READ,
            OUT: select.KQ_FILTER_WRITE,
        }

    def fileno(self) -> int:
        fd: int = self._kqueue.fileno()
        return fd

    def arm(self, fd: int, events: int) -> None:
        flags = select.KQ_EV_ADD | select.KQ_EV_ONESHOT
        event = select.kevent
        changes = [event(fd, kind, flags) for bit, kind in self._filters.items() if events & bit]
        self._kqueue.control(changes, 0)

    def ready(self) -> list[tuple[int, int]]:
        bits = {kind: bit for bit, kind in self._filters.items()}
        return [(each.ident, bits[each.filter]) for each in self._kqueue.control(None, _AT_ONCE, 0)]


class _Poller:
    """Of one loop."""

    def __init__(self) -> None:
        self.files = _Epoll() if hasattr(select, "epoll") else _Kqueue()
        self._waiting: dict[int, list[tuple[int, Waiter]]] = {}
        _pollers[id(self)] = self

    def add(self, fd: int, events: int, caller: Waiter) -> None:
        # First of all: another thread may close the file at any time, and wakes who is entered by then.
        waiting = self._waiting.setdefault(fd, [])
        waiting.append((events, caller))
        for other, _ in waiting:
            events |= other
        try:
            self.files.arm(fd, events)
        except BaseException:
            self.remove(fd, caller)
            raise
        if self._waiting.get(fd) is not waiting:  # it was closed meanwhile
            caller.wake()

    def remove(self, fd: int, caller: Waiter) -> None:
        waiting = self._waiting.get(fd)
        if waiting is not None:
            waiting[:] = [each for each in waiting if each[1] is not caller]
            if not waiting:
                self._waiting.pop(fd, None)

    def dispatch(self) -> None:
        for fd, events in self.files.ready():
            waiting = self._waiting.pop(fd, None)
            if waiting is None:
                continue  # nobody waits for it any more
            rest = []
            for each in waiting:
                if events & (each[0] | _FAILED):
                    each[1].wake_in_loop()
                else:
                    rest.append(each)
            if rest:
                self._waiting[fd] = rest
                wanted = 0
                for each in rest:
                    wanted |= each[0]
                try:
                    self.files.arm(fd, wanted)
                except OSError:  # it was closed
                    self.closed(fd)

    def closed(self, fd: int) -> None:
        for _, caller in self._waiting.pop(fd, ()):
            caller.wake()

    async def serve_trio(self) -> None:
        import trio

        while True:
            await trio.lowlevel.wait_readable(self.files.fileno())
            self.dispatch()


# By their `id`. (Of this, unlike of a set, a list is made at one go, whatever other threads add.)
_pollers: WeakValueDictionary[int, _Poller] = WeakValueDictionary()
_of_loops: WeakKeyDictionary[Any, _Poller] = WeakKeyDictionary()
# In a forked child, the kernel's lists are the parent's.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_loops.clear)


def _poller_of(loop: Any) -> _Poller:
    poller = _of_loops.get(loop)
    if poller is None:
        poller = _Poller()
        if hasattr(loop, "add_reader"):
            loop.add_reader(poller.files.fileno(), poller.dispatch)
        else:
            import trio

            trio.lowlevel.spawn_system_task(poller.serve_trio, name="<fiberback.blocking>")
        _of_loops[loop] = poller
    return poller


def closed(fd: int) -> None:
    """Whoever waits for the file finds out: to be called when it has been closed."""
    for known in _pollers.valuerefs():
        poller = known()
        if poller is not None:
            poller.closed(fd)


def wait(files: Iterable[tuple[int, int]], seconds: float | None, caller: Waiter) -> bool:
    """Whether one of the files was ready for its events before `seconds` had passed.

    It may have been ready for somebody else: try, and wait again. Raises OSError for what is no open file.
    """
    poller = _poller_of(caller.loop)
    added = []
    try:
        for fd, events in files:
            try:
                poller.add(fd, events, caller)
            except PermissionError:  # a plain file, which is always ready
                return True
            added.append(fd)
        return caller.wait(seconds)
    finally:
        for fd in added:
            poller.remove(fd, caller)


class Wait:
    """The waits of one call, which has a timeout for all of them."""

    __slots__ = ("_caller", "_end")

    def __init__(self, caller: Waiter, seconds: float | None) -> None:
        self._caller: Waiter | None = caller
        self._end = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds; not below zero."""
        return None if self._end is None else max(self._end - monotonic(), 0.0)

    def next(self) -> Waiter:
        caller = self._caller or waiter.again()
        self._caller = None
        assert caller is not None, "the loop has gone while its caller waited"
        return caller

    def until_ready(self, *files: tuple[int, int]) -> bool:
        """False when the time is up."""
        return wait(files, self.left(), self.next())

    def until(self, is_over: Callable[[], object], first: float, longest: float) -> bool:
        """For what nothing tells of: it is asked, with longer and longer pauses, in seconds. False when the time is up."""
        pause = first
        while not is_over():
            left = self.left()
            self.next().wait(pause if left is None else min(pause, left))
            if left is not None and left <= pause:
                return False
            pause = min(2 * pause, longest)
        return True
