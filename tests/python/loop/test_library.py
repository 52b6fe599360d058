"""asyncio run inside Trio, and Trio inside asyncio, on one thread: the inner one is in charge."""

from __future__ import annotations

import asyncio

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

trio = import_or_skip("trio")


def with_uvloop(main):
    uvloop = import_or_skip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def by_hand(main):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.fixture(params=["asyncio.run", "fiberback.run", "uvloop", "run_until_complete"])
def run_inside(request, fb):
    return {
        "asyncio.run": asyncio.run,
        "fiberback.run": fb.run,
        "uvloop": with_uvloop,
        "run_until_complete": by_hand,
    }[request.param]


@pytest.fixture(params=["portal", "no portal"])
def in_trio(request, fb):
    """Runs a function in a Trio task."""

    async def main(function):
        if request.param == "portal":
            await fb.ensure_portal()
        result = function()
        assert trio.lowlevel.current_task().name.endswith("main")
        assert fb.has_portal() is (request.param == "portal")
        if request.param == "portal":
            fb.await_(trio.sleep(0))
        return result

    return lambda function: trio.run(main, function)


async def value_later(value, delay=0.0):
    await asyncio.sleep(delay)
    return value


def test_portals_of_the_inner_tasks(fb, in_trio, run_inside):
    async def child():
        await fb.ensure_portal()
        assert fb.has_portal() and fb.can_await()
        return fb.await_(value_later(1, 0.001))

    def sync():
        assert fb.has_portal()
        return fb.await_(value_later(3))

    async def main():
        portal = fb.bestow_portal(asyncio.current_task())
        assert portal is None
        await asyncio.sleep(0)
        assert fb.has_portal()
        assert fb.has_portal(asyncio.current_task())
        one = asyncio.create_task(child())
        two = fb.await_(value_later(2))
        three = await asyncio.create_task(fb.with_portal_run_sync(sync))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                fb.await_(asyncio.sleep(10))
        return [await one, two, three]

    assert in_trio(lambda: run_inside(main())) == [1, 2, 3]


def test_parking_in_the_inner_loop(fb, in_trio):
    """A stock loop needs no portal, and its callbacks can wait, too."""

    async def main():
        loop = asyncio.get_running_loop()
        assert not fb.has_portal() and fb.can_await()
        done = loop.create_future()
        loop.call_soon(lambda: done.set_result(fb.await_(value_later(1, 0.001))))
        task = asyncio.create_task(value_later(2))
        assert fb.await_(task) == 2
        assert await done == 1
        return fb.await_(value_later(3))

    assert in_trio(lambda: asyncio.run(main())) == 3


def test_refused_in_uvloop_as_ever(fb, in_trio):
    async def main():
        assert not fb.can_await()
        with pytest.raises(RuntimeError, match="no portal"):
            fb.await_(asyncio.sleep(0))

    in_trio(lambda: with_uvloop(main()))


def test_to_thread_in_the_inner_loop(fb, in_trio, run_inside):
    async def main():
        return await fb.to_thread(lambda: fb.await_(value_later(4)))

    assert in_trio(lambda: run_inside(main())) == 4


def test_trio_inside_asyncio(fb):
    async def trio_main():
        assert not fb.has_portal()
        await fb.ensure_portal()
        fb.await_(trio.sleep(0))
        return asyncio.run_coroutine_threadsafe is not None and fb.has_portal()

    async def main():
        loop = asyncio.get_running_loop()
        found = [trio.run(trio_main)]
        done = loop.create_future()
        loop.call_soon(lambda: done.set_result(trio.run(trio_main)))
        found.append(await done)
        found.append(fb.await_(value_later(True)))
        return found

    for run in (asyncio.run, fb.run):
        assert run(main()) == [True] * 3


def test_trio_as_a_guest_of_asyncio(fb):
    async def inner():
        await fb.ensure_portal()
        for _ in range(3):
            fb.await_(trio.sleep(0.001))
        return fb.has_portal()

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            inner,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        assert fb.await_(value_later(1, 0.002)) == 1
        return (await done).unwrap()

    for run in (asyncio.run, fb.run):
        assert run(main())
