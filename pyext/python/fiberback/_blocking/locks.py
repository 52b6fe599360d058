"""`threading.Lock` and `RLock`, and so all that stands on them: conditions, events, semaphores, barriers, `queue.Queue`,
futures.

A lock in C cannot be given methods: while the hook stands, new ones are of the classes below. `Condition.wait` makes a
lock for each wait, so conditions, events and queues wait on the loop whenever they were made. A plain lock that was made
before blocks as ever.

To be acquired by a task the lock in C is tried, and tried again each time that somebody has released it. Other
threads block in it, so both may use one lock.
"""

from __future__ import annotations

import threading
from asyncio import _get_running_loop
from collections import deque
from concurrent.futures.thread import ThreadPoolExecutor
from threading import get_ident
from types import TracebackType
from typing import Any

from .._deadlock import wait_cycle
from .._fiberback import on_portal
from .._loop.current_task import current_task
from .._replacements import Replacement, named
from .poller import Wait
from .waiter import Waiter, here, waiter_for

_allocate: Any = vars(threading)["_allocate_lock"]
_recursive: Any = threading.RLock
# Threads that block in each lock: they start a thread or give an executor work, and hold locks in C meanwhile. Who
# suspended there would have the next task block for ever.
_blocking_ones: set[int] = set()


class _AsInC(type):
    """Of classes that stand in for one in C, whose objects are theirs, too."""

    in_c: type

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or isinstance(instance, cls.in_c)


class Lock(metaclass=_AsInC):
    """In the place of a lock in C."""

    __slots__ = ("__weakref__", "_block", "_waiting", "owner")
    in_c = type(_allocate())

    def __init__(self) -> None:
        self._block = _allocate()
        self._waiting: deque[Waiter] = deque()
        # The task that has acquired it.
        self.owner: Any = None

    def __repr__(self) -> str:
        return repr(self._block).replace("_thread.lock", "threading.Lock")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        block = self._block
        is_below_loop = _get_running_loop() is not None or on_portal()
        if timeout != -1 and not (blocking and 0 <= timeout <= threading.TIMEOUT_MAX):
            got: bool = block.acquire(blocking, timeout)  # refused
        elif block.acquire(False):
            got = True
        elif not blocking:
            return False
        elif not is_below_loop:
            got = block.acquire(True, timeout)
        else:
            return self._wait(None if timeout == -1 else timeout)
        if got and is_below_loop:
            self.owner = current_task()
        return got

    def _caller(self) -> Waiter | None:
        # Whatever is in force: who has acquired it may be suspended.
        return here()

    def _wait(self, seconds: float | None, cancelled: list[BaseException] | None = None) -> bool:
        """Whether it is acquired. With a list, to which cancellation is added, it is not to be cancelled."""
        caller = None if get_ident() in _blocking_ones else self._caller()
        if caller is None:
            got: bool = self._block.acquire(True, -1 if seconds is None else seconds)
            return got
        task = current_task()
        waits = Wait(caller, seconds)
        # Who waits for some time only is in no circle, and who releases a lock need not be who has acquired it.
        entry = self, task if seconds is None else None
        _entries.append(entry)
        wait_cycle.ask_also(_waiters_of)
        try:
            while True:
                if self.owner not in (None, task) and seconds is None and cancelled is None:
                    wait_cycle.check(task, self.owner)
                if self._attempt(waits, cancelled):
                    break
                if waits.left() == 0:
                    return False
        finally:
            _entries.remove(entry)
        self.owner = task
        return True

    def _attempt(self, waits: Wait, cancelled: list[BaseException] | None) -> bool:
        caller = waits.next()
        self._waiting.append(caller)
        got: bool = False
        try:
            got = self._block.acquire(False)  # it may have been released before that
            if not got:
                if cancelled is None:
                    caller.wait(waits.left())
                elif (error := caller.wait_shielded()) is not None:
                    cancelled.append(error)
                got = self._block.acquire(False)
            return got
        finally:
            try:
                self._waiting.remove(caller)
            except ValueError:
                if not got:
                    self._wake_next()  # who was woken is cancelled

    def release(self) -> None:
        self.owner = None
        self._block.release()
        if self._waiting:
            self._wake_next()

    def _wake_next(self) -> None:
        while not self._block.locked():
            try:
                caller = self._waiting.popleft()
            except IndexError:
                return
            if caller.wake():
                return

    def locked(self) -> bool:
        locked: bool = self._block.locked()
        return locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    acquire_lock, release_lock, locked_lock = acquire, release, locked

    def _at_fork_reinit(self) -> None:
        self._block._at_fork_reinit()
        self._waiting.clear()
        self.owner = None

    # What conditions ask for. One whose wait is cancelled has the lock again all the same.

    def _release_save(self) -> None:
        self.release()

    def _acquire_restore(self, state: None) -> None:
        cancelled = self.regain()
        if cancelled:
            raise cancelled[-1]

    def regain(self) -> list[BaseException]:
        """Acquire it, whatever comes; how the caller was cancelled meanwhile is returned."""
        cancelled: list[BaseException] = []
        is_below_loop = _get_running_loop() is not None or on_portal()
        if self._block.acquire(False):
            if is_below_loop:
                self.owner = current_task()
        elif not is_below_loop:
            self._block.acquire()
        else:
            self._wait(None, cancelled)
        return cancelled

    def _is_owned(self) -> bool:
        return self.locked()


class _Wakeup(Lock):
    """What a condition makes for each wait, to be acquired by nobody else: it is as good as the original's."""

    __slots__ = ()

    def _caller(self) -> Waiter | None:
        return waiter_for("locks")


class RLock(metaclass=_AsInC):
    """In the place of a reentrant lock in C. It belongs to the task that has acquired it, or to the thread where
    there is no task."""

    __slots__ = ("__weakref__", "_count", "_lock", "_owner")
    in_c = type(_recursive())

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: Any = None
        self._count = 0

    def __repr__(self) -> str:
        state = "locked" if self._lock.locked() else "unlocked"
        return f"<{state} threading.RLock object owner={self._owner!r} count={self._count} at {id(self):#x}>"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._is_owned():
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._count = _me(), 1
        return True

    def release(self) -> None:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._owner, self._count = None, 0

    def _release_save(self) -> tuple[int, Any]:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        state = self._count, self._owner
        self._count, self._owner = 0, None
        self._lock.release()
        return state

    def _acquire_restore(self, state: tuple[int, Any]) -> None:
        cancelled = self._lock.regain()
        self._count, self._owner = state
        if cancelled:
            raise cancelled[-1]

    def _is_owned(self) -> bool:
        owner = self._owner
        # What a thread has acquired before it ran a loop is for all that the loop does.
        if type(owner) is int:
            return owner == get_ident()
        return owner is not None and owner is _me()

    def _recursion_count(self) -> int:
        return self._count if self._is_owned() else 0


def _me() -> Any:
    """The task, or the loop whose callback it is; a number for the thread."""
    loop = _get_running_loop()
    if loop is None and not on_portal():
        return get_ident()
    return current_task() or loop or get_ident()


# Which tasks wait for which locks, so that a circle is found.
_entries: list[tuple[Lock, Any]] = []


def _waiters_of(node: Any) -> list[Any]:
    return [task for lock, task in tuple(_entries) if lock.owner is node and task is not None]


def _blocking_in(cls: type, name: str) -> Replacement:
    original: Any = getattr(cls, name)

    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        me = get_ident()
        if me in _blocking_ones:
            return original(self, *args, **kwds)
        _blocking_ones.add(me)
        try:
            return original(self, *args, **kwds)
        finally:
            _blocking_ones.discard(me)

    return Replacement(cls, name, named(method, original))


REPLACEMENTS = [
    Replacement(threading, "Lock", Lock, by_name=True),
    Replacement(threading, "_allocate_lock", _Wakeup),
    Replacement(threading, "RLock", RLock, by_name=True),
    _blocking_in(threading.Thread, "start"),
    _blocking_in(ThreadPoolExecutor, "submit"),
]
