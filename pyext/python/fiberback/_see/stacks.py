"""`stacks`: everything that waits in this process, as objects."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

from .._await import in_callback
from .._deadlock import blocked_thread
from .._fiberback import (
    Portal,
    current_frames,
    frames_from,
    lines_from,
    locals_of,
    parked,
    portal_of,
    suspended,
)
from .._thread.channel import Channel
from .._thread.host import is_host
from .._thread.runner import ThreadRunner
from . import loops
from .lines import Walk, above_loop, above_thread, summary
from .tasks import tasks_of
from .tree import in_circles, owners
from .wakers import Wakers

_CHANNEL, _RUNNER = Channel._wait.__code__, ThreadRunner._run.__code__


@dataclass(eq=False)
class Stack:
    """One call stack that waits, or the one of a task that runs: what `stacks` returns."""

    kind: Literal["task", "thread", "caller", "fiber", "loop"]
    """A "task" of asyncio's or Trio's; a "thread" that waits in `await_`; a "caller" that waits in `await_` in no
    task and without a portal (a callback of the loop's); a "fiber": a portal that no task known here steps; a
    "loop" whose tasks could not be listed, for its thread has changed them again and again."""
    name: str
    """The task's or thread's name, or the function's."""
    state: Literal["waiting", "ready", "running"]
    """"ready": what it has waited for is there, and its turn is to come."""
    seconds: float | None = None
    """How long it has waited so far, to some 10 ms; None where nobody has noted it: of tasks without a portal."""
    awaits: str | None = None
    """What it awaits."""
    woken_by: str | None = None
    """Who would wake it: a task, a timer, a socket, a thread, whoever releases a lock; None if that cannot be told."""
    times_out_in: float | None = None
    """Seconds until an `asyncio.timeout` around it ends the wait; None if there is none."""
    frames: traceback.StackSummary = field(default_factory=traceback.StackSummary)
    """Its whole stack from the outermost frame: async, sync, async, without a frame of this package's or of what
    runs the event loop."""
    is_whole: bool = True
    """False where frames cannot be seen from here: while greenlet is loaded, those of a caller that waits without a
    portal, looked at from outside its event loop's code. Under `fiberback.run` and `enable` all can be seen."""
    has_portal: bool = False
    in_await: bool = False
    """It waits in `await_`, in the middle of synchronous code."""
    in_circle: bool = False
    """It waits, by way of others, for itself: for ever."""
    loop: str | None = None
    """The event loop, as its `repr` shows it."""
    thread: str | None = None
    """The name of the thread in which it runs or waits."""
    group: str | None = None
    """What its owner waits for it by: "TaskGroup 0x…", "nursery", "gather", "wait"; None for a plain wait."""
    children: list[Stack] = field(default_factory=list)
    """The tasks and threads that it waits for, or has started in a group."""
    task: Any = None
    """The task itself, of a task."""


def stacks() -> list[Stack]:
    """Everything that waits in this process, and the tasks that run or are about to: a tree.

    That is every task of every asyncio loop that runs in any thread (on 3.14 and later tasks of a stopped loop are
    known only if something here knows the loop), every task of every Trio run, every thread that waits in
    `await_`, every caller that is parked, every portal that is suspended. The roots are those that nobody waits
    for; a task is among the `children` of the one that awaits it, gathers it, or has started it in a task group.

    To be called from any thread, in signal handlers of the `signal` module, in forked children. Other threads
    are not stopped meanwhile: each stack is read at one moment, but not all of them at the same.
    """
    if sys.version_info >= (3, 12):
        return _Look().roots()
    # A collection might begin while a frame of another thread's is looked at: see `_fiberback.frames_from`.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _Look().roots()
    finally:
        if was_enabled:
            gc.enable()


class _Look:
    def __init__(self) -> None:
        self._frames: dict[int, FrameType] = current_frames()
        self._by_id: dict[int, Stack] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._in_task: set[int] = set()  # portals
        self._parents: dict[int, list[tuple[Any, str | None]]] = {}
        self._parked: dict[int, tuple[Any, ...]] = {}
        self._callers: list[tuple[Any, ...]] = []
        self._threads: list[tuple[Stack, Any]] = []  # with the task that serves the thread
        self._works: dict[int, int] | None = None
        for one in parked():
            if one[1] is None:
                self._callers.append(one)
            else:
                self._parked[id(one[1])] = one

    def roots(self) -> list[Stack]:
        threads: dict[int, list[int]] = {}  # of loops
        known: list[Any] = []
        for ident, loop in loops.in_threads(self._frames):
            threads.setdefault(id(loop), []).append(ident)
            known.append(loop)
        running = asyncio._get_running_loop()
        if running is not None:
            threads.setdefault(id(running), [threading.get_ident()])
            known.append(running)
        known += (one[0] for one in (*self._callers, *self._parked.values()))
        known += loops.stopped()
        known += _loops_of_known_tasks()
        fibers = [portal for portal in suspended() if portal.in_await]  # the others run just now
        for portal in fibers:
            task = _task_of(portal)
            if task is not None:
                known.append(task.get_loop())
        tasks: list[Any] = []
        for loop in {id(loop): loop for loop in known}.values():
            where = threads.get(id(loop), [None])[0]
            if loops.is_trio(loop):
                self._add_trio(loop, where)
            elif loops.is_asyncio(loop):
                tasks += self._add_loop(loop, where)
        for ident, top in self._frames.items():
            self._add_thread(ident, top)
        for one in self._callers:
            self._add_caller(one)
        for portal in fibers:
            if id(portal) not in self._in_task:
                self._add_fiber(portal)
        for node in in_circles(tasks):
            if node in self._by_id:
                self._by_id[node].in_circle = True
        return self._tree()

    # Each kind.

    def _add_loop(self, loop: Any, ident: int | None) -> list[Any]:
        found = tasks_of(loop)
        if found is None:
            name = self._name(ident)
            self._add(
                loop,
                Stack("loop", repr(loop), "running", is_whole=False, loop=repr(loop), thread=name),
            )
            return []
        tasks = sorted(found, key=_age)
        wakers = Wakers(loop, self._thread_of_work)
        try:
            current = asyncio.current_task(loop)
        except RuntimeError:
            current = None
        about: dict[str, Any] = {"loop": repr(loop), "thread": self._name(ident)}
        for task in tasks:
            try:
                self._add(task, self._task(task, task is current, ident, wakers, about))
                self._parents[id(task)] = owners(task)
            except Exception:
                if task.done():  # it has ended meanwhile
                    continue
                raise
        return tasks

    def _task(
        self, task: Any, is_current: bool, ident: int | None, wakers: Wakers, about: Any
    ) -> Stack:
        coro = task.get_coro()
        walk = Walk(coro)
        self._in_task.update(map(id, walk.portals))
        self._kept.append(walk)
        stack = Stack("task", task.get_name(), "waiting", task=task, **about)
        # A portal put around a task's coroutine, or one for a call that it makes.
        stack.has_portal = portal_of(task) is not None or bool(walk.portals)
        future = getattr(task, "_fut_waiter", None)
        lines = walk.lines
        is_parked = self._parked.get(id(task))
        if is_parked is not None:
            _, _, future, iterator, stack.seconds, _, inner, stack.is_whole = is_parked
            lines = [*reversed([*above_loop(inner)])]
            if lines or not walk.lines:
                walk.lines = lines
            stack.in_await = True
            below = Walk(iterator)
            self._in_task.update(map(id, below.portals))
            lines = walk.lines + below.lines
            walk.innermost = below.innermost or walk.innermost
        elif is_current:
            stack.state = "running"
            top = self._frames.get(ident) if ident is not None else None
            if top is not None:
                lines = [*reversed([*above_loop(lines_from(top, -1))])] or lines
        else:
            for portal in walk.portals:
                stack.in_await = stack.in_await or portal.in_await
                if portal.waits is not None:
                    stack.seconds = portal.waits
        if stack.state == "waiting" and (future is None or future.done()):
            stack.state = "ready"
        stack.frames = summary(lines)
        if stack.state == "waiting":
            stack.awaits = _what(future, walk)
            stack.woken_by = wakers.of(future, walk)
        stack.times_out_in = wakers.timeout_of(task)
        return stack

    def _add_trio(self, run: Any, ident: int | None) -> None:
        about: dict[str, Any] = {"loop": "Trio", "thread": self._name(ident)}
        queue: list[tuple[Any, Any]] = [(run.init_task, None)]
        for task, parent in queue:
            walk = Walk(task.coro)
            self._in_task.update(map(id, walk.portals))
            self._kept.append(walk)
            stack = Stack("task", task.name, "waiting", task=task, **about)
            stack.has_portal = bool(walk.portals)
            lines = walk.lines
            if _is_running(task.coro):
                stack.state = "running"
                top = self._frames.get(ident) if ident is not None else None
                if top is not None:
                    lines = [*reversed([*above_loop(lines_from(top, -1))])] or lines
            elif getattr(task, "_next_send_fn", None) is not None:
                stack.state = "ready"
            else:
                stack.awaits = _what(None, walk)
                for portal in walk.portals:
                    stack.in_await = stack.in_await or portal.in_await
                    if portal.waits is not None:
                        stack.seconds = portal.waits
            stack.frames = summary(lines)
            self._add(task, stack)
            self._parents[id(task)] = [] if parent is None else [(parent, "nursery")]
            queue += (
                (child, task)
                for nursery in tuple(task.child_nurseries)
                for child in tuple(nursery.child_tasks)
            )

    def _add_thread(self, ident: int, top: FrameType) -> None:
        frames = frames_from(top, -1)
        for at, frame in enumerate(frames):
            if frame.f_code is _CHANNEL:
                held = locals_of(frame)
                host, request = held.get("self"), held.get("request")
            elif frame.f_code is _RUNNER:
                held = locals_of(frame)
                host, request = held.get("host"), held.get("request")
            else:
                continue
            if host is None or request is None or request.is_answered:
                continue
            stack = Stack("thread", self._name(ident) or "", "waiting", thread=self._name(ident))
            stack.seconds = round(time.monotonic() - request.since, 2)
            stack.loop, stack.in_await = repr(host.loop), True
            lines = [(each.f_code, each.f_lineno) for each in frames[at:]]
            stack.frames = summary(reversed(above_thread([*above_loop(lines)])))
            stack.awaits = _called(request._coro)
            self._kept.append(request)
            self._add(request, stack)
            task = host.task
            result = getattr(host, "result", None)
            self._parents[id(request)] = [] if result is None else owners(result)
            if task is not None:
                stack.woken_by = f"task {task.get_name()!r}"
                if is_host(task):
                    self._parents[id(task)] = [(request, None)]
                else:
                    self._parents[id(request)] = [(task, "thread")]
            return

    def _add_caller(self, one: tuple[Any, ...]) -> None:
        loop, _, future, iterator, seconds, ident, inner, is_whole = one
        lines = [*reversed([*above_loop(inner)])]
        below = Walk(iterator)
        below.lines = lines + below.lines
        name = lines[0][0].co_qualname if lines else "a callback"
        stack = Stack("caller", name, "waiting", is_whole=is_whole, in_await=True, seconds=seconds)
        stack.loop, stack.thread = repr(loop), self._name(ident)
        stack.frames = summary(below.lines)
        coro, task = in_callback.served(future)
        if task is None:
            stack.awaits = _what(future, below)
            stack.woken_by = Wakers(loop, self._thread_of_work).of(future, below)
            task = future
        else:
            stack.awaits, stack.woken_by = _called(coro), f"task {task.get_name()!r}"
        self._kept.append(one)
        self._add(one, stack)
        self._parents[id(one)] = []
        if id(task) in self._by_id:
            self._parents[id(task)] = [*self._parents.get(id(task), ()), (one, None)]

    def _add_fiber(self, portal: Portal) -> None:
        walk = Walk(portal)
        stack = Stack("fiber", portal.__qualname__, "waiting", has_portal=True, in_await=True)
        stack.seconds = portal.waits
        stack.frames = summary(walk.lines)
        stack.awaits = _what(None, walk)
        self._add(portal, stack)
        self._parents[id(portal)] = []

    def _add(self, thing: Any, stack: Stack) -> None:
        self._kept.append(thing)
        self._by_id[id(thing)] = stack

    # All of them.

    def _tree(self) -> list[Stack]:
        placed: dict[int, Stack | None] = {}
        for key, stack in self._by_id.items():
            parent = None
            for owner, label in self._parents.get(key, ()):
                found = self._by_id.get(id(owner))
                if found is None or found is stack or _is_below(found, stack, placed):
                    continue
                parent, stack.group = found, label
                break
            placed[id(stack)] = parent
        roots: list[Stack] = []
        for stack in self._by_id.values():
            parent = placed[id(stack)]
            (roots if parent is None else parent.children).append(stack)
        return roots

    def _name(self, ident: int | None) -> str | None:
        if ident is None:
            return None
        # Not by `threading.enumerate`, which takes a lock that the code which we interrupt may have.
        thread = getattr(threading, "_active", {}).get(ident)
        return thread.name if thread is not None else f"with id {ident}"

    def _thread_of_work(self, future: Any) -> str | None:
        if self._works is None:
            self._works = {}
            for ident, top in self._frames.items():
                work = blocked_thread.work_future(top)
                if work is not None:
                    self._works[id(work)] = ident
        found = self._works.get(id(future))
        return None if found is None else f"thread {self._name(found)!r}"


def _is_below(stack: Stack, other: Stack, placed: dict[int, Stack | None]) -> bool:
    """Whether `stack` is `other`, or has been placed somewhere below it."""
    at: Stack | None = stack
    while at is not None:
        if at is other:
            return True
        at = placed.get(id(at))
    return False


def _age(task: Any) -> int:
    """For an order that is about that in which they were made: what asyncio names tasks by."""
    name = task.get_name()
    number = name[5:] if isinstance(name, str) and name.startswith("Task-") else ""
    return int(number) if number.isdigit() else sys.maxsize


def _loops_of_known_tasks() -> Iterable[Any]:
    """Of the tasks that asyncio itself lists for all loops (up to 3.13)."""
    module: Any = asyncio.tasks
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        for _ in range(100):
            try:
                found = list(getattr(module, name, ()))
            except RuntimeError:  # changed by another thread
                continue
            for task in found:
                if not task.done():
                    yield task.get_loop()
            break


def _task_of(portal: Portal) -> Any:
    """The task that waits with the portal, as what it waits for tells."""
    walk = Walk(portal)
    future = walk.end
    for callback, _ in tuple(getattr(future, "_callbacks", None) or ()):
        owner = getattr(callback, "__self__", None)
        if hasattr(owner, "get_coro") and hasattr(owner, "get_loop"):
            return owner
    return None


def _is_running(coro: Any) -> bool:
    return bool(getattr(coro, "cr_running", False))


def _called(coro: Any) -> str:
    name = getattr(coro, "__qualname__", None)
    return f"{name}()" if name else type(coro).__qualname__


def _what(future: Any, walk: Walk) -> str | None:
    if future is not None and hasattr(future, "get_coro"):
        return f"task {future.get_name()!r}"
    if type(future).__name__ == "_GatheringFuture":
        return f"gather() of {len(getattr(future, '_children', ()))}"
    if walk.innermost is not None:
        return _called(walk.innermost)
    return None if future is None else f"a {type(future).__qualname__}"
