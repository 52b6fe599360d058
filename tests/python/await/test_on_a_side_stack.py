"""What `await_` waits for is stepped on a stack that the tasks of a thread share (side_stack.rs).

Nothing of that may be seen, whatever the awaited code does there: wait again in synchronous code, raise,
be cancelled, recurse, look at its callers, import greenlet.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
from crowd import crowd
from support import UNDER_TEST, only_fiberback

pytestmark = only_fiberback


@pytest.fixture(autouse=True)
def many_wait(fb):
    """Where few do, nothing is stepped on side stacks; nor what was seen to need little, by other tests."""
    fb.trim()  # which has everything measured anew, on side stacks
    with crowd():
        yield


@pytest.fixture
def on_side_stacks(fb, many_wait):
    """For tests that do not look themselves whether there was one."""
    yield
    assert fb.stats()["stacks_shared"] > 0


@pytest.fixture(params=["portal", "parked"])
def start(request, fb, on_side_stacks):
    """start(function, *arguments): a coroutine for a task in which the function can wait."""
    if request.param == "portal":
        return fb.with_portal_run_sync

    async def call(function, *arguments):
        # The first that is parked may be on the thread's own stack.
        over = asyncio.Event()
        first = asyncio.create_task(park(over))
        await asyncio.sleep(0)
        try:
            return function(*arguments)
        finally:
            over.set()
            await first

    async def park(over):
        fb.await_(over.wait())

    return call


def nested(fb, depth, log):
    """Synchronous code that waits for a coroutine that calls synchronous code that waits ..."""

    async def inside():
        await asyncio.sleep(0)
        if depth:
            nested(fb, depth - 1, log)
        await asyncio.sleep(0)
        return depth

    log.append(fb.await_(inside()))


def test_awaits_inside_of_awaited_code_wait_on_their_own(fb, start):
    logs = [[] for _ in range(50)]

    async def main():
        await asyncio.gather(*(start(nested, fb, 4, log) for log in logs))

    for _ in range(3):
        asyncio.run(main())
    assert logs == [[0, 1, 2, 3, 4] * 3] * 50


def test_cancelling_gets_through_all_of_them(fb, start):
    gc.collect()
    before = fb.stats()["fibers_suspended"]  # the crowd's, and what others have left
    ended = []

    def waits(depth):
        async def inside():
            try:
                if depth:
                    waits(depth - 1)
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0)
                fb.await_(asyncio.sleep(0))
                ended.append(depth)

        fb.await_(inside())

    async def main():
        tasks = [asyncio.create_task(start(waits, 3)) for _ in range(20)]
        for _ in range(5):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results

    asyncio.run(main())
    assert sorted(ended) == sorted([0, 1, 2, 3] * 20)
    assert fb.stats()["fibers_suspended"] == before


def test_forgotten_ones_are_collected(fb, on_side_stacks):
    ended = []

    class Canary:
        pass

    def waits(depth, canary, future):
        async def inside():
            try:
                if depth:
                    waits(depth - 1, canary, future)
                await future
            finally:
                ended.append(depth)

        fb.await_(inside())

    async def main():
        canary = Canary()
        seen = weakref.ref(canary)
        future = asyncio.get_running_loop().create_future()
        portal = fb.with_portal_run_sync(waits, 2, canary, future).__await__()
        portal.send(None)
        del canary, future, portal
        gc.collect()
        assert seen() is None
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(main())


def test_errors_context_and_the_exception_in_hand(fb, start):
    async def fails():
        assert sys.exception() is handled[0]
        await asyncio.sleep(0)
        assert sys.exception() is handled[0]
        raise KeyError(1)

    handled = []

    def sync():
        try:
            raise ValueError(0)
        except ValueError as error:
            handled.append(error)
            try:
                fb.await_(fails())
            except KeyError as inner:
                assert inner.__context__ is error
                names = []
                traceback = inner.__traceback__
                while traceback is not None:
                    names.append(traceback.tb_frame.f_code.co_name)
                    traceback = traceback.tb_next
                assert names == ["sync", "fails"]
            assert sys.exception() is error
        assert sys.exception() is None
        handled.clear()

    async def main():
        for _ in range(3):
            await asyncio.create_task(start(sync))

    asyncio.run(main())


def recurse(n):
    return sorted([n], key=lambda n: recurse(n + 1))


def test_deep_recursion_there_is_caught(fb, start):
    async def inside():
        with pytest.raises(RecursionError):
            recurse(0)
        await asyncio.sleep(0)
        with pytest.raises(RecursionError):
            recurse(0)
        return True

    async def main():
        assert await asyncio.create_task(start(lambda: fb.await_(inside())))

    asyncio.run(main())


def test_portals_resumed_from_there(fb, start):
    async def inner(n):
        for _ in range(n):
            fb.await_(asyncio.sleep(0))
        return n

    async def outer(n):
        return await asyncio.wait_for(fb.with_portal_run(inner, n), 10) + await fb.with_portal_run(
            inner, n
        )

    async def main():
        results = await asyncio.gather(*(start(lambda n=n: fb.await_(outer(n))) for n in range(30)))
        assert results == [2 * n for n in range(30)]

    asyncio.run(main())


def test_ready_results_change_nothing(fb, start):
    async def ready(n):
        return n

    async def waits(n):
        await asyncio.sleep(0)
        return n

    def sync():
        for n in range(20):
            for awaited in (ready, waits)[:: 1 if n % 3 else -1]:
                for _ in range(n % 4):
                    assert fb.await_(awaited(n)) == n

    async def main():
        await asyncio.gather(*(start(sync) for _ in range(20)))

    asyncio.run(main())


def test_greenlet_imported_and_used_there():
    pytest.importorskip("greenlet")
    program = f"""
import asyncio, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
import {UNDER_TEST} as fb
from crowd import crowd

async def spawn(function, *arguments):
    # As SQLAlchemy's greenlet_spawn: imported when first needed, in the middle of a step.
    import greenlet
    parent = greenlet.getcurrent()
    child = greenlet.greenlet(function, parent)
    value = child.switch(parent, *arguments)
    while not child.dead:
        value = child.switch(await value)
    return value

def work(parent, n):
    total = 0
    for k in range(n):
        total += parent.switch(later(k))
    return total

async def later(k):
    await asyncio.sleep(0)
    return k

def sync(n):
    return fb.await_(spawn(work, n)) + fb.await_(spawn(work, n))

async def main():
    results = await asyncio.gather(*(fb.with_portal_run_sync(sync, n) for n in range(20)))
    assert results == [n * (n - 1) for n in range(20)], results

with crowd():
    asyncio.run(main())
    asyncio.run(main())
    assert fb.stats()["stacks_shared"] > 0
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


async def forever():
    await asyncio.get_running_loop().create_future()


def test_a_suspended_call_keeps_its_stack(fb):
    """One for each await_ that waits inside of awaited code; no more are kept than a thread needs."""
    gc.collect()
    fb.trim()
    kept = fb.stats()["stacks_shared"]  # of what others have left

    async def inside():
        fb.await_(forever())

    async def main():
        before = fb.stats()
        tasks = [
            asyncio.create_task(fb.with_portal_run_sync(fb.await_, inside())) for _ in range(40)
        ]
        await asyncio.sleep(0)
        waiting = fb.stats()
        assert waiting["fibers_suspended"] == before["fibers_suspended"] + 40
        assert 40 <= waiting["stacks_shared"] <= before["stacks_shared"] + 40
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert kept < fb.stats()["stacks_shared"] <= kept + 8

    asyncio.run(main())
    fb.trim()
    assert fb.stats()["stacks_shared"] == kept
    asyncio.run(fb.with_portal_run_sync(fb.await_, asyncio.sleep(0)))


def test_stacks_of_another_size(fb):
    """Smaller ones than the waiting task's own do not serve, larger ones do."""
    size = fb.get_stack_size()
    outcome = []

    async def inside():
        with pytest.raises(RecursionError):
            recurse(0)
        await asyncio.sleep(0)
        return fb.stats()["stacks_shared"]

    def run():
        with crowd(), contextlib.ExitStack() as stack:
            for _ in sizes:
                stack.enter_context(crowd(1))  # takes the idle fiber, so that the next is a new one
                ready.release()
                go_on.acquire()
                outcome.append(asyncio.run(fb.with_portal_run_sync(fb.await_, inside())))

    # Set in this thread, so that the other one keeps what it has.
    sizes = (2 << 20, 8 << 20, 1 << 20, 4 << 20)
    ready, go_on = threading.Semaphore(0), threading.Semaphore(0)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        for bytes_ in sizes:
            ready.acquire()
            fb.set_stack_size(bytes_)
            go_on.release()
        thread.join()
    finally:
        fb.set_stack_size(size)
        asyncio.run(fb.with_portal_run_sync(fb.await_, asyncio.sleep(0)))
    assert outcome == [1, 1, 1, 1]


def test_trace_functions_see_all_of_it(fb, start):
    seen = []

    def trace(frame, event, argument):
        if frame.f_code in (inside.__code__, sync.__code__):
            seen.append((frame.f_code.co_name, event, frame.f_back.f_code.co_name))
        return trace

    async def inside():
        await asyncio.sleep(0)

    def sync():
        before = sys.gettrace()
        sys.settrace(trace)
        sys._getframe().f_trace = trace
        try:
            fb.await_(inside())
        finally:
            sys.settrace(before)

    async def main():
        await asyncio.create_task(start(sync))

    asyncio.run(main())
    assert ("inside", "call", "sync") in seen and ("inside", "return", "sync") in seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_there_goes_on(fb, on_side_stacks):
    async def inside():
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            os._exit(7)
        await asyncio.sleep(0)
        return child

    async def main():
        return await fb.with_portal_run_sync(fb.await_, inside())

    child = asyncio.run(main())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.leaks
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_given_up_with_the_stack_of_its_task(fb):
    """A thread that ends while its tasks wait gives both stacks of each up, and says how many."""

    async def inside():
        fb.await_(forever())

    async def suspended():
        portal = fb.with_portal_run_sync(fb.await_, inside())
        portal.send(None)
        kept.append(portal)

    def run():
        with crowd():
            asyncio.run(suspended())

    kept = []
    before = fb.stats()["stacks_leaked"]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    # Until 3.12, `join` does not wait for the very end of the thread.
    until = time.monotonic() + 10
    while fb.stats()["stacks_leaked"] < before + 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert fb.stats()["stacks_leaked"] == before + 2
    with pytest.warns(RuntimeWarning, match="when its thread ended"):
        kept.clear()
        gc.collect()
    assert fb.stats()["stacks_leaked"] == before + 2
