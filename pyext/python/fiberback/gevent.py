"""Stands in for asyncio-gevent: greenlets of gevent's and tasks of asyncio's wait for each other in one thread.

The names are asyncio-gevent 0.2.5's, and `run` and `enable`. There are two ways to begin:

- asyncio is there first, as in `fiberback.gevent.run(main())`: the running loop drives gevent's hub. Each task runs
  in a greenlet of its own, so that `gevent.sleep()`, a lock or a queue of gevent's in it has that task wait, however
  deep in sync code, and neither the loop nor other greenlets stand still. `enable()` does that in a loop that runs
  already.
- gevent is there first (`gevent.monkey.patch_all()`): an `EventLoop` runs in a greenlet, and its tasks are greenlets
  in the same way.

It works with the greenlet package as with `fiberback.greenlet`. gevent's hub has to run on libev (as it does, where
nobody has asked for libuv) with a backend that can be waited for (epoll, kqueue). Each task has a portal, too. What runs without a task or
without a greenlet of its own, a loop's callback say, can wait for gevent too, one at a time. A `gevent.Timeout`
ends gevent's waits and what a task awaits, but not an `await_()`.
"""

# The package may be missing or untyped where the types are checked.
# mypy: disable-error-code="import-untyped,import-not-found,no-any-unimported,misc,no-any-return"
# mypy: warn-unused-ignores=False
# ruff: noqa: E402

from __future__ import annotations

from . import _extras

_extras.need(__name__, "gevent", "gevent")

import asyncio
import contextlib
import functools
import heapq
import sys
import time
import weakref
from asyncio import AbstractEventLoop, Future, _get_running_loop
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import gevent.event
import gevent.hub
import gevent.selectors
import greenlet as _greenlets
from gevent import Greenlet, GreenletExit, getcurrent

from . import _messages
from ._fiberback import await_, bestow, context_of

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "async_to_sync",
    "enable",
    "future_to_greenlet",
    "greenlet_to_future",
    "run",
    "sync_to_async",
]

_Raw: Any = _greenlets.greenlet
_switch, _throw = _Raw.switch, _Raw.throw

# What a task's greenlet tells the task; and what the hub says when it has nothing to do.
_YIELDED, _WAITS, _RETURNED, _RAISED = range(4)
_IDLE = object()


class Hub(gevent.hub.Hub):
    """gevent's hub, which a running event loop may drive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop: Any = _Loop(self.loop)

    def switch(self) -> Any:
        """Has the calling code wait until somebody switches to its greenlet."""
        current = getcurrent()
        if isinstance(current, _TaskGreenlet):
            return current.wait()
        if current.parent is None:
            event_loop = _get_running_loop()
            if event_loop is not None and not _is_on_gevent(event_loop):
                return _Drive.of(event_loop).wait()
        return super().switch()


class _Loop:
    """The hub's loop, which tells who drives the hub of what is to come."""

    def __init__(self, loop: Any, *, is_late: bool = False) -> None:
        self._loop = loop
        # It may have timers that nobody knows of: then it is looked at all the time.
        self._most = 0.02 if is_late else None
        self._due: list[float] = []
        self._repeated: weakref.WeakSet[Any] = weakref.WeakSet()
        self.drive: _Drive | None = None
        base: Any = type(loop.timer(0))

        def start(timer: Any, callback: Callable[..., Any], *args: Any, **named: Any) -> None:
            base.start(timer, callback, *args, **named)
            self.comes_in(timer.seconds)

        def again(timer: Any, callback: Callable[..., Any], *args: Any, **named: Any) -> None:
            base.again(timer, callback, *args, **named)
            self.comes_in(timer.interval)

        self._timer_class: Any = type("timer", (base,), {"start": start, "again": again})

    def __getattr__(self, name: str) -> Any:
        if self.drive is not None and name in _TO_COME:
            self.drive.soon()
        return getattr(self._loop, name)

    def timer(
        self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None
    ) -> Any:
        timer = self._timer_class(self._loop, after, repeat, ref, priority)
        timer.seconds, timer.interval = after, repeat
        if repeat:
            self._repeated.add(timer)
        return timer

    def comes_in(self, seconds: float) -> None:
        """There will be something to do after so many seconds."""
        # A little later than asked for, so that it is due by then.
        heapq.heappush(self._due, time.monotonic() + max(seconds, 0.0) + 1e-4)
        if self.drive is not None:
            self.drive.soon()

    def next_due(self, looked: float) -> float | None:
        """Seconds until there is something to do, if that is known; the hub has last begun to look at `looked`."""
        # What has come since then may not have been seen.
        while self._due and self._due[0] <= looked:
            heapq.heappop(self._due)
        dues = [timer.interval for timer in self._repeated if timer.active]
        if self._due:
            dues.append(max(self._due[0] - time.monotonic(), 0.0))
        if self._most is not None:
            dues.append(self._most)
        return min(dues, default=None)


# What of a loop's has it something to do soon.
_TO_COME = frozenset({"async_", "child", "io", "run_callback", "signal", "stat"})


def _adopt(hub: Any) -> Any:
    """Makes gevent's hub of the thread one of ours."""
    if type(hub) is gevent.hub.Hub:
        hub.__class__ = Hub
    if not isinstance(hub.loop, _Loop):
        hub.loop = _Loop(hub.loop, is_late=True)
    return hub


def _is_on_gevent(event_loop: AbstractEventLoop) -> bool:
    """Whether the loop's code, where it waits for files, lets gevent's hub go on."""
    selector = getattr(event_loop, "_selector", None)
    return isinstance(selector, gevent.selectors.GeventSelector)


class _Drive:
    """An event loop that drives the hub of its thread."""

    _drives: weakref.WeakKeyDictionary[AbstractEventLoop, _Drive] = weakref.WeakKeyDictionary()

    def __init__(self, event_loop: AbstractEventLoop) -> None:
        self._event_loop = weakref.ref(event_loop)
        self._hub = _adopt(gevent.get_hub())
        self._handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The greenlet that the loop runs in.
        self._driver: Any = getcurrent()
        while isinstance(self._driver, _TaskGreenlet):
            self._driver = self._driver.parent
        self._waiter: Future[Any] | None = None
        fd = self._hub.loop.fileno()
        if fd is None or fd < 0 or "libev" not in type(self._hub.loop._loop).__module__:
            raise RuntimeError(_messages.GEVENT_BACKEND)
        event_loop.add_reader(fd, self.soon)
        # It runs when the hub has found nothing else to do, of any priority, and has it not wait.
        self._idle = self._hub.loop.idle(priority=self._hub.loop.MINPRI)
        self._idle.start(self._give_back)
        self._hub.loop.drive = self
        self.soon()

    @classmethod
    def of(cls, event_loop: AbstractEventLoop) -> _Drive:
        """The one of a running loop."""
        drive = cls._drives.get(event_loop)
        if drive is None or drive._hub is not gevent.get_hub():
            drive = cls._drives[event_loop] = cls(event_loop)
        return drive

    def soon(self) -> None:
        """Has the hub go on soon."""
        event_loop = self._event_loop()
        if self._handle is None and event_loop is not None and not event_loop.is_closed():
            self._handle = event_loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Lets the hub go on until it has nothing to do."""
        self._handle = None
        self._driver = getcurrent()
        begun = time.monotonic()
        try:
            while True:
                try:
                    value = _switch(self._hub)
                except BaseException as error:
                    if not self._settle(Future.set_exception, error):
                        raise
                else:
                    if value is _IDLE:
                        break
                    self._settle(Future.set_result, value)
        finally:
            self._come_again(begun)

    def _settle(self, settle: Callable[[Future[Any], Any], None], value: Any) -> bool:
        """For what waits without a greenlet of its own: somebody has switched to the one that the loop is in."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return False
        settle(waiter, value)
        return True

    def _come_again(self, begun: float) -> None:
        event_loop, seconds = self._event_loop(), self._hub.loop.next_due(begun)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and event_loop is not None and not event_loop.is_closed():
            self._timer = event_loop.call_later(seconds, self._go_on)

    def _give_back(self) -> None:
        """In the hub: the loop goes on, in whichever of its callbacks somebody has switched to the hub."""
        event_loop = self._event_loop()
        if event_loop is not None and event_loop.is_running():
            _switch(self._driver, _IDLE)
        else:
            self.end()

    def end(self) -> None:
        """The hub goes on by itself from now on."""
        self._idle.stop()
        self._idle.close()
        if self._hub.loop.drive is self:
            self._hub.loop.drive = None
        event_loop = self._event_loop()
        if event_loop is not None:
            self._drives.pop(event_loop, None)
            for handle in (self._handle, self._timer):
                if handle is not None:
                    handle.cancel()
            if not event_loop.is_closed():
                event_loop.remove_reader(self._hub.loop.fileno())

    def wait(self) -> Any:
        """Waits for somebody to switch to the greenlet that the loop is in."""
        event_loop = self._event_loop()
        assert event_loop is not None  # it runs
        if self._waiter is not None:
            raise RuntimeError(_messages.GEVENT_SECOND_WAITER)
        self._waiter = waiter = event_loop.create_future()
        self.soon()
        try:
            return await_(waiter)
        finally:
            if self._waiter is waiter:
                self._waiter = None


class _Wait(Future[Any]):
    """What a task awaits while its greenlet waits for somebody to switch to it. Then the task makes its step at once.

    gevent relies on that: a queue's `get()`, once it was switched to, is the next to look at the queue.
    """

    _waker: tuple[Callable[[Any], Any], Any] | None = None

    def add_done_callback(self, fn: Callable[[Any], Any], /, *, context: Any = None) -> None:
        self._waker = fn, context

    def cancel(self, msg: Any = None) -> bool:
        was_cancelled = super().cancel(msg=msg)
        if was_cancelled and self._waker is not None:
            waker, context = self._waker
            self.get_loop().call_soon(waker, self, context=context)
        return was_cancelled

    def wake(self) -> None:
        """Has the task make its step, on top of the calling code."""
        if self._waker is None:
            return  # it is about to await it
        waker, context = self._waker
        event_loop = self.get_loop()
        current = asyncio.current_task(event_loop)
        if current is not None:
            _leave_task(event_loop, current)
        try:
            context.run(waker, self)
        finally:
            if current is not None:
                _enter_task(event_loop, current)
        if _is_on_gevent(event_loop):
            # It may have waited for less than there is by now.
            event_loop.call_soon_threadsafe(_nothing)


def _nothing() -> None:
    pass


class _TaskGreenlet(_Raw):  # type: ignore[valid-type]
    """What a task's coroutine runs in."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__(self._steps)
        self._coroutine = coroutine
        # Whether the task makes a step, in which this greenlet is running, or has switched elsewhere.
        self.is_stepping = False
        self.future: _Wait | None = None
        self.task: Any = None
        self.thrown: BaseException | None = None

    def _steps(self, method: Callable[[Any], Any], value: Any) -> tuple[int, Any]:
        while True:
            try:
                yielded = method(value)
            except StopIteration as end:
                return _RETURNED, end.value
            except BaseException as error:
                return _RAISED, error
            method, value = _switch(self.parent, (_YIELDED, yielded))

    def wait(self) -> Any:
        """In it: waits for somebody to switch here."""
        event_loop = asyncio.get_running_loop()
        future = self.new_future(event_loop)
        if not _is_on_gevent(event_loop):
            _Drive.of(event_loop).soon()
        return _switch(self.parent, (_WAITS, future))

    def new_future(self, event_loop: AbstractEventLoop) -> _Wait:
        self.future = _Wait(loop=event_loop)
        return self.future

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_stepping or self.dead:
            return super().switch(*args, **kwargs)
        positional = args[0] if len(args) == 1 else args
        value = kwargs if kwargs and not args else (args, kwargs) if kwargs else positional
        return self._tell(Future.set_result, value)

    def throw(self, typ: Any = GreenletExit, val: Any = None, tb: Any = None) -> Any:
        if self.is_stepping or self.dead:
            return super().throw(typ, val, tb)
        error = typ if isinstance(typ, BaseException) else val
        if not isinstance(error, BaseException):
            error = typ() if val is None else typ(*val) if isinstance(val, tuple) else typ(val)
        error = error.with_traceback(tb)
        if self.future is None:
            # The task awaits something: that is cancelled.
            self.thrown = error
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)
            return None
        return self._tell(Future.set_exception, error)

    def _tell(self, settle: Callable[[Future[Any], Any], None], value: Any) -> None:
        future = self.future
        if future is None:
            raise RuntimeError(_messages.GEVENT_AWAITS)
        if not future.done():  # else it was cancelled
            settle(future, value)
            future.wake()


class _InGreenlet(Coroutine[Any, Any, Any]):
    """A coroutine that runs in a greenlet of its own."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._greenlet: _TaskGreenlet | None = None
        self._waits: Any = None
        self.__name__ = getattr(coroutine, "__name__", type(coroutine).__name__)
        self.__qualname__ = getattr(coroutine, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        if self._waits is not None:
            return self._wait(self._waits.send, value)
        return self._step(_switch, self._coroutine.send, value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:  # type: ignore[override]
        error = typ if isinstance(typ, BaseException) else val if val is not None else typ()
        greenlet = self._greenlet
        if greenlet is not None and greenlet.thrown is not None:
            if isinstance(error, asyncio.CancelledError):
                greenlet.task.uncancel()
                error = greenlet.thrown
            greenlet.thrown = None
        if self._waits is not None:
            return self._wait(self._waits.throw, error)
        return self._step(_switch, self._coroutine.throw, error)

    def close(self) -> None:
        greenlet = self._greenlet
        if greenlet is None or greenlet.dead:
            self._coroutine.close()
            return
        if self._waits is not None:
            self._waits.close()
            self._waits = None
            answer = self._run(_throw, GeneratorExit)
            if answer is _IDLE or answer[0] in (_YIELDED, _WAITS):
                raise RuntimeError("coroutine ignored GeneratorExit")
        else:
            self._coroutine.close()
            self._run(_throw, GreenletExit)

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def _wait(self, method: Callable[[Any], Any], value: Any) -> Any:
        """Goes on with the wait for what switches to the greenlet."""
        try:
            return method(value)
        except StopIteration as end:
            self._waits = None
            return self._step(_switch, end.value)
        except BaseException as error:
            self._waits = None
            return self._step(_throw, error)

    def _step(self, switch: Any, *args: Any) -> Any:
        answer = self._run(switch, *args)
        greenlet = self._greenlet
        assert greenlet is not None
        if answer is _IDLE:
            # What the greenlet has switched to waits, and the hub has nothing to do.
            answer = _WAITS, greenlet.new_future(asyncio.get_running_loop())
        kind, value = answer
        if kind == _YIELDED:
            return value
        if kind == _WAITS:
            self._waits = value.__await__()
            return self._wait(self._waits.send, None)
        self._greenlet = None
        if kind == _RETURNED:
            raise StopIteration(value)
        raise value

    def _run(self, switch: Any, *args: Any) -> Any:
        greenlet = self._greenlet
        if greenlet is None:
            greenlet = self._greenlet = _TaskGreenlet(self._coroutine)
            greenlet.task = asyncio.current_task()
            if greenlet.task is not None:
                greenlet.gr_context = context_of(greenlet.task)
        current = getcurrent()
        if greenlet.parent is not current:
            greenlet.parent = current
        greenlet.future = None
        greenlet.is_stepping = True
        try:
            return switch(greenlet, *args)
        finally:
            greenlet.is_stepping = False


def _new_task(event_loop: AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
    """A task factory: each task runs in a greenlet of its own, and has a portal, on which `await_` waits."""
    task: asyncio.Task[Any] = asyncio.Task(_InGreenlet(coroutine), loop=event_loop, **named)
    with contextlib.suppress(RuntimeError, TypeError):  # an eager one has begun, or ended
        bestow(task)
    return task


def enable() -> None:
    """Have the running event loop drive gevent's hub, and run each task that begins from now on in a greenlet.

    Raises RuntimeError if no loop runs, or if gevent's hub cannot be driven: it is on libuv, or on a backend
    without a file.
    """
    event_loop = asyncio.get_running_loop()
    if not _is_on_gevent(event_loop):
        _Drive.of(event_loop)
    if event_loop.get_task_factory() is None:
        event_loop.set_task_factory(_new_task)


def run(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
    """`asyncio.run(main)`, in a loop that drives gevent's hub, each task in a greenlet of its own."""

    async def prepared() -> Any:
        enable()
        return await asyncio.ensure_future(main)

    return asyncio.run(prepared(), debug=debug)


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop that runs in a greenlet of gevent's, each of its tasks in one of its own."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__(selector or gevent.selectors.DefaultSelector())
        self.set_task_factory(_new_task)

    def run_forever(self) -> None:
        forever = super().run_forever

        def until_stopped() -> BaseException | None:
            try:
                forever()
            except BaseException as error:
                return error
            return None

        _adopt(gevent.get_hub())
        error = gevent.spawn(until_stopped).get()
        if error is not None:
            raise error


# Without the warning of 3.14, for those who do not ask for policies.
_loops: Any = sys.modules[asyncio.SelectorEventLoop.__module__]
_Policy: Any = getattr(_loops, "_DefaultEventLoopPolicy", None) or asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(_Policy):
    """The default policy, but its loops are `EventLoop`s."""

    _loop_factory = EventLoop


def greenlet_to_future(
    greenlet: Greenlet,
    autocancel_future: bool = True,
    autostart_greenlet: bool = True,
    autokill_greenlet: bool = True,
) -> Future[Any]:
    """A future of what a greenlet returns or raises.

    The greenlet is started, if it is not, unless `autostart_greenlet` is false. If it is killed, the future is
    cancelled, or has the GreenletExit as its result if `autocancel_future` is false. If the future is cancelled,
    the greenlet is killed, unless `autokill_greenlet` is false.
    """
    return asyncio.ensure_future(
        _wait_for_greenlet(greenlet, autocancel_future, autostart_greenlet, autokill_greenlet)
    )


async def _wait_for_greenlet(
    greenlet: Greenlet, autocancel: bool, autostart: bool, autokill: bool
) -> Any:
    event_loop = asyncio.get_running_loop()
    if not _is_on_gevent(event_loop):
        _Drive.of(event_loop)
    if autostart and not greenlet and not greenlet.dead:
        greenlet.start()
    ended = event_loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    greenlet.link(lambda _: event_loop.call_soon_threadsafe(settle))
    try:
        await ended
    except asyncio.CancelledError:
        if autokill:
            greenlet.kill(block=False)
        raise
    result = greenlet.get(block=False)
    if autocancel and isinstance(result, GreenletExit):
        raise asyncio.CancelledError
    return result


def sync_to_async(
    fn: Callable[..., Any] | None = None,
    autocancel_future: bool = True,
    autostart_greenlet: bool = True,
    autokill_greenlet: bool = True,
) -> Any:
    """An async function that calls `fn` in a greenlet of gevent's. Also a decorator with arguments."""
    named: dict[str, Any] = {
        "autocancel_future": autocancel_future,
        "autostart_greenlet": autostart_greenlet,
        "autokill_greenlet": autokill_greenlet,
    }
    if fn is None:
        return functools.partial(sync_to_async, **named)

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await greenlet_to_future(Greenlet(fn, *args, **kwargs), **named)

    return call


def future_to_greenlet(
    future: Awaitable[Any],
    loop: AbstractEventLoop | None = None,
    autostart_future: bool = True,
    autocancel_future: bool = True,
    autokill_greenlet: bool = True,
) -> Greenlet:
    """A greenlet of gevent's, not started, that returns or raises what a future (or coroutine) does.

    A coroutine runs in `loop`, in the running loop, or in an `EventLoop` made for it. If the greenlet is killed, the
    future is cancelled, unless `autocancel_future` is false. If the future is cancelled, the greenlet ends with a
    GreenletExit, or with CancelledError if `autokill_greenlet` is false. With `autostart_future` false, `future` must
    be a future.
    """

    def wait() -> Any:
        try:
            return _result_of(future, loop)
        except asyncio.CancelledError:
            if autokill_greenlet:
                raise GreenletExit from None
            raise
        except GreenletExit:
            if autocancel_future:
                _cancel(future)
            raise

    if not autostart_future and not asyncio.isfuture(future):
        raise TypeError(_messages.GEVENT_NO_FUTURE)
    greenlet = Greenlet(wait)
    if autocancel_future:
        # One that is killed before it begins.
        greenlet.link_value(lambda it: _cancel(future, isinstance(it.value, GreenletExit)))
    return greenlet


def _cancel(future: Any, is_killed: bool = True) -> None:
    if not is_killed:
        return
    if asyncio.isfuture(future):
        if not future.done():
            future.get_loop().call_soon_threadsafe(future.cancel)
    elif asyncio.iscoroutine(future):
        future.close()


def _result_of(awaitable: Awaitable[Any], loop: AbstractEventLoop | None) -> Any:
    """Waits in a greenlet of gevent's."""
    if loop is None:
        loop = awaitable.get_loop() if isinstance(awaitable, Future) else _get_running_loop()
    if loop is None or not loop.is_running():
        event_loop = EventLoop() if loop is None else loop
        try:
            return event_loop.run_until_complete(awaitable)
        finally:
            if loop is None:
                event_loop.close()
    if not _is_on_gevent(loop):
        _Drive.of(loop)
    future = asyncio.ensure_future(awaitable, loop=loop)
    ended = gevent.event.Event()
    future.add_done_callback(lambda _: ended.set())
    loop.call_soon_threadsafe(_nothing)  # it may wait by now
    try:
        ended.wait()
    except GreenletExit:
        _cancel(future)
        raise
    return future.result()


def async_to_sync(
    coroutine: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    autostart_future: bool = True,
    autocancel_future: bool = True,
    autokill_greenlet: bool = True,
) -> Any:
    """A function that runs an async function and has the calling greenlet wait. Also a decorator with arguments."""
    named: dict[str, Any] = {
        "autostart_future": autostart_future,
        "autocancel_future": autocancel_future,
        "autokill_greenlet": autokill_greenlet,
    }
    if coroutine is None:
        return functools.partial(async_to_sync, **named)

    @functools.wraps(coroutine)
    def call(*args: Any, **kwargs: Any) -> Any:
        greenlet = future_to_greenlet(coroutine(*args, **kwargs), **named)
        greenlet.start()
        return greenlet.get()

    return call


gevent.hub.set_default_hub_class(Hub)
