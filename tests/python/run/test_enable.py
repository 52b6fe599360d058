"""`enable` and `run` inside a running loop: scoped, reversible, with tasks in flight."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


async def value_later(value, delay=0.0):
    await asyncio.sleep(delay)
    return value


async def has_portal(fb):
    return fb.has_portal()


def attributes(loop):
    return {name: value for name, value in vars(loop).items() if name != "_scheduled"}


def test_every_attribute_is_as_before(fb):
    loop = asyncio.new_event_loop()

    def factory(loop, coro, **kwds):
        if kwds.get("name", "") is None:
            del kwds["name"]
        return asyncio.Task(coro, loop=loop, **kwds)

    for inner in (None, factory):
        loop.set_task_factory(inner)
        before, on_class = attributes(loop), dict(vars(asyncio.BaseEventLoop))
        with fb.enable(loop):
            assert loop.get_task_factory() is inner
            assert loop.run_until_complete(has_portal(fb))
        assert attributes(loop) == before
        with fb.enable():
            assert loop.run_until_complete(value_later(1)) == 1
        assert attributes(loop) == before
        assert dict(vars(asyncio.BaseEventLoop)) == on_class
    loop.close()


def test_tasks_in_flight_at_both_ends(fb):
    loop = asyncio.new_event_loop()
    gate, log = loop.create_future(), []

    async def native(n):
        await asyncio.sleep(0)
        log.append((n, await gate))

    async def parked(n):
        await asyncio.sleep(0)
        log.append((n, fb.await_(gate)))

    async def first():
        fb.await_(asyncio.sleep(0.001))  # takes the host, so that the others park on fibers

    def start(k):
        coros = [native(k), parked(k + 1)]
        return [loop.create_task(coro) for coro in coros], coros

    before = attributes(loop)
    main = loop.create_task(first())
    early, early_coros = start(0)
    loop.run_until_complete(main)
    enabled = fb.enable(loop)
    late, _ = start(2)
    loop.call_soon(lambda: log.append(("callback", fb.await_(gate))))
    loop.run_until_complete(asyncio.sleep(0.001))
    enabled.disable()
    enabled.disable()  # does nothing
    assert attributes(loop) == before
    if "greenlet" not in sys.modules:  # with it, tasks that runners step keep their portals
        assert early[0].get_coro() is early_coros[0]  # what it was given was taken away
    loop.run_until_complete(asyncio.sleep(0.001))
    assert log == []
    gate.set_result("open")
    loop.run_until_complete(asyncio.gather(*early, *late))
    loop.run_until_complete(asyncio.sleep(0.001))
    names = [0, 1, 2, 3, "callback"]
    assert set(log) == {(name, "open") for name in names} and len(log) == 5
    loop.close()


def test_enabled_within_a_running_loop(fb):
    async def main():
        loop = asyncio.get_running_loop()
        before = attributes(loop)

        async def child():
            return fb.has_portal(), fb.await_(value_later(1, 0.001))

        with fb.enable():
            assert await asyncio.create_task(child()) == (True, 1)
            await asyncio.sleep(0)
            assert fb.has_portal()
            assert fb.await_(value_later(2)) == 2
            done = loop.create_future()
            loop.call_soon(lambda: done.set_result(fb.await_(value_later(3, 0.001))))
            assert await done == 3
        assert attributes(loop) == before
        await asyncio.sleep(0.001)
        assert await asyncio.create_task(child()) == (False, 1)
        return 4

    assert asyncio.run(main()) == 4


def test_scopes_overlap(fb):
    loop = asyncio.new_event_loop()
    before = attributes(loop)
    one, two = fb.enable(loop), fb.enable(loop)

    async def has():
        return fb.has_portal()

    one.disable()
    assert loop.run_until_complete(has())
    with fb.enable():
        assert loop.run_until_complete(has())
    assert loop.run_until_complete(has())
    two.disable()
    assert attributes(loop) == before
    assert not loop.run_until_complete(has())
    loop.close()


def test_somebody_elses_factory_stays(fb):
    loop = asyncio.new_event_loop()

    def factory(loop, coro, **kwds):
        return asyncio.Task(coro, loop=loop)

    with fb.enable(loop):
        loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.close()


def test_every_loop_of_the_process(fb):
    results = []

    def thread():
        async def main():
            # Its task was made before the loop first ran; it gets its portal then.
            return fb.has_portal(), fb.await_(value_later(1))

        results.append(asyncio.run(main()))

    with fb.enable():
        threads = [threading.Thread(target=thread) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        thread()
    assert results == [(True, 1)] * 5


def test_on_uvloop_it_is_the_task_factory(fb):
    uvloop = import_or_skip("uvloop")
    loop = uvloop.new_event_loop()

    async def main():
        told = loop.create_future()

        def callback():
            try:
                fb.await_(asyncio.sleep(0))
            except RuntimeError as error:
                told.set_result(str(error))

        loop.call_soon(callback)
        assert "with_portal_run_sync" in fb.await_(told)
        return fb.await_(value_later(1))

    with fb.enable(loop):
        assert loop.run_until_complete(main()) == 1
    assert loop.get_task_factory() is None
    loop.close()


@pytest.mark.parametrize("outer", ["stock", "ours", "uvloop"])
def test_run_inside_a_running_loop(fb, outer):
    ended = []

    async def left_over():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            ended.append("left over")

    async def inner(n):
        asyncio.create_task(left_over())
        await asyncio.sleep(0)
        assert fb.await_(asyncio.sleep(0.001, n)) == n
        if n == 3:
            raise ValueError("three")
        return n

    async def outside():
        await asyncio.sleep(0)
        return "outside"

    async def main():
        loop = asyncio.get_running_loop()
        theirs = asyncio.create_task(asyncio.sleep(1000))
        other = asyncio.create_task(outside())
        assert fb.run(inner(1)) == 1
        assert ended == ["left over"]
        assert not theirs.done()
        assert await other == "outside"
        with pytest.raises(ValueError, match="three"):
            fb.run(inner(3))
        debug = loop.get_debug()
        assert fb.run(asyncio.sleep(0, 5), debug=not debug) == 5
        assert loop.get_debug() == debug

        def sync(n):
            return fb.run(inner(n))

        async def nested(n):
            return sync(n)

        # In any order, and inside each other.
        assert await asyncio.gather(nested(4), nested(5)) == [4, 5]
        assert fb.run(nested(6)) == 6
        theirs.cancel()
        return 2

    if outer == "stock":
        assert asyncio.run(main()) == 2
    elif outer == "ours":
        assert fb.run(main()) == 2
    else:
        uvloop = import_or_skip("uvloop")
        assert fb.run(main(), loop_factory=uvloop.new_event_loop) == 2


@pytest.fixture(params=["stock", "ours", "uvloop"])
def outer_run(request, fb):
    if request.param == "stock":
        return asyncio.run
    if request.param == "ours":
        return fb.run
    uvloop = import_or_skip("uvloop")
    return lambda main: fb.run(main, loop_factory=uvloop.new_event_loop)


def test_async_generators_end_with_the_run_inside(fb, outer_run):
    log = []

    async def numbers(name):
        try:
            for n in range(10):
                yield n
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.001)
            log.append(name)

    async def fails():
        try:
            yield 1
        finally:
            raise KeyError("closing")

    async def begin(generator):
        kept.append(generator)
        return await anext(generator)

    async def inner(name):
        await begin(numbers(name))
        await asyncio.create_task(begin(numbers(f"{name}'s task")))
        if name == "second":
            await begin(fails())
            raise ValueError(name)
        return name

    async def with_one_inside():
        await begin(numbers("around"))
        assert fb.run(inner("inside")) == "inside"
        assert set(log) == {"inside", "inside's task"}

    async def main():
        loop = asyncio.get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        await begin(numbers("outer"))
        assert fb.run(inner("first")) == "first"
        assert set(log) == {"first", "first's task"}
        assert sys.get_asyncgen_hooks() == hooks
        log.clear()
        told = []
        loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
        with pytest.raises(ValueError, match="second"):
            fb.run(inner("second"))
        assert set(log) == {"second", "second's task"}
        assert [type(error) for error in told] == [KeyError]
        log.clear()
        fb.run(with_one_inside())
        assert set(log) == {"inside", "inside's task", "around"}
        log.clear()
        assert sys.get_asyncgen_hooks() == hooks
        assert await anext(kept[0]) == 1  # theirs goes on
        await kept[0].aclose()

    kept = []
    outer_run(main())
    assert log == ["outer"]


def test_work_in_threads_ends_with_the_run_inside(fb, outer_run):
    log = []

    def slow(name, seconds=0.15):
        time.sleep(seconds)
        log.append(name)

    async def inner():
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(slow, "to_thread"), 0.01)
        loop.run_in_executor(None, slow, "run_in_executor")
        task = asyncio.create_task(asyncio.to_thread(slow, "cancelled"))
        await asyncio.sleep(0.01)
        assert not task.done()
        return 1

    async def main():
        loop = asyncio.get_running_loop()
        before = getattr(loop, "_default_executor", "")
        assert fb.run(value_later(0)) == 0
        assert getattr(loop, "_default_executor", "") is before
        theirs = asyncio.create_task(asyncio.to_thread(slow, "outer", 1.0))
        await asyncio.sleep(0.01)
        assert fb.run(inner()) == 1
        assert set(log) == {"to_thread", "run_in_executor", "cancelled"}
        executors = [each for each in gc.get_referents(loop) if hasattr(each, "submit")]
        executors += [getattr(loop, "_default_executor", None)]
        assert not any("submit" in vars(each) for each in executors if each is not None)
        assert await asyncio.to_thread(int, "3") == 3  # the executor goes on
        await theirs

    outer_run(main())
    assert log[-1] == "outer"


def test_two_runs_inside_at_the_same_time(fb, outer_run):
    log = []

    async def numbers(name):
        try:
            yield name
        finally:
            log.append(name)

    async def inner(name, delay):
        generator = numbers(name)
        kept.append(generator)
        await anext(generator)
        await asyncio.to_thread(int)
        await asyncio.sleep(delay)
        return name

    async def one(name, delay):
        await fb.ensure_portal()
        assert fb.run(inner(name, delay)) == name
        assert name in log

    async def main():
        hooks = sys.get_asyncgen_hooks()
        first = asyncio.create_task(one("short", 0.02))
        second = asyncio.create_task(one("long", 0.1))
        await first
        assert log == ["short"]
        await second
        assert log == ["short", "long"]
        assert sys.get_asyncgen_hooks() == hooks

    kept = []
    outer_run(main())


def test_cancelling_the_caller_cancels_main(fb):
    log = []

    async def inner():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def caller():
        fb.run(inner())

    async def main():
        task = asyncio.create_task(caller())
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                fb.run(inner())

    asyncio.run(main())
    fb.run(main())
    assert log == ["cancelled"] * 4


def eager_factory(loop, coro, *, eager_start=True, **kwds):
    """asyncio's own takes `eager_start`, which uvloop passes, from 3.13.3 on."""
    return asyncio.eager_task_factory(loop, coro, **kwds)


@pytest.mark.parametrize("eager", [False, True])
def test_tasks_end_with_the_run_inside_whatever_makes_them(fb, outer_run, eager):
    ended = []

    async def left_over():
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.current_task().get_name())

    async def begin(name):
        asyncio.create_task(left_over(), name=name)
        await asyncio.sleep(0)

    async def changes_the_factory(loop):
        await begin("before")
        loop.set_task_factory(lambda loop, coro, **kwds: asyncio.Task(coro, loop=loop, **kwds))
        await begin("after")

    async def past_us(loop):
        await begin("before")
        type(loop).set_task_factory(loop, None)  # as on a loop that takes no attributes
        await begin("after")

    async def main():
        loop = asyncio.get_running_loop()
        if eager:
            loop.set_task_factory(eager_factory)
        theirs = asyncio.create_task(asyncio.sleep(1000))
        attributes, factory = dict(vars(loop)), loop.get_task_factory()
        fb.run(begin("one"))
        assert ended == ["one"]
        assert loop.get_task_factory() is factory
        assert vars(loop).keys() == attributes.keys()
        for change in changes_the_factory, past_us:
            ended.clear()
            fb.run(change(loop))
            assert sorted(ended) == ["after", "before"]
        assert not theirs.done()
        theirs.cancel()

    if eager and sys.version_info < (3, 12):
        pytest.skip("no eager tasks")
    outer_run(main())
