"""`with_portal_run_sync`'s function call in the shape of a coroutine, and the portals it makes."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import functools
import gc
import inspect
import io
import sys
import warnings
import weakref

import pytest
from support import only_fiberback

pytestmark = only_fiberback


@pytest.fixture
def call(fb):
    """A call, not begun, and not in a portal."""

    def make(function, *args, **kwds):
        return fb._fiberback.scoped_call(function, args, kwds).wrapped

    return make


async def natively(function, *args, **kwds):
    return function(*args, **kwds)


def both(call):
    """The same made into a call and into a coroutine, to compare."""
    return call, natively


def raises(error):
    raise error


def outcome(function, *args):
    try:
        return ("returned", function(*args))
    except StopIteration as stop:
        return (StopIteration, stop.args)
    except BaseException as error:
        return (type(error), str(error))


# -- as a coroutine ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        ["send"],
        ["send", "send"],
        ["send", "close", "send"],
        ["close", "send"],
        ["close", "close"],
        ["close", "throw"],
        ["throw"],
        ["throw", "send"],
        ["throw", "throw"],
        ["send", "throw"],
        ["send something", "send"],
        ["throw StopIteration", "send"],
        ["throw GeneratorExit", "close"],
        ["throw a class"],
        ["throw rubbish", "send"],
        ["throw nothing"],
    ],
    ids=", ".join,
)
@pytest.mark.parametrize(
    "ends", [3, None, KeyError("x"), StopIteration(4), GeneratorExit(5)], ids=repr
)
def test_steps_are_those_of_a_coroutine(call, steps, ends):
    def function():
        if isinstance(ends, BaseException):
            raise ends
        return ends

    def step(coro, name):
        if name == "send":
            return outcome(coro.send, None)
        if name == "send something":
            return outcome(coro.send, 1)
        if name == "close":
            return outcome(coro.close)
        thrown = {
            "throw": [ValueError("thrown")],
            "throw StopIteration": [StopIteration(1)],
            "throw GeneratorExit": [GeneratorExit()],
            "throw a class": [ValueError],
            "throw rubbish": [3],
            "throw nothing": [],
        }
        return outcome(coro.throw, *thrown[name])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (make(function) for make in both(call))
        for name in steps:
            mine, theirs = step(one, name), step(other, name)
            if name == "throw nothing":  # the words of argument errors are our own
                assert mine[0] is theirs[0] is TypeError
            else:
                assert mine == theirs, name
        other.close()


def test_stop_iteration_becomes_a_runtime_error(fb, call):
    stop = StopIteration("out")
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as info:
        call(raises, stop).send(None)
    assert info.value.__cause__ is stop and info.value.__context__ is stop

    async def main():
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as info:
            await fb.with_portal_run_sync(raises, stop)
        assert info.value.__cause__ is stop

        def later():
            fb.await_(asyncio.sleep(0))
            raise StopIteration(1)

        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            await fb.with_portal_run_sync(later)
        return fb.has_portal()

    assert asyncio.run(main()) is False


def test_arguments(fb, call):
    def function(*args, **kwds):
        return args, kwds

    for args, kwds in [((), {}), ((1, 2), {}), ((), {"a": 1}), ((1,), {"a": 2})]:
        with pytest.raises(StopIteration) as info:
            call(function, *args, **kwds).send(None)
        assert info.value.value == (args, kwds)
    for bad in [(), (int,), (int, [], {}), (int, (), []), (int, (), {}, 1)]:
        with pytest.raises(TypeError):
            fb._fiberback.scoped_call(*bad)
    with pytest.raises(TypeError, match="not callable"):
        call(3).send(None)
    with pytest.raises(TypeError):
        type(call(int))()


def test_close_and_throw_before_it_begins(fb):
    called = []
    for end in (
        lambda p: p.close(),
        lambda p: pytest.raises(KeyError, p.throw, KeyError("x")),
    ):
        portal = fb._fiberback.scoped_call(called.append, (1,), {})
        end(portal)
        with pytest.raises(RuntimeError, match="already awaited"):
            portal.send(None)
        assert called == []


def test_what_it_needs_is_dropped_when_it_ends(call):
    class Thing:
        pass

    for end in ("send", "close", "throw", "del"):
        thing = Thing()
        known = weakref.ref(thing)
        one = call(lambda *args, **kwds: None, thing, also=thing)
        del thing
        assert known() is not None
        if end == "del":
            del one
        else:
            arguments = {"send": [None], "close": [], "throw": [KeyError]}[end]
            with contextlib.suppress(StopIteration, KeyError):
                getattr(one, end)(*arguments)
        assert known() is None, end


def test_nothing_warns_that_it_was_never_awaited(fb):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fb._fiberback.scoped_call(int, (), {})
        gc.collect()


def test_closing_a_portal_of_one_that_has_ended_or_not_begun(fb):
    native = fb._fiberback
    task = FakeTask()
    for steps in (0, 1):
        portal = native.scope(native.scoped_call(int, (), {}), task)
        if steps:
            end(portal)
        assert portal.close() is None
        assert portal.close() is None
        assert native.scoped_portal(task) is None
        with pytest.raises(RuntimeError, match="already awaited"):
            portal.throw(KeyError)


def test_awaiting_it_twice(fb):
    async def main():
        portal = fb._fiberback.scoped_call(int, ("3",), {})
        assert await portal == 3
        with pytest.raises(RuntimeError, match="already awaited"):
            await portal
        return True

    assert asyncio.run(main())


def test_stepping_it_from_inside_itself(fb, call):
    errors = []

    def again():
        for step in (lambda: one.send(None), one.close, lambda: one.throw(KeyError)):
            with pytest.raises(ValueError, match="already executing"):
                step()
            errors.append(one.cr_running)
        return one.cr_running

    one = call(again)
    with pytest.raises(StopIteration) as info:
        one.send(None)
    assert info.value.value is True and errors == [True] * 3
    assert one.cr_running is False


# -- what tools see ---------------------------------------------------------------------------


def test_attributes(fb, call):
    def function():
        """A function."""

    one = call(function)
    assert one.__name__ == "function"
    assert one.__qualname__ == function.__qualname__
    assert one.cr_code is function.__code__
    assert one.cr_await is one.cr_frame is one.cr_origin is None
    assert one.cr_running is one.cr_suspended is False
    one.close()
    assert isinstance(one.__name__, str) and isinstance(one.__qualname__, str)
    assert one.cr_code is None or one.cr_code is function.__code__
    for odd in (
        functools.partial(int),
        int,
        [].append,
        type("C", (), {"__call__": int})(),
    ):
        one = call(odd)
        assert isinstance(one.__name__, str) and isinstance(one.__qualname__, str)
        assert one.cr_code is None


def test_a_portal_around_it_is_a_coroutine_to_tools(fb):
    async def main():
        portal = fb._fiberback.scoped_call(int, (), {})
        assert asyncio.iscoroutine(portal) and inspect.isawaitable(portal)
        assert isinstance(portal, collections.abc.Coroutine)
        assert inspect.getcoroutinestate(portal) in ("CORO_CREATED", "CORO_CLOSED")
        task = asyncio.create_task(portal)
        repr(task)
        task.get_stack()
        assert await task == 0
        repr(task)
        return inspect.getcoroutinestate(portal)

    assert asyncio.run(main()) == "CORO_CLOSED"


def test_what_a_suspended_one_shows(fb):
    seen = []

    def sync():
        fb.await_(asyncio.sleep(0.01))

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        await asyncio.sleep(0)
        coro = task.get_coro()
        for _ in range(10):
            if coro is None:
                break
            seen.append(coro)
            coro = getattr(coro, "cr_await", None)
        portal = next(each for each in seen if isinstance(each, fb._fiberback.Portal))
        assert portal.cr_suspended and not portal.cr_running and portal.in_await
        assert inspect.getcoroutinestate(portal) == "CORO_SUSPENDED"
        assert portal.wrapped.cr_running
        repr(task)
        task.get_stack()
        task.print_stack(file=io.StringIO())
        if sys.version_info >= (3, 14):
            asyncio.capture_call_graph(task)
        await task
        del task
        return True

    assert asyncio.run(main())


# -- lifetime ---------------------------------------------------------------------------------


def test_cycles_are_collected(fb):
    class Thing:
        def method(self, *args):
            pass

    known = []
    for begin in (False, True):
        for _ in range(20):
            thing = Thing()
            portal = fb._fiberback.scoped_call(thing.method, (thing,), {"thing": thing})
            thing.portal = portal
            thing.call = portal.wrapped
            known.append(weakref.ref(thing))
            if begin:
                with pytest.raises((StopIteration, TypeError)):
                    portal.send(None)
    del thing, portal
    gc.collect()
    assert [ref() for ref in known] == [None] * len(known)


def test_a_suspended_call_that_nobody_can_wake_is_collected(fb):
    ended = []

    class Thing:
        pass

    def sync(thing):
        thing.me = thing
        try:
            fb.await_(thing.future)
        except GeneratorExit:
            ended.append("exit")
            raise
        finally:
            ended.append("finally")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)  # "destroyed but it is pending"
        things = []
        for _ in range(5):
            thing = Thing()
            thing.future = loop.create_future()
            thing.task = asyncio.create_task(fb.with_portal_run_sync(sync, thing))
            things.append(weakref.ref(thing))
            del thing
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ended == []
        gc.collect()
        gc.collect()
        return [ref() for ref in things]

    assert asyncio.run(main()) == [None] * 5
    assert ended == ["exit", "finally"] * 5


def test_a_dropped_call_ends(fb):
    ended = []

    def sync():
        try:
            fb.await_(asyncio.sleep(1000))
        finally:
            ended.append("finally")

    async def main():
        portal = fb._fiberback.scoped_call(sync, (), {})
        portal.send(None)
        assert fb._fiberback.scoped_portal(asyncio.current_task()) is portal
        del portal
        assert ended == ["finally"]
        assert fb._fiberback.scoped_portal(asyncio.current_task()) is None
        portal = fb._fiberback.scoped_call(sync, (), {})
        portal.send(None)
        portal.close()
        assert ended == ["finally"] * 2
        return fb.has_portal()

    assert asyncio.run(main()) is False


# -- portals of a call in a task --------------------------------------------------------------


class FakeTask:
    """Something that can be at the same address as another one before it."""


def reincarnation(fb):
    """A portal of a task that is no more, and a task at its address."""
    for _ in range(1000):
        task = FakeTask()
        address = id(task)
        portal = fb._fiberback.Portal(nothing())
        fb._fiberback.scope(portal, task)
        del task
        task = FakeTask()
        if id(task) == address:
            return portal, task
        portal.close()
    raise AssertionError("no memory was used again")


async def nothing():
    pass


def end(portal):
    with pytest.raises(StopIteration):
        portal.send(None)


def test_an_entry_of_a_dead_task_is_not_a_later_ones(fb):
    native = fb._fiberback
    stale, later = reincarnation(fb)
    assert native.scoped_portal(later) is None
    # Its own are found in front of it, nested ones too, in whatever order they go.
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        portals = [native.scope(native.Portal(nothing()), later) for _ in range(3)]
        left = list(portals)
        for gone in order:
            assert native.scoped_portal(later) is left[-1]
            end(portals[gone])
            left.remove(portals[gone])
        assert native.scoped_portal(later) is None
    end(stale)
    assert native.scoped_portal(later) is None


def test_a_stale_entry_that_goes_while_a_later_task_has_one(fb):
    native = fb._fiberback
    stale, later = reincarnation(fb)
    mine = native.Portal(nothing())
    native.scope(mine, later)
    stale.close()
    del stale
    gc.collect()
    assert native.scoped_portal(later) is mine
    end(mine)
    assert native.scoped_portal(later) is None


def test_what_cannot_be_a_task(fb):
    native = fb._fiberback
    portal = native.Portal(nothing())
    with pytest.raises(TypeError, match="weak reference"):
        native.scope(portal, 3)
    assert native.scoped_portal(3) is None
    assert native.scope(portal, None) is portal
    for bad in [(), (portal,), (3, FakeTask()), (portal, 1, 2)]:
        with pytest.raises(TypeError):
            native.scope(*bad)
    portal.close()


def test_many_calls_in_one_task_leave_nothing(fb):
    def deep(n):
        fb.await_(asyncio.sleep(0))
        return n

    async def nested(n):
        return await fb.with_portal_run_sync(deep, n) + (await nested(n - 1) if n else 0)

    async def main():
        me = asyncio.current_task()
        for _ in range(20):
            assert await nested(5) == 15
            assert fb._fiberback.scoped_portal(me) is None
        with pytest.raises(KeyError):
            await fb.with_portal_run_sync(raises, KeyError("x"))
        assert fb._fiberback.scoped_portal(me) is None and not fb.has_portal()
        return True

    assert asyncio.run(main())
