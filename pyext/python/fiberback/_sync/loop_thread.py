"""`LoopThread`: an event loop in a thread of its own, and what sync code anywhere does with it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from asyncio import _get_running_loop
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from types import TracebackType
from typing import Any, TypeVar, cast

from .. import _messages
from .._await.wrappers import (
    async_context,
    async_generator_iter,
    async_iter,
    not_a_context_manager,
)
from .._fiberback import await_, leak
from .._portal.call_portal import as_coroutine
from .._run.run import run
from .._thread.channel import Channel
from . import caller

T = TypeVar("T")
Self = TypeVar("Self", bound="LoopThread")


class LoopThread:
    """An event loop that runs in a thread of its own, for sync code that has none to wait on::

        with fiberback.threads.LoopThread() as loop_thread:
            client = loop_thread.enter_context(httpx.AsyncClient())
            page = loop_thread.run(client.get(url))

    The thread (a daemon) and the loop start with the block, or with the first use, and end with the block
    or by `close()`: tasks left on the loop are cancelled, async generators and its executor shut down, as
    by `asyncio.run`. `debug` and `loop_factory` (`uvloop.new_event_loop`) are `asyncio.Runner`'s. Its
    tasks have portals, as under `fiberback.run`.

    All methods may be called in any thread, also where another event loop runs: there the caller is
    suspended by `await_` where that can be, and its loop goes on; else its thread is blocked. Called
    in the thread's own loop, they suspend the caller, too. A forked child of the process gets a thread of its
    own, with its first use.

    Raises RuntimeError when used after it was closed, or closed in its own thread.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        name: str = "fiberback.LoopThread",
    ) -> None:
        self._debug = debug
        self._loop_factory = loop_factory
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._entered = ExitStack()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Future[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "idle" if self._loop is None else "running"
        return f"<fiberback.threads.LoopThread {self._name!r} {state}>"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, which runs from now on."""
        if self._process != os.getpid():  # what the parent process had is not here
            leak((self._loop, self._end, self._entered))
            self._begin()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(_messages.LOOP_THREAD_CLOSED.format(name=self._name))
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name=self._name, daemon=True
        )
        self._thread.start()
        try:
            return started.result()
        except BaseException:  # it failed, or Ctrl-C: then it ends as soon as it has begun
            started.add_done_callback(self._abandon)
            raise

    def _abandon(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        if started.exception() is None:
            started.result().call_soon_threadsafe(self._finish)

    def _run(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        """In the thread."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            self._end = loop.create_future()
            started.set_result(loop)
            await self._end

        coro = main()
        try:
            run(coro, debug=self._debug, loop_factory=self._loop_factory)
        except BaseException as error:
            if started.done():
                raise
            coro.close()
            started.set_exception(error)

    def __enter__(self: Self) -> Self:
        self.loop  # noqa: B018
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._process != os.getpid():
            return False
        try:
            return bool(self._entered.__exit__(kind, error, traceback))
        finally:
            self._stop()

    def close(self) -> None:
        """Leave what `enter_context` has entered, end the loop and the thread, and wait for that. Does
        nothing if they never ran or are closed."""
        self.__exit__(None, None, None)

    def _stop(self) -> None:
        thread = self._thread
        if thread is threading.current_thread():
            raise RuntimeError(_messages.LOOP_THREAD_OWN.format(name=self._name))
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if thread is None or self._loop is None:
            return
        if not was_closed:
            self._loop.call_soon_threadsafe(self._finish)
        thread.join()

    def _finish(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run any awaitable on the loop, and wait for its result.

        All that one task runs so, or one thread outside of tasks, runs in one task there and in the caller's
        context: a task group or a timeout that one call enters may be left by the next. Cancelling the
        caller's task, where that can be, cancels the awaitable, as does Ctrl-C; both are raised when it
        has ended.
        """
        loop = self._loop_for(awaitable)
        if _get_running_loop() is loop:
            return await_(awaitable)
        result: T = caller.wait(loop, awaitable)
        return result

    def submit(self, awaitable: Awaitable[T]) -> concurrent.futures.Future[T]:
        """Start any awaitable as a task of the loop, in a copy of the current context; cancelling the
        future cancels it."""
        loop = self._loop_for(awaitable)
        return asyncio.run_coroutine_threadsafe(as_coroutine(awaitable), loop)

    def _loop_for(self, awaitable: Any) -> asyncio.AbstractEventLoop:
        try:
            return self.loop
        except BaseException:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()  # or it would warn that nobody awaited it
            raise

    def wrap_context(
        self, cm: AbstractAsyncContextManager[T] | Callable[[], AbstractAsyncContextManager[T]]
    ) -> async_context[T]:
        """An async context manager, or what makes one when called in the loop, for a plain `with`.

        Raises TypeError for what is neither.
        """
        manager: Any = cm
        if not hasattr(type(cm), "__aenter__"):
            if not callable(cm):
                raise TypeError(not_a_context_manager(type(cm)))
            manager = self.run(_call(cm))
        wrapped: _Context[Any] = _Context(manager)
        wrapped._await = self.run
        return wrapped

    def enter_context(
        self, cm: AbstractAsyncContextManager[T] | Callable[[], AbstractAsyncContextManager[T]]
    ) -> T:
        """Enter an async context manager (see `wrap_context`), which `close` leaves."""
        return self._entered.enter_context(self.wrap_context(cm))

    def wrap_iter(
        self, iterable: AsyncIterable[T] | Callable[[], AsyncIterable[T]]
    ) -> async_iter[T]:
        """An async iterable, or what makes one when called in the loop, for a plain `for`."""
        source: Any = iterable
        if not hasattr(type(iterable), "__aiter__") and callable(iterable):
            source = self.run(_call(iterable))
        wrapped: Any = _Iter.__new__(_Iter, source)
        wrapped._await = self.run
        return cast("async_iter[T]", wrapped)

    async def wrap_aiter(self, iterable: AsyncIterable[T]) -> AsyncIterator[T]:
        """An async iterable of the thread's loop, for `async for` in another loop (asyncio or Trio).

        It is iterated in one task there, one item at a time. Close it (`contextlib.aclosing`) if it is
        not exhausted.
        """
        channel = Channel(self.loop)
        try:
            iterator = aiter(iterable)
            try:
                while True:
                    try:
                        item = await caller.ask_by(channel, anext(iterator))
                    except StopAsyncIteration:
                        return
                    yield item
            finally:
                if hasattr(iterator, "aclose"):
                    await caller.ask_by(channel, iterator.aclose())
        finally:
            channel.close()


async def _call(function: Callable[[], T]) -> T:
    return function()


class _Context(async_context[T]):
    __slots__ = ("_await",)


class _Iter(async_iter[T]):
    __slots__ = ("_await",)

    @classmethod
    def _with_generator_methods(cls) -> type[async_iter[Any]]:
        return _GeneratorIter


class _GeneratorIter(_Iter[T], async_generator_iter[T]):
    __slots__ = ()
