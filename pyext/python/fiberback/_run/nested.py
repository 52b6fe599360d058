"""A `run` inside a running loop: what it starts ends with it, as with a loop of its own.

The loop is shared with others, so what belongs to the `run` must be told from what does not: its tasks,
async generators, and work in the loop's default executor have a context in which `_scope` is it. For
the time of the `run` the loop's task factory, the thread's hook for async generators and the executor's
`submit` note what begins in such a context, so that its end does not cost more for what else the loop has.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from .. import _messages
from .._fiberback import context_of
from .._portal.task_factory import Telling

T = TypeVar("T")

# Seconds that work in threads has to end, as in `asyncio.run`.
_JOIN = 300.0


class _Scope:
    """What belongs to one `run`."""

    def __init__(self) -> None:
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.generators: WeakSet[AsyncGenerator[Any, Any]] = WeakSet()
        self.work: set[Future[Any]] = set()

    def add_work(self, future: Future[Any]) -> None:
        self.work.add(future)
        future.add_done_callback(self.work.discard)


_scope: contextvars.ContextVar[_Scope] = contextvars.ContextVar("fiberback_run")


async def run_in_task(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T]) -> T:
    """`await main` in a new task; what that has started is ended before this returns."""
    return await loop.create_task(_with_cleanup(loop, main))


async def _with_cleanup(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T]) -> T:
    scope = _Scope()
    _scope.set(scope)
    notes = _notes.get(loop)
    if notes is None:
        notes = _notes[loop] = _Notes()
    notes.begin(loop)
    try:
        try:
            return await main
        finally:
            await _cancel_tasks(loop, scope, notes)
            await _close_generators(loop, scope)
            await _join(scope)
    finally:
        notes.end(loop)


async def _cancel_tasks(loop: asyncio.AbstractEventLoop, scope: _Scope, notes: _Notes) -> None:
    me = asyncio.current_task()
    # All of the loop's only where some may not have been noted.
    tasks = scope.tasks if notes.has_all_tasks() else asyncio.all_tasks(loop)
    left = [task for task in tasks if task is not me and not task.done() and _is_in(task, scope)]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for task in left:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during fiberback.run() shutdown",
                    "exception": task.exception(),
                    "task": task,
                }
            )


def _is_in(task: asyncio.Task[Any], scope: _Scope) -> bool:
    return _scope_of(task) is scope


def _scope_of(task: asyncio.Task[Any]) -> _Scope | None:
    context = context_of(task)
    return None if context is None else context.get(_scope)


def _note_task(task: asyncio.Task[Any]) -> None:
    scope = _scope_of(task)
    if scope is not None:
        scope.tasks.add(task)


async def _close_generators(loop: asyncio.AbstractEventLoop, scope: _Scope) -> None:
    left = list(scope.generators)
    if not left:
        return
    outcomes = await asyncio.gather(*(each.aclose() for each in left), return_exceptions=True)
    for generator, error in zip(left, outcomes, strict=True):
        if isinstance(error, Exception):
            loop.call_exception_handler(
                {
                    "message": f"an error occurred during closing of {generator!r}",
                    "exception": error,
                    "asyncgen": generator,
                }
            )


async def _join(scope: _Scope) -> None:
    work = [asyncio.wrap_future(future) for future in list(scope.work)]
    if not work:
        return
    _, left = await asyncio.wait(work, timeout=_JOIN)
    if left:
        text = _messages.RUN_WORK_LEFT.format(count=len(left), seconds=_JOIN)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class _Notes:
    """What is noted on one loop, while there are such runs on it."""

    def __init__(self) -> None:
        self._runs = 0
        self._first_iteration: Callable[[AsyncGenerator[Any, Any]], Any] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._tasks: Telling | None = None

    def begin(self, loop: Any) -> None:
        self._runs += 1
        # The loop may have been stopped, and run again, since the last one.
        hook = sys.get_asyncgen_hooks().firstiter
        if hook != self._on_first_iteration:
            self._first_iteration = hook
            sys.set_asyncgen_hooks(firstiter=self._on_first_iteration)
        executor = self._executor or _default_executor_of(loop)
        if executor is None:
            executor = ThreadPoolExecutor(thread_name_prefix="asyncio")  # as asyncio does
            loop.set_default_executor(executor)
        if self._executor is None and "submit" not in vars(executor):
            self._executor = executor
            executor.submit = _noting(executor.submit)  # type: ignore[method-assign]
        if self._tasks is None:
            with contextlib.suppress(NotImplementedError):  # a loop without task factories
                self._tasks = Telling(loop, _note_task)

    def has_all_tasks(self) -> bool:
        return self._tasks is not None and self._tasks.is_whole()

    def end(self, loop: Any) -> None:
        self._runs -= 1
        if self._runs:
            return
        if self._tasks is not None:
            self._tasks.end()
            self._tasks = None
        if sys.get_asyncgen_hooks().firstiter == self._on_first_iteration:
            sys.set_asyncgen_hooks(firstiter=self._first_iteration)
        self._first_iteration = None
        executor, self._executor = self._executor, None
        if executor is not None:
            del executor.submit
            is_current = getattr(loop, "_default_executor", None) is executor
            if is_current and not executor._threads:
                loop._default_executor = None

    def _on_first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        scope = _scope.get(None)
        if scope is not None:
            scope.generators.add(generator)
        if self._first_iteration is not None:
            self._first_iteration(generator)


def _default_executor_of(loop: Any) -> ThreadPoolExecutor | None:
    if hasattr(loop, "_default_executor"):
        found = [loop._default_executor]
    else:  # uvloop's cannot be asked for
        found = gc.get_referents(loop)
    return next((each for each in found if isinstance(each, ThreadPoolExecutor)), None)


def _noting(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def note(fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> Future[Any]:
        future = submit(fn, *args, **kwds)
        scope = _scope.get(None)
        if scope is not None:
            scope.add_work(future)
        return future

    return note


_notes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Notes] = WeakKeyDictionary()
