"""`fiberback.nest`: nest_asyncio's functions, without its faults."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
import warnings

import fiberback
import pytest
from fiberback import nest, threads
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

STOCK = {
    "run": asyncio.run,
    "runners.run": asyncio.runners.run,
    "Runner.run": asyncio.Runner.run,
    **{
        name: getattr(asyncio.BaseEventLoop, name)
        for name in ("run_until_complete", "run_forever", "stop", "_run_once")
    },
}


def what_is_there():
    return {
        "run": asyncio.run,
        "runners.run": asyncio.runners.run,
        "Runner.run": asyncio.Runner.run,
        **{
            name: getattr(asyncio.BaseEventLoop, name)
            for name in ("run_until_complete", "run_forever", "stop", "_run_once")
        },
    }


@pytest.fixture
def applied():
    with nest.apply(run_close_loop=True) as handle:
        yield handle
    assert what_is_there() == STOCK
    assert not hasattr(asyncio, "_nest_patched")
    assert not hasattr(asyncio.BaseEventLoop, "_nest_patched")


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request, applied):
    if request.param == "asyncio":
        return asyncio.new_event_loop
    return import_or_skip("uvloop").new_event_loop


async def double(number, seconds=0.0):
    await asyncio.sleep(seconds)
    return number * 2


# --- every way in ------------------------------------------------------------------------------------


def by_run(coro):
    return asyncio.run(coro)


def by_runners_run(coro):
    return asyncio.runners.run(coro, debug=True)


def by_loop(coro):
    return asyncio.get_event_loop().run_until_complete(coro)


def by_runner(coro):
    with asyncio.Runner() as runner:
        return runner.run(coro)


def by_task(coro):
    loop = asyncio.get_running_loop()
    return loop.run_until_complete(loop.create_task(coro))


def by_nest(coro):
    return nest.run(coro)


WAYS = [by_run, by_runners_run, by_loop, by_runner, by_task, by_nest]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request):
    return request.param


def test_inside_a_running_loop(factory, way):
    async def main():
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        debug = loop.get_debug()

        async def inner():
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is not me
            return await double(4)

        assert way(inner()) == 8
        assert asyncio.current_task() is me
        assert loop.get_debug() is debug
        return "done"

    assert run_on(factory, main()) == "done"


def run_on(factory, coro):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coro)


def test_results_come_in_the_order_in_which_they_end(factory, way):
    """nest_asyncio's inner call must end before the outer one goes on."""
    order = []

    async def main():
        ended = [asyncio.Event() for _ in range(4)]
        ended[0].set()

        async def call(number):
            """Ends when the one before has."""
            way(ended[number - 1].wait())
            order.append(number)
            ended[number].set()

        await asyncio.gather(call(3), call(1), call(2))

    run_on(factory, main())
    assert order == [1, 2, 3]


def test_two_calls_that_wait_for_each_other(factory):
    async def main():
        first, second = asyncio.Event(), asyncio.Event()

        async def one():
            first.set()
            await second.wait()
            return 1

        async def two():
            await first.wait()
            second.set()
            return 2

        async def call(coro):
            return asyncio.run(coro)

        return await asyncio.gather(call(one()), call(two()))

    assert run_on(factory, main()) == [1, 2]


def test_errors_come_out(factory, way):
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("this one")

    async def main():
        with pytest.raises(ValueError, match="this one"):
            way(fail())
        return True

    assert run_on(factory, main())


def test_a_timeout_inside_and_outside(factory, way):
    async def main():
        with pytest.raises(TimeoutError):
            way(asyncio.wait_for(asyncio.sleep(60), 0.01))

        async def call():
            way(asyncio.sleep(60))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return True

    assert run_on(factory, main())


def test_the_loop_goes_on(factory, way):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def until_ten():
            while ticks < 10:
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        way(until_ten())
        ticking.cancel()
        return ticks

    assert run_on(factory, main()) >= 10


@pytest.mark.parametrize("depth", [400, 4000])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_deep(kind, depth):
    factory = asyncio if kind == "asyncio" else import_or_skip("uvloop")
    limit = sys.getrecursionlimit()

    async def main(depth):
        if depth == 0:
            await asyncio.sleep(0.001)
            return 0
        return 1 + asyncio.run(main(depth - 1))

    with nest.apply():
        assert run_on(factory.new_event_loop, main(depth)) == depth
    assert sys.getrecursionlimit() == limit


def test_contexts_are_copied_as_by_asyncio(applied):
    variable = contextvars.ContextVar("variable", default="unset")

    async def inner():
        before = variable.get()
        variable.set("inner")
        return before

    async def main():
        variable.set("outer")
        assert asyncio.run(inner()) == "outer"
        context = contextvars.copy_context()
        with asyncio.Runner() as runner:
            runner.run(inner(), context=context)
        return variable.get(), context[variable]

    assert asyncio.run(main()) == ("outer", "inner")


def test_a_future_of_the_loop(factory):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.01, future.set_result, "told")
        return loop.run_until_complete(future)

    assert run_on(factory, main()) == "told"


def test_in_a_callback(applied):
    """No task there; the stack is parked."""

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(lambda: future.set_result(asyncio.run(double(3))))
        return await future

    assert asyncio.run(main()) == 6


def test_run_forever_inside(factory):
    """`stop` ends the innermost."""

    async def main():
        loop = asyncio.get_running_loop()
        said = []

        async def call(name):
            said.append(name)
            loop.run_forever()
            said.append(f"{name} ended")

        async def begun(name):
            task = asyncio.create_task(call(name))
            while name not in said:
                await asyncio.sleep(0)
            return task

        outer = await begun("outer")
        inner = await begun("inner")
        loop.stop()
        await inner
        loop.call_soon(loop.stop)
        await outer
        return said

    assert run_on(factory, main()) == ["outer", "inner", "inner ended", "outer ended"]


def test_another_loop_in_its_place(factory):
    """It is run there and then; the loop that it interrupts, and its task, are back afterwards."""

    async def main():
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        other = factory()
        seen = []

        async def inner():
            seen.append(asyncio.get_running_loop())
            assert asyncio.current_task() is not me
            await asyncio.sleep(0.001)
            seen.append(asyncio.run(double(5)))
            return "inner"

        try:
            assert other.run_until_complete(inner()) == "inner"
            other.call_soon(other.stop)
            other.run_forever()
        finally:
            other.close()
        assert seen == [other, 10]
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, me)
        return await double(1)

    assert run_on(factory, main()) == 2


def test_a_loop_that_runs_in_another_thread(applied):
    with threads.LoopThread() as thread:
        coro = double(1)
        with pytest.raises(RuntimeError, match="already running"):
            thread.loop.run_until_complete(coro)
        coro.close()


def test_in_other_threads(applied):
    """Each has its own loop."""
    results = []

    async def main(number):
        await asyncio.sleep(0)
        return asyncio.run(double(number))

    callers = [
        threading.Thread(target=lambda n=n: results.append(asyncio.run(main(n)))) for n in range(5)
    ]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert sorted(results) == [0, 2, 4, 6, 8]


def test_where_nothing_may_wait(applied):
    async def main():
        with fiberback.no_await("here"), pytest.raises(RuntimeError, match="no_await"):
            asyncio.run(double(1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


def test_ctrl_c(tmp_path):
    code = """
import asyncio, os, signal, sys
import fiberback.nest as nest
nest.apply()
signal.signal(signal.SIGINT, signal.default_int_handler)

async def inner():
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        print("inner ended")

async def main():
    asyncio.run(inner())

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "inner ended\ninterrupted\n"), done.stderr


# --- apply and undo ------------------------------------------------------------------------------------


def test_undo_puts_all_back():
    assert what_is_there() == STOCK
    first = nest.apply()
    patched = what_is_there()
    assert all(patched[name] is not STOCK[name] for name in STOCK if name != "_run_once")
    with nest.apply():  # had been applied before: it is not this one's to undo
        assert what_is_there() == patched
    assert what_is_there() == patched
    nest.undo()
    nest.undo()
    first.undo()
    assert what_is_there() == STOCK
    with pytest.raises(TypeError):
        nest.apply(object())
    assert what_is_there() == STOCK


def test_undo_while_a_call_waits():
    async def call():
        return asyncio.run(double(2, 0.02))

    async def main():
        handle = nest.apply()
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        handle.undo()
        with pytest.raises(RuntimeError, match="running event loop"):
            await call()
        return await task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the call that was refused
        assert asyncio.run(main()) == 4


def test_what_others_have_replaced_since_stays(applied):
    def theirs(main, **kwds):
        raise NotImplementedError

    asyncio.run = theirs
    try:
        nest.undo()
        assert asyncio.run is theirs
    finally:
        asyncio.run = STOCK["run"]


def test_one_loop_is_kept_by_default(tmp_path):
    """As with nest_asyncio: what one run leaves is there in the next. No warning about it at the end."""
    code = """
import asyncio, sys, warnings
import fiberback.nest as nest_asyncio
nest_asyncio.apply()
seen = []

async def first():
    seen.append(asyncio.get_running_loop())
    return asyncio.create_task(asyncio.sleep(0.01, "left behind"))

async def second(task):
    seen.append(asyncio.get_running_loop())
    return await task

task = asyncio.run(first())
assert asyncio.run(second(task)) == "left behind"
assert seen[0] is seen[1] is asyncio.get_event_loop()

async def inner():
    return asyncio.create_task(asyncio.sleep(0.01, "inside"))

async def main():
    return await asyncio.run(inner())

assert asyncio.run(main()) == "inside"
nest_asyncio.apply(run_close_loop=True)  # all have to ask for it
assert asyncio.run(main()) == "inside"
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_with_run_close_loop_all_is_as_by_asyncio(applied):
    seen = []

    async def inner():
        return asyncio.create_task(asyncio.sleep(60))

    async def main():
        seen.append(asyncio.get_running_loop())
        return asyncio.run(inner()).cancelled()

    assert asyncio.run(main())
    assert asyncio.run(main())
    assert seen[0] is not seen[1] and seen[0].is_closed() and seen[1].is_closed()


def test_nest_asyncio_itself_finds_all_done(tmp_path):
    """A library that calls its `apply()` later changes nothing."""
    import_or_skip("nest_asyncio")
    code = """
import asyncio
import fiberback.nest
fiberback.nest.apply(run_close_loop=True)
before = asyncio.run, asyncio.Task, asyncio.BaseEventLoop.run_until_complete

async def main():
    import nest_asyncio
    nest_asyncio.apply()
    return asyncio.run(asyncio.sleep(0, "inside"))

assert asyncio.run(main()) == "inside"
assert before == (asyncio.run, asyncio.Task, asyncio.BaseEventLoop.run_until_complete)
assert asyncio.SelectorEventLoop.run_until_complete is before[2]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_after_nest_asyncio(tmp_path):
    import_or_skip("nest_asyncio")
    code = """
import asyncio, sys, warnings
import nest_asyncio
asyncio.set_event_loop(asyncio.new_event_loop())
nest_asyncio.apply()
import fiberback.nest
try:
    fiberback.nest.apply(error_on_mispatched=True)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
    says(done.stdout, "nest-mispatched", "import fiberback.nest as nest_asyncio")


def test_tornado(applied):
    """Its `run_sync` runs the loop for ever, and stops it."""
    ioloop = import_or_skip("tornado.ioloop")

    async def main():
        begin = time.monotonic()
        other = asyncio.create_task(asyncio.sleep(0.02, time.monotonic()))
        result = ioloop.IOLoop.current().run_sync(lambda: double(4, 0.05))
        assert other.done() and time.monotonic() - begin >= 0.05
        return result

    assert asyncio.run(main()) == 8
