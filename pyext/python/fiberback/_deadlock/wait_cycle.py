"""Tasks that wait for each other in a circle: an error that names them instead of a hang.

Asked each time `await_` is about to suspend a task until another one, or a `gather` or `shield` of
others, is done. Who waits for the current task is found from the callbacks on it, and on what they
complete, step by step: tasks that await, `gather`, `shield`, `wait`, `wait_for`, task groups,
and worker threads whose `await_` runs in the task. If what the task is about to wait for is among
them, nothing could ever end the wait.

A circle may also be closed by a native `await`, of which nobody is told. So waits that went well are
looked at again for as long as they last: `watchdog`.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, ref

from .. import _messages
from .._loop.current_task import current_task
from .._user_frames import is_users
from . import watchdog

# More than so many waiters are not followed: the search must not cost more than the wait.
_MOST = 10_000

_TASKS = asyncio.tasks.__file__

# A task that works for a thread → the future that the thread's own work will set.
_leads_to: WeakKeyDictionary[asyncio.Future[Any], ref[asyncio.Future[Any]]] = WeakKeyDictionary()


def before_wait(future: Any) -> Any:
    """Raises RuntimeError if the current task, about to wait for `future`, would do so for ever.

    What it returns, if that is not None, is to be passed to `watchdog.after_wait` when the wait ends.
    """
    try:
        task = asyncio.tasks.current_task()
    except RuntimeError:
        return None
    if task is None or future.done():
        return None
    if future is task:
        may_be_circle = True
    elif getattr(future, "_fut_waiter", future) is None:
        may_be_circle = False  # a task that waits for nothing, so far
    else:
        # Somebody waits for hardly any task but by a callback on it.
        may_be_circle = bool(task._callbacks or _others or (_leads_to and task in _leads_to))
    if may_be_circle:
        error = _verdict(task, future)
        if error is not None:
            future._asyncio_future_blocking = False  # nobody will
            try:
                raise error
            finally:
                del error  # it is in a frame of its own traceback
    return watchdog.watch_of(task.get_loop(), _verdicts).add(task, future)


def _verdict(task: Any, future: Any) -> RuntimeError | None:
    circle = find_circle(task, future)
    return RuntimeError(_describe(circle)) if circle is not None else None


def _verdicts() -> watchdog.Verdict:
    """`_verdict` for many waits at one time: each task is looked at once, however many wait for it in a row."""
    harmless: set[Any] = set()

    def verdict(task: Any, future: Any) -> RuntimeError | None:
        return None if _is_harmless(task, harmless) else _verdict(task, future)

    return verdict


def leads_to(task: asyncio.Future[Any], result: asyncio.Future[Any]) -> None:
    """Note that a thread waits for what `task` does, and will set `result`."""
    _leads_to[task] = ref(result)


# Each tells, of a task, which others wait for what that one has: locks.
_others: list[Callable[[Any], list[Any]]] = []


def ask_also(waiters: Callable[[Any], list[Any]]) -> None:
    """Have `waiters` asked, too, which tasks cannot go on before another one does."""
    if waiters not in _others:
        _others.append(waiters)


def check(task: Any, other: Any) -> None:
    """Raises RuntimeError if `task`, about to wait until the task `other` does something, would do so for ever."""
    circle = find_circle(task, other) if task is not None else None
    if circle is not None:
        raise RuntimeError(_describe(circle))


def find_circle(task: Any, future: Any) -> list[Any] | None:
    """From `task` over those that wait for it to `future`, each waiting for the one before."""
    if future is task:
        return [task]
    waiters = waiters_of(task)
    if not waiters:
        return None
    came_from: dict[Any, Any] = {task: None}
    queue = [task]
    for node in queue:
        for waiter in waiters_of(node):
            if waiter in came_from or _is_done(waiter):
                continue
            came_from[waiter] = node
            if waiter is future:
                circle = []
                while waiter is not None:
                    circle.append(waiter)
                    waiter = came_from[waiter]
                return circle[::-1]
            if len(queue) >= _MOST:
                return None
            queue.append(waiter)
    return None


def _is_harmless(task: Any, harmless: set[Any]) -> bool:
    """Whether those that wait for `task`, and for these, and so on, are in no circle. All of them are added to
    `harmless` then."""
    if task in harmless:
        return True
    path = [(task, iter(waiters_of(task)))]
    on_path = {task}
    while path:
        node, waiters = path[-1]
        for waiter in waiters:
            if waiter in on_path:
                return False
            if waiter not in harmless and not _is_done(waiter):
                path.append((waiter, iter(waiters_of(waiter))))
                on_path.add(waiter)
                break
        else:
            path.pop()
            on_path.remove(node)
            harmless.add(node)
    return True


def waiters_of(node: Any) -> list[Any]:
    """The futures and tasks that cannot be done before `node` is."""
    found = []
    for callback, _ in getattr(node, "_callbacks", None) or ():  # Trio's tasks have none
        waiter = completes(callback, node)
        if waiter is not None:
            found.append(waiter)
    if _leads_to:
        result = _leads_to.get(node)
        if result is not None and (known := result()) is not None:
            found.append(known)
    for waiters in _others:
        found += waiters(node)
    return found


def completes(callback: Any, node: Any) -> Any:
    if type(callback) is FunctionType:
        return _completes_by_closure(callback)
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        if getattr(owner, "_fut_waiter", None) is node:
            return owner  # a task's wakeup
        if isinstance(owner, asyncio.TaskGroup):
            return getattr(owner, "_on_completed_fut", None)
        return None
    if isinstance(callback, functools.partial):  # wait_for, in 3.11
        if callback.func is getattr(asyncio.tasks, "_release_waiter", callback):
            return callback.args[0]
        return None
    return None


def _completes_by_closure(callback: FunctionType) -> Any:
    code = callback.__code__
    if code.co_filename != _TASKS:
        return None
    cells = zip(code.co_freevars, callback.__closure__ or (), strict=False)
    closure = {name: cell.cell_contents for name, cell in cells if is_full(cell)}
    if code.co_name == "_on_completion":  # wait: only if nothing else can end it
        if closure.get("timeout_handle") is None and (
            closure.get("return_when") == asyncio.ALL_COMPLETED
        ):
            return closure.get("waiter")
        return None
    outer = closure.get("outer")  # gather, shield
    return outer if asyncio.isfuture(outer) else None


def is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises if it is empty
    except ValueError:
        return False
    return True


# What is asked of tasks of asyncio, and of Trio, which are in circles over locks only.


def _is_done(task: Any) -> bool:
    done = getattr(task, "done", None)
    return done is not None and done()


def _coro_of(task: Any) -> Any:
    """None of a future that is no task."""
    get = getattr(task, "get_coro", None)
    return getattr(task, "coro", None) if get is None else get()


# What to say.


def _describe(circle: list[Any]) -> str:
    tasks = [each for each in circle if _coro_of(each) is not None]
    steps = [f"{_name(each)} (at {_where(each)})" for each in reversed(tasks)]
    # The first to wait is the one that gets the error, and the last that it waits for.
    steps = [steps[-1], *steps[:-1], _name(tasks[0])]
    return _messages.DEADLOCK.format(circle=" waits for ".join(steps))


def _name(task: Any) -> str:
    name = task.get_name() if hasattr(task, "get_name") else task.name
    return f"task {name!r}"


def _where(task: Any) -> str:
    frame = _users(sys._getframe()) if task is current_task() else _suspended_frame(task)
    if frame is None:
        return "an unknown place"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}()"


def _suspended_frame(task: Any) -> FrameType | None:
    """The innermost frame that is not asyncio's or ours, else the outermost of those."""
    coro: Any = _coro_of(task)
    best: FrameType | None = None
    any_frame: FrameType | None = None
    for _ in range(1000):
        if coro is None:
            break
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if isinstance(frame, FrameType):
            best = _users(frame, one=True) or best
            any_frame = any_frame or frame
        inner = getattr(coro, "cr_await", None)
        coro = inner if inner is not None else getattr(coro, "gi_yieldfrom", None)
    return best or any_frame


def _users(frame: FrameType | None, one: bool = False) -> FrameType | None:
    while frame is not None:
        if is_users(frame):
            return frame
        frame = None if one else frame.f_back
    return None
