"""This thread's own runner: where `await_` runs when no event loop is to be found.

One `asyncio.Runner` for each thread that needs one, made by its first such `await_` and kept for the
next, so that what is bound to its loop (connections, background tasks, async generators) lives on. All
that is awaited on it runs in one task (`host`), in the context of the code that waits.
It is closed when its thread ends; the main thread's when the interpreter exits, after all exit handlers,
which can await on it until then.

A forked child must not touch what it inherited: the loop's selector is shared with the parent, and
closing it properly would unregister the parent's files. So there the loops are leaked.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

from .. import _messages
from .._blocks import block
from .._deadlock.idle_runner import IdleRunner
from .._exit import after_all_handlers
from .._fiberback import close_all, create_task_factory, leak, lend_context
from .._loop import closing
from .._thread_end import AtThreadEnd
from . import generators, own_pool
from .host import Host
from .request import Request

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Every loop that is open, and what belongs to it, so that a forked child can leak them before
# anything finalizes them.
_open_loops: dict[int, Any] = {}


class _Request(Request):
    __slots__ = ()
    shares_loop = False


class ThreadRunner:
    """An `asyncio.Runner` of one thread, made on first use."""

    def __init__(self, debug: bool | None = None, loop_factory: LoopFactory | None = None) -> None:
        self._debug = debug
        self._loop_factory = loop_factory
        self._runner: Any = None  # asyncio's
        self._host: Host | None = None
        self._idle: IdleRunner | None = None
        self._request: Request | None = None
        self._busy = False
        self._owner = (os.getpid(), threading.get_ident())

    def is_ours(self) -> bool:
        return self._owner == (os.getpid(), threading.get_ident())

    def is_own(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._runner is not None and self._runner.get_loop() is loop

    def run(self, awaitable: Any) -> Any:
        if self._busy:
            if hasattr(awaitable, "close"):
                awaitable.close()
            raise RuntimeError(_messages.RUNNER_BUSY)
        self._busy = True
        try:
            return lend_context(functools.partial(self._run, awaitable))
        finally:
            self._busy = False

    def _run(self, awaitable: Any, context: contextvars.Context) -> Any:
        loop, host, idle = self._open()
        idle.ends()
        request = _Request(awaitable, context, self._is_answered, generators.begun(awaitable))
        self._request = request
        host.deliver(request)
        helper = own_pool.Helper(loop, host) if own_pool.is_in_pool() else None
        try:
            with _Interrupts(request, loop) as interrupts:
                loop.run_forever()
            if not request.is_answered:
                raise RuntimeError("Event loop stopped before Future completed.")
        finally:
            self._request = None
            if helper is not None:
                helper.end()
            if not request.is_answered:
                request.interrupt()  # when the loop runs next
                request.leave_context()
            idle.begins()
        error, result = request.error, request.result
        if error is None:
            return result
        try:
            if interrupts.count and isinstance(error, asyncio.CancelledError):
                raise KeyboardInterrupt from error
            raise error
        finally:
            del error, request  # they are in the frames of the error's traceback

    def _is_answered(self) -> None:
        request = self._request
        if request is not None and request.is_answered and self._host is not None:
            loop = self._host.loop
            if getattr(loop, "_ready", True):
                # As by `run_until_complete`, tasks that were just made begin: what a client's first task
                # waits for by then tells `IdleRunner` who uses it elsewhere.
                loop.call_soon(self._stop, request)
            else:
                loop.stop()

    def _stop(self, request: Request) -> None:
        if self._request is request and self._host is not None:  # not left behind by an exception
            self._host.loop.stop()

    def _open(self) -> tuple[asyncio.AbstractEventLoop, Host, IdleRunner]:
        if self._runner is None or self._host is None or self._idle is None:
            self._runner = self._make_runner()
            loop = self._runner.get_loop()
            self._host = Host(loop, "fiberback.await_() without a loop")
            self._idle = IdleRunner(loop)
            _open_loops[id(loop)] = (loop, self._host)
        return self._host.loop, self._host, self._idle

    def _make_runner(self) -> Any:
        return asyncio.Runner(debug=self._debug, loop_factory=self._new_loop)

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        # Given a factory, the Runner leaves the thread's current event loop (that of
        # `asyncio.get_event_loop`) as it is.
        loop = (self._loop_factory or asyncio.new_event_loop)()
        loop.set_task_factory(create_task_factory(loop.get_task_factory()))
        return loop

    def close(self) -> None:
        if self._busy:
            raise RuntimeError(_messages.RUNNER_CLOSE)
        runner, self._runner = self._runner, None
        host, self._host = self._host, None
        idle, self._idle = self._idle, None
        if runner is None or host is None or idle is None or not self.is_ours():
            return
        idle.ends()
        loop = runner.get_loop()
        self._busy = True
        try:
            if not loop.is_closed():
                host.finish()
                loop.run_until_complete(_settle(host))
            runner.close()
        finally:
            self._busy = False
            if loop.is_closed():
                _open_loops.pop(id(loop), None)


async def _settle(host: Host) -> None:
    """The host's end, and that of the async generators that were dropped since the loop last ran:
    the loop has been told of these, and would cancel that before it has begun."""
    if host.task is not None:
        await asyncio.wait([host.task])
    # Closing one may drop the next, of which the loop is told then. It has not come to that yet where the
    # first is closed without a wait: so it is looked twice.
    looks = 0
    while looks < 2:
        await asyncio.sleep(0)
        closing = [task for task in asyncio.all_tasks() if _closes_generator(task)]
        looks = 0 if closing else looks + 1
        if closing:
            await asyncio.wait(closing)
            closing.clear()  # and with them the generators that they have kept


def _closes_generator(task: asyncio.Task[Any]) -> bool:
    coro: Any = task.get_coro()
    return type(getattr(coro, "wrapped", coro)) is generators.CLOSING


# Those that `signal` itself uses: its own make enumerations of numbers, which takes longer than a wait.
_signals: Any = sys.modules["_signal"]
_signal, _getsignal = _signals.signal, _signals.getsignal


class _Interrupts:
    """Ctrl-C while `request` is being awaited, as `asyncio.Runner` has it: the first one cancels it,
    the second one is raised at once. In the main thread, unless somebody else handles the signal."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._loop = loop
        self._is_handled = False
        self.count = 0

    def __enter__(self) -> _Interrupts:
        if (
            threading.current_thread() is threading.main_thread()
            and _getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            try:
                _signal(signal.SIGINT, self._handle)
                self._is_handled = True
            except ValueError:  # not the main interpreter's main thread
                pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_handled and _getsignal(signal.SIGINT) == self._handle:
            _signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1 and not self._request.is_answered:
            self._request.interrupt()
            self._loop.call_soon_threadsafe(lambda: None)  # it may be waiting for something to do
            return
        raise KeyboardInterrupt


class _Mine(threading.local):
    """The runners of one thread: the innermost `thread_runner` block's is the last."""

    stack: tuple[Any, ...] = ()  # of ThreadRunner, or what stands in its place
    at_end: AtThreadEnd | None = None


_mine = _Mine()


def _close_quietly(runner: ThreadRunner) -> None:
    """Nobody is there to catch anything: report it as Python reports exceptions in destructors."""
    try:
        runner.close()
    except BaseException as error:
        report: Any = _Unraisable(error, runner)
        sys.unraisablehook(report)


class _Unraisable:
    """What `sys.unraisablehook` takes; its own class cannot be instantiated."""

    def __init__(self, error: BaseException, runner: ThreadRunner) -> None:
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = error.__traceback__
        self.err_msg = _messages.RUNNER_END
        self.object = runner


def _innermost() -> Any:
    if _mine.stack:
        runner = _mine.stack[-1]
        if runner.is_ours():
            return runner
        _mine.stack = ()  # a forked child: see `_after_fork`
    runner = ThreadRunner()
    _mine.stack = (runner,)
    if threading.current_thread() is not threading.main_thread():
        _mine.at_end = AtThreadEnd(functools.partial(_close_quietly, runner))
    return runner


def run_here(awaitable: Any) -> Any:
    return _innermost().run(awaitable)


def is_own(loop: asyncio.AbstractEventLoop) -> bool:
    return any(runner.is_own(loop) for runner in _mine.stack)


@block
def thread_runner(
    *, debug: bool | None = None, loop_factory: LoopFactory | None = None
) -> Iterator[None]:
    """A `with` block in which `await_` outside every event loop uses a runner of the block's own.

    Without it, the first such `await_` in a thread makes a runner that stays until the thread ends.
    The block's is made on first use, with `debug` and `loop_factory` as `asyncio.Runner` takes them
    (`loop_factory=uvloop.new_event_loop`), and closed at the block's end: tasks left on it are
    cancelled, async generators and the default executor shut down. All that is awaited in the block
    runs in one task, and in the thread's own context. The runner runs only while its thread waits in
    `await_`: background tasks, timers and sockets of its loop wait until the next time, and for ever if
    what waits for them runs on another event loop of the thread. Blocks nest, and hold for the
    thread that enters them. Raises RuntimeError when left from inside the runner's own loop.
    """
    runner = ThreadRunner(debug, loop_factory)
    generators.note()
    outer = _mine.stack
    _mine.stack = (*outer, runner)
    try:
        yield
    finally:
        _mine.stack = outer
        runner.close()


class _LentLoop:
    """In the place of an `asyncio.Runner`, for a loop of somebody else's: who has made it closes it."""

    def __init__(self, make: LoopFactory) -> None:
        self._loop = make()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def close(self) -> None:
        """Leave it as it is."""


class _LoopOfOthers(ThreadRunner):
    def _make_runner(self) -> Any:
        assert self._loop_factory is not None
        return _LentLoop(self._loop_factory)


class _RunOfOthers:
    """In the place of a `ThreadRunner`: somebody else's function that runs awaitables to their end."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self.run = run
        self._owner = (os.getpid(), threading.get_ident())

    def is_ours(self) -> bool:
        return self._owner == (os.getpid(), threading.get_ident())

    def is_own(self, loop: asyncio.AbstractEventLoop) -> bool:
        return False

    def close(self) -> None:
        """Leave it as it is."""


def lent_loop(loop_of: LoopFactory) -> AbstractContextManager[None]:
    """A block in which `await_` outside every event loop runs on the one that `loop_of` returns, which others
    run, too, and which stays. For the thread that enters it; blocks may end in any order."""
    return _as_runner(_LoopOfOthers(loop_factory=loop_of))


def lent_run(run: Callable[[Any], Any]) -> AbstractContextManager[None]:
    """The same, with `run` for what is awaited."""
    return _as_runner(_RunOfOthers(run))


@contextlib.contextmanager
def _as_runner(runner: Any) -> Iterator[None]:
    _mine.stack = (*_mine.stack, runner)
    try:
        yield
    finally:
        _mine.stack = tuple(each for each in _mine.stack if each is not runner)
        runner.close()


def close_thread_runner() -> None:
    """Close the runner that `await_` has made for this thread, now instead of at the thread's end.

    Tasks left on it are cancelled, async generators and the default executor shut down. Does nothing
    if there is none; a later `await_` makes a new one. Raises RuntimeError inside the runner's own
    loop.
    """
    if _mine.stack:
        _mine.stack[-1].close()


def _at_exit() -> None:
    # What belongs to a runner is ended by closing it, which what ends everything must not forestall.
    behind = (closing.end_at_exit, close_all) if _mine.stack else ()
    after_all_handlers(_at_exit, _close_all_runners, behind)


def _close_all_runners() -> None:
    while _mine.stack:
        runner = _mine.stack[-1]
        _mine.stack = _mine.stack[:-1]
        if runner.is_ours():
            _close_quietly(runner)


def _after_fork() -> None:
    for loop_and_host in _open_loops.values():
        leak(loop_and_host)
    _open_loops.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
