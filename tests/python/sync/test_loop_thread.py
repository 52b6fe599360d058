"""`fiberback.threads.LoopThread`: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import subprocess
import sys
import threading

import fiberback
import pytest
from fiberback.threads import LoopThread
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


def factory(name):
    return None if name == "asyncio" else import_or_skip("uvloop").new_event_loop


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_thread(request):
    with LoopThread(loop_factory=factory(request.param)) as thread:
        yield thread


async def double(number):
    await asyncio.sleep(0.001)
    return number * 2


def caller_threads(loop_thread, function):
    """Where `function` may be called: no loop, a stock loop's task, a portal, uvloop without, Trio."""
    uvloop, trio = import_or_skip("uvloop"), import_or_skip("trio")

    async def main():
        return function()

    yield function()
    yield asyncio.run(main())
    yield fiberback.run(main(), loop_factory=uvloop.new_event_loop)
    loop = uvloop.new_event_loop()
    yield loop.run_until_complete(main())
    loop.close()
    yield trio.run(fiberback.with_portal_run_sync, function)
    yield trio.run(main)


def test_run_from_everywhere(loop_thread):
    def function():
        with pytest.raises(LookupError):
            loop_thread.run(fail())
        return loop_thread.run(double(21))

    async def fail():
        await asyncio.sleep(0)
        raise LookupError

    assert list(caller_threads(loop_thread, function)) == [42] * 6


def test_the_callers_loop_goes_on_where_the_caller_suspends(loop_thread):
    """What the other loop waits for comes from a task of the caller's loop."""
    go = threading.Event()

    async def until_go():
        while not go.is_set():
            await asyncio.sleep(0.001)
        return "went"

    async def caller():
        return loop_thread.run(until_go())

    async def main():
        task = asyncio.ensure_future(caller())
        await asyncio.sleep(0.01)
        go.set()
        return await task

    assert asyncio.run(asyncio.wait_for(main(), 30)) == "went"


def test_in_its_own_loop_it_suspends(loop_thread):
    def below():
        return loop_thread.run(double(1))

    async def main():
        return below()

    assert loop_thread.run(main()) == 2
    assert loop_thread.submit(main()).result(30) == 2


def test_one_task_for_all_that_a_caller_runs(loop_thread):
    """A task group that one call enters, another one uses, and a third one leaves."""

    def function():
        group = asyncio.TaskGroup()
        loop_thread.run(group.__aenter__())

        async def start():
            return group.create_task(double(1))

        task = loop_thread.run(start())
        loop_thread.run(group.__aexit__(None, None, None))
        return task.result()

    assert list(caller_threads(loop_thread, function)) == [2] * 6


def test_contexts_are_the_callers(loop_thread):
    async def exchange():
        seen = variable.get()
        variable.set("inner")
        return seen

    def function():
        variable.set("outer")
        return loop_thread.run(exchange()), variable.get()

    expected = [("outer", "inner")] * 6
    assert list(caller_threads(loop_thread, function)) == expected
    variable.set("mine")
    assert loop_thread.submit(exchange()).result(30) == "mine"
    assert variable.get() == "mine"


def test_cancelling_the_caller_cancels_what_runs_there(loop_thread):
    seen = []

    async def wait(begun):
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.001)
            seen.append("cleaned up")

    async def caller(begun):
        try:
            loop_thread.run(wait(begun))
        finally:
            seen.append("caller left")

    async def main():
        begun = threading.Event()
        task = asyncio.ensure_future(caller(begun))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cleaned up", "caller left"]


def test_cancelling_under_trio(loop_thread):
    trio = import_or_skip("trio")
    seen = []

    async def wait():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.001)
            seen.append("cleaned up")

    async def main():
        with trio.move_on_after(0.05) as scope:
            await fiberback.with_portal_run_sync(loop_thread.run, wait())
        return scope.cancelled_caught

    assert trio.run(main)
    assert seen == ["cleaned up"]


def test_a_cancelled_future_cancels_its_task(loop_thread):
    begun, ended = threading.Event(), threading.Event()

    async def wait():
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    future = loop_thread.submit(wait())
    assert begun.wait(30)
    future.cancel()
    assert ended.wait(30)


def test_context_managers(loop_thread):
    seen = []

    @contextlib.asynccontextmanager
    async def manager(name):
        seen.append((f"{name} entered", asyncio.current_task()))
        try:
            yield name
        except LookupError:
            seen.append((f"{name} caught", asyncio.current_task()))
        finally:
            seen.append((f"{name} left", asyncio.current_task()))

    with loop_thread.wrap_context(manager("one")) as value:
        assert value == "one"
    with loop_thread.wrap_context(lambda: manager("two")) as value:
        assert value == "two"
        raise LookupError
    assert [what for what, _ in seen] == [
        "one entered",
        "one left",
        "two entered",
        "two caught",
        "two left",
    ]
    assert len({task for _, task in seen}) == 1


def test_contexts_that_are_entered_end_with_the_thread():
    seen = []

    @contextlib.asynccontextmanager
    async def manager():
        yield "value"
        await asyncio.sleep(0)
        seen.append("left")

    with LoopThread() as loop_thread:
        assert loop_thread.enter_context(manager()) == "value"
        assert seen == []
    assert seen == ["left"]


def test_iterators(loop_thread):
    closed = []

    async def count(to):
        try:
            for number in range(to):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(asyncio.current_task())

    assert list(loop_thread.wrap_iter(count(3))) == [0, 1, 2]
    assert list(loop_thread.wrap_iter(lambda: count(2))) == [0, 1]
    items = loop_thread.wrap_iter(count(3))
    assert next(items) == 0
    items.close()
    assert len(closed) == 3 and len(set(closed)) == 1

    class Plain:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

    assert list(loop_thread.wrap_iter(Plain())) == []


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_async_iterators_in_another_loop(loop_thread, library):
    import_or_skip(library)
    loops, closed = set(), []

    async def count(to):
        try:
            for number in range(to):
                loops.add(asyncio.get_running_loop())
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(to)

    async def main():
        found = [number async for number in loop_thread.wrap_aiter(count(3))]
        async with contextlib.aclosing(loop_thread.wrap_aiter(count(5))) as items:
            async for number in items:
                found.append(number)
                if number == 1:
                    break
        return found

    run = asyncio.run(main()) if library == "asyncio" else import_or_skip("trio").run(main)
    assert run == [0, 1, 2, 0, 1]
    assert loops == {loop_thread.loop}
    assert closed == [3, 5]


def test_its_end_is_that_of_a_run():
    seen = []

    async def linger():
        try:
            await asyncio.sleep(1000)
        finally:
            seen.append("cancelled")

    async def start():
        tasks.append(asyncio.ensure_future(linger()))
        await asyncio.sleep(0)

    tasks = []
    loop_thread = LoopThread(name="mine")
    assert "idle" in repr(loop_thread)
    loop_thread.run(start())
    assert "running" in repr(loop_thread) and "mine" in repr(loop_thread)
    assert "mine" in {thread.name for thread in threading.enumerate()}
    loop_thread.close()
    loop_thread.close()
    assert seen == ["cancelled"]
    assert "mine" not in {thread.name for thread in threading.enumerate()}
    for use in (loop_thread.run, loop_thread.submit):
        with pytest.raises(RuntimeError) as raised:
            use(double(1))
        says(raised.value, "loop-thread-closed")


def test_it_is_not_closed_by_its_own_thread(loop_thread):
    async def close():
        loop_thread.close()

    with pytest.raises(RuntimeError) as raised:
        loop_thread.run(close())
    says(raised.value, "loop-thread-own")
    assert loop_thread.run(double(1)) == 2


def test_a_factory_that_fails_is_heard_of():
    def fail():
        raise LookupError("no loop")

    with pytest.raises(LookupError, match="no loop"):
        LoopThread(loop_factory=fail).run(double(1))


def test_many_threads_at_once(loop_thread):
    results = []

    def work(number):
        results.extend(loop_thread.run(double(number)) for _ in range(20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(number * 2 for number in range(8) for _ in range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="is for systems that fork")
def test_a_forked_child_has_a_thread_of_its_own():
    code = """
import asyncio, os
from fiberback.threads import LoopThread

async def answer():
    await asyncio.sleep(0)
    return 42

with LoopThread() as loop_thread:
    assert loop_thread.run(answer()) == 42
    child = os.fork()
    if child == 0:
        assert loop_thread.run(answer()) == 42
        loop_thread.close()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert loop_thread.run(answer()) == 42
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_at_any_time_cancels_what_runs():
    """Also in the first moment of the wait: what was awaited has ended when the caller goes on."""
    code = """
import asyncio, os, random, signal, sys, threading, time
from fiberback.threads import LoopThread

seed = int(sys.argv[1])
print("seed", seed, file=sys.stderr)
randoms = random.Random(seed)

async def wait(begun, ended):
    begun.set()
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.001)
        ended.append(True)

def interrupt(begun, pause):
    begun.wait()
    time.sleep(pause)
    os.kill(os.getpid(), signal.SIGINT)

with LoopThread() as loop_thread:
    for _ in range(20):
        begun, ended = threading.Event(), []
        pause = randoms.choice([0, 0, 0.0001, 0.001, 0.07])
        thread = threading.Thread(target=interrupt, args=(begun, pause))
        thread.start()
        try:
            loop_thread.run(wait(begun, ended))
        except KeyboardInterrupt:
            assert ended, pause
        else:
            raise AssertionError("not interrupted")
        thread.join()
print("done")
"""
    for seed in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(seed)], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
