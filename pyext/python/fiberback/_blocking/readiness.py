"""`select.select`, `select.poll` and the classes of `selectors`, where sync code uses them.

The selector of the loop that runs, and of any other that is asked by its own loop, is never waited for. `select.epoll`
objects are of a class in C that cannot be given methods: they block, unless `selectors.EpollSelector` has them.
"""

from __future__ import annotations

import select
import selectors
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any

from .._fiberback import on_portal
from .._replacements import Replacement, named
from . import poller
from .waiter import waiter_for

_select = select.select
_poll: Any = getattr(select, "poll", None)
_EVENTS = poller.IN | poller.OUT | poller.URGENT
# What may be asked for besides has the same bits in epoll(7).
_ANY = _EVENTS
for _name in ("RDNORM", "RDBAND", "WRNORM", "WRBAND", "MSG", "RDHUP"):
    if hasattr(select, "epoll"):
        _ANY |= getattr(select, f"POLL{_name}", 0)


def _until(
    look: Callable[[], Any], files: Callable[[], Any], seconds: float | None, blocking: Any
) -> Any:
    """What `look` finds, when that is something or the time is up; `blocking()` where the caller cannot wait."""
    found = look()
    if found:
        return found
    caller = waiter_for("select")
    if caller is None:
        return blocking()
    waits = poller.Wait(caller, seconds)
    while True:
        in_time = waits.until_ready(*files())
        found = look()
        if found or not in_time:
            return found


def select_(rlist: Any, wlist: Any, xlist: Any, timeout: Any = None, /) -> Any:
    if (_get_running_loop() is None and not on_portal()) or not _is_wait(timeout):
        return _select(rlist, wlist, xlist, timeout)
    # What is iterated once must last for several looks.
    lists = [
        each if isinstance(each, (list, tuple)) else list(each) for each in (rlist, wlist, xlist)
    ]

    def look() -> Any:
        found = _select(lists[0], lists[1], lists[2], 0)
        return found if any(found) else None

    def files() -> Any:
        events = (poller.IN, poller.OUT, poller.URGENT)
        return [(_fd(each), bit) for some, bit in zip(lists, events, strict=True) for each in some]

    return _until(look, files, timeout, lambda: _select(lists[0], lists[1], lists[2], timeout)) or (
        [],
        [],
        [],
    )


def _is_wait(timeout: Any) -> bool:
    """What is no number is refused by the original."""
    return timeout is None or (isinstance(timeout, (int, float)) and timeout > 0)


def _fd(file: Any) -> int:
    fd: int = file if isinstance(file, int) else file.fileno()
    return fd


class _Poll:
    """A `select.poll` object, of which it is known what it waits for."""

    __slots__ = ("_events", "_object")
    _object: Any
    _events: dict[int, int]

    def __new__(cls) -> _Poll:
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: Any, eventmask: int = _EVENTS, /) -> None:
        self._object.register(fd, eventmask)
        self._events[_fd(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        self._object.modify(fd, eventmask)
        self._events[_fd(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        self._object.unregister(fd)
        self._events.pop(_fd(fd), None)

    def poll(self, timeout: Any = None, /) -> Any:
        # Milliseconds; less than nothing is for ever.
        if timeout is not None and not isinstance(timeout, (int, float)):
            return self._object.poll(timeout)
        if timeout == 0 or (_get_running_loop() is None and not on_portal()):
            return self._object.poll(timeout)
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        return _until(
            lambda: self._object.poll(0),
            lambda: [(fd, events & _ANY) for fd, events in self._events.items()],
            seconds,
            lambda: self._object.poll(timeout),
        )


# As the one in C says of itself.
_Poll.__module__, _Poll.__name__, _Poll.__qualname__ = "select", "poll", "poll"


def poll_() -> Any:
    made = _poll()
    if _get_running_loop() is None and not on_portal():
        return made
    ours = object.__new__(_Poll)
    ours._object, ours._events = made, {}
    return ours


def _of_selector(cls: Any, files: Callable[[Any], Any]) -> Replacement:
    original = cls.select

    def select(self: Any, timeout: Any = None) -> Any:
        loop = _get_running_loop()
        if (
            (loop is None and not on_portal())
            or not _is_wait(timeout)
            or getattr(loop, "_selector", None) is self
        ):
            return original(self, timeout)
        return _until(
            lambda: original(self, 0),
            lambda: files(self),
            timeout,
            lambda: original(self, timeout),
        )

    return Replacement(cls, "select", named(select, original))


def _itself(selector: Any) -> list[tuple[int, int]]:
    return [(selector.fileno(), poller.IN)]


def _each_file(selector: Any) -> list[tuple[int, int]]:
    kinds = ((selectors.EVENT_READ, poller.IN), (selectors.EVENT_WRITE, poller.OUT))
    return [
        (key.fd, sum(bit for kind, bit in kinds if key.events & kind))
        for key in selector.get_map().values()
    ]


def _replacements() -> list[Replacement]:
    found = [Replacement(select, "select", named(select_, _select), by_name=True)]
    if _poll is not None:
        found.append(Replacement(select, "poll", named(poll_, _poll), by_name=True))
    for name, files in (
        ("SelectSelector", _each_file),
        ("_PollLikeSelector", _each_file),
        ("EpollSelector", _itself),
        ("KqueueSelector", _itself),
    ):
        cls = getattr(selectors, name, None)
        if cls is not None and "select" in vars(cls):
            found.append(_of_selector(cls, files))
    return found


REPLACEMENTS = _replacements() if poller.IS_THERE else []
