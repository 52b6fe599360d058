"""`await_` where no event loop is to be found: on this thread's own runner."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import os
import signal
import sys
import threading
import time
import types
import warnings

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


@pytest.fixture(autouse=True)
def closed_afterwards(fb):
    yield
    fb.close_thread_runner()


async def current_loop():
    return asyncio.get_running_loop()


@types.coroutine
def generator_based():
    yield from asyncio.sleep(0.001).__await__()
    return "generator"


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0.001).__await__()
        return "object"


async def native():
    await asyncio.sleep(0.001)
    return "coroutine"


@pytest.mark.parametrize("make", [native, generator_based, Awaitable])
def test_any_awaitable(fb, make):
    assert fb.await_(make()) in ("coroutine", "generator", "object")


@pytest.mark.parametrize("thing", [None, 5, "text", native, [], object()])
def test_what_is_not_awaitable(fb, thing):
    words = "can't be (used in 'await' expression|awaited)"
    with pytest.raises(TypeError, match=words):
        fb.await_(thing)


def test_the_loop_stays_for_the_next_call(fb):
    assert fb.await_(current_loop()) is fb.await_(current_loop())


@pytest.mark.parametrize("waits", [False, True])
def test_a_task_that_was_just_made_begins(fb, waits):
    """As by `run_until_complete`; and the next call ends when what it awaits does."""
    steps = []

    async def work():
        steps.append("begun")
        await asyncio.sleep(0)
        steps.append("gone on")

    async def begin():
        if waits:
            await asyncio.sleep(0)
        return asyncio.create_task(work())

    task = fb.await_(begin())
    assert steps == ["begun"]
    fb.await_(task)
    assert steps == ["begun", "gone on"]


def test_what_leaves_the_loop_leaves_no_stop_behind(fb):
    async def leaves():
        raise SystemExit(3)

    async def begin():
        asyncio.create_task(leaves())

    with pytest.raises(SystemExit):
        fb.await_(begin())
    assert fb.await_(native()) == "coroutine"


def test_background_tasks_wait_while_nothing_is_awaited(fb):
    """Also one that waits for a timer which has come due: the runner runs only while the thread waits."""

    async def begin():
        steps = []

        async def work():
            for delay in (0, 0.01, 0.01):
                await asyncio.sleep(delay)
                steps.append(delay)

        return steps, asyncio.create_task(work())

    steps, task = fb.await_(begin())
    begun = len(steps)
    time.sleep(0.1)
    assert len(steps) == begun < 3
    asyncio.run(asyncio.sleep(0.1))
    assert len(steps) == begun  # another loop does not run it, either
    fb.await_(task)
    assert len(steps) == 3


def test_background_tasks_and_queues_live_on(fb):
    async def produce(queue):
        for n in range(3):
            await queue.put(n)
            await asyncio.sleep(0.001)

    async def begin():
        queue = asyncio.Queue()
        return queue, asyncio.create_task(produce(queue))

    queue, task = fb.await_(begin())
    assert [fb.await_(queue.get()) for _ in range(3)] == [0, 1, 2]
    fb.await_(task)
    assert task.done()


def test_a_server_of_one_call_serves_the_next(fb):
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    server = fb.await_(asyncio.start_server(serve, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    assert fb.await_(ask(port)) == b"hello\n"
    server.close()


def test_exceptions_with_their_tracebacks(fb):
    async def inner():
        await asyncio.sleep(0)
        raise KeyError("inner")

    with pytest.raises(KeyError) as caught:
        fb.await_(inner())
    names = [entry.name for entry in caught.traceback]
    assert names[0] == "test_exceptions_with_their_tracebacks"
    assert names[-1] == "inner"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_base_exceptions(fb, kind):
    async def fails():
        await asyncio.sleep(0)
        raise kind

    with pytest.raises(kind):
        fb.await_(fails())
    assert fb.await_(native()) == "coroutine"


def test_stop_iteration_is_refused_as_in_coroutines(fb):
    async def fails():
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        fb.await_(fails())


def test_async_generators_by_hand(fb):
    async def letters():
        for letter in "ab":
            await asyncio.sleep(0)
            yield letter

    assert list(fb.async_iter(letters())) == ["a", "b"]


def test_contextvars_go_both_ways(fb):
    variable = contextvars.ContextVar("variable")
    other = contextvars.ContextVar("other")

    async def change():
        seen = variable.get()
        variable.set(seen + 1)
        await asyncio.sleep(0)
        variable.set(variable.get() + 1)
        return seen

    async def fail():
        variable.set("failed")
        raise KeyError

    variable.set(1)
    unset = other.get(None)
    assert fb.await_(change()) == 1
    assert variable.get() == 3
    with pytest.raises(KeyError):
        fb.await_(fail())
    assert variable.get() == "failed"
    assert other.get(None) is unset

    def in_context():
        variable.set(10)
        fb.await_(change())
        return variable.get()

    assert contextvars.copy_context().run(in_context) == 12
    assert variable.get() == "failed"


def test_nested(fb):
    def sync(depth):
        return fb.await_(deeper(depth - 1)) if depth else fb.await_(native())

    async def deeper(depth):
        await asyncio.sleep(0)
        return sync(depth)

    assert sync(20) == "coroutine"


def test_tasks_have_portals(fb):
    def sync(n):
        return fb.await_(asyncio.sleep(0.001 * (5 - n), n))

    async def one(n):
        return sync(n)

    async def main():
        return await asyncio.gather(*(one(n) for n in range(5)))

    assert fb.await_(main()) == [0, 1, 2, 3, 4]


def test_asyncio_run_before_between_and_after(fb):
    assert asyncio.run(native()) == "coroutine"
    first = fb.await_(current_loop())
    assert asyncio.run(current_loop()) is not first
    assert fb.run(current_loop()) is not first
    assert fb.await_(current_loop()) is first
    with asyncio.Runner() as runner:
        assert runner.run(native()) == "coroutine"


def test_the_current_event_loop_is_left_alone(fb):
    def policy_state():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            policy = asyncio.get_event_loop_policy()
            return getattr(policy, "_local", policy).__dict__.copy()

    def check():
        before = policy_state()
        fb.await_(native())
        fb.close_thread_runner()
        assert policy_state() == before
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        fb.await_(native())
        assert asyncio.get_event_loop_policy().get_event_loop() is mine
        fb.close_thread_runner()
        assert mine.run_until_complete(native()) == "coroutine"
        asyncio.set_event_loop(None)
        mine.close()
        return "checked"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(check).result() == "checked"


def test_signal_handler_is_put_back(fb):
    before = signal.getsignal(signal.SIGINT)
    fb.await_(native())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c(fb):
    log = []

    async def waits():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        fb.await_(waits())
    assert log == ["cancelled"]
    assert fb.await_(native()) == "coroutine"


def test_a_runner_for_each_thread(fb):
    def work(_):
        barrier.wait()
        loop = fb.await_(current_loop())
        assert fb.await_(current_loop()) is loop
        return loop, fb.await_(native())

    barrier = threading.Barrier(4)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert len({id(loop) for loop, _ in results}) == 4
    assert {result for _, result in results} == {"coroutine"}
    assert all(loop.is_closed() for loop, _ in results)


def test_closed_when_the_thread_ends(fb):
    log = []

    async def letters():
        try:
            yield "a"
            yield "b"
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    async def background():
        try:
            await asyncio.sleep(60)
        finally:
            log.append("task")

    async def begin():
        kept.append(letters())
        kept.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        return await anext(kept[0]), asyncio.get_running_loop()

    def work():
        _, loop = fb.await_(begin())
        loops.append(loop)
        assert not log

    kept, loops = [], []
    before = threading.enumerate()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert sorted(log) == ["generator", "task"]
    assert loops[0].is_closed()
    assert threading.enumerate() == before


def test_errors_while_closing_are_reported(fb):
    class Stubborn(asyncio.SelectorEventLoop):
        def close(self):
            super().close()
            raise OSError("cannot close")

    def work():
        fb.await_(native())

    seen = []
    policy = asyncio.new_event_loop
    hook, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        asyncio.new_event_loop = Stubborn
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        asyncio.new_event_loop = policy
        sys.unraisablehook = hook
    assert [str(one.exc_value) for one in seen] == ["cannot close"]


def test_close_thread_runner(fb):
    first = fb.await_(current_loop())
    fb.close_thread_runner()
    assert first.is_closed()
    fb.close_thread_runner()
    second = fb.await_(current_loop())
    assert second is not first and not second.is_closed()


def test_not_from_inside(fb):
    async def closes():
        with pytest.raises(RuntimeError, match="inside its own event loop"):
            fb.close_thread_runner()
        return "open"

    assert fb.await_(closes()) == "open"
    assert fb.await_(native()) == "coroutine"


def test_thread_runner_block(fb):
    outside = fb.await_(current_loop())
    made = []

    class Loop(asyncio.SelectorEventLoop):
        def __init__(self):
            super().__init__()
            made.append(self)

    with fb.thread_runner(loop_factory=Loop, debug=True):
        assert made == []
        assert fb.await_(current_loop()) is made[0]
        assert made[0].get_debug()
        with fb.thread_runner():
            assert fb.await_(current_loop()) not in (made[0], outside)
        assert fb.await_(current_loop()) is made[0]
    assert made[0].is_closed()
    assert fb.await_(current_loop()) is outside


def test_thread_runner_with_uvloop(fb):
    uvloop = import_or_skip("uvloop")

    def sync(n):
        return fb.await_(asyncio.sleep(0.001, n))

    async def one(n):
        return sync(n)

    async def main():
        return await asyncio.gather(*map(one, range(10)))

    with fb.thread_runner(loop_factory=uvloop.new_event_loop):
        assert isinstance(fb.await_(current_loop()), uvloop.Loop)
        assert fb.await_(main()) == list(range(10))


def test_eager_tasks(fb):
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with 3.12")

    def factory():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    def sync():
        return fb.await_(asyncio.create_task(native()))

    async def main():
        return sync()

    with fb.thread_runner(loop_factory=factory):
        assert fb.await_(main()) == "coroutine"


def test_the_utilities(fb):
    @contextlib.asynccontextmanager
    async def manager():
        await asyncio.sleep(0)
        yield "entered"

    @fb.autoawait
    async def function(x):
        await asyncio.sleep(0)
        return x

    with fb.async_context(manager()) as value:
        assert value == "entered"
    assert function(3) == 3


def test_timeouts_across_calls(fb):
    async def limited():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        fb.await_(limited())
    with pytest.raises(TimeoutError):
        fb.await_(asyncio.wait_for(asyncio.sleep(60), 0.01))


def test_the_dropin_still_refuses(fb):
    greenback = import_or_skip("fiberback.greenback")
    sniffio = import_or_skip("sniffio")
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        greenback.await_(native())


def test_in_del(fb):
    log = []

    class Resource:
        def __del__(self):
            log.append(fb.await_(native()))

    Resource()
    assert log == ["coroutine"]
