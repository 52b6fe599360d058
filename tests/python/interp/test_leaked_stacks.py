"""After a step, whatever it did, its stack serves the next one: none is given up.

What is left on the interpreter's records by a call that has ended differs from version to version, and
with how the call is made: a function at the bottom of a fiber has no coroutine's own records below it.
So each kind of code runs in each kind of call, waiting or not, and the number of stacks must stay.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from saying import says
from support import only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default=0)


def handles_in_its_own_frame(wait):
    try:
        {}["x"]
    except KeyError:
        wait()


def handles_and_returns_inside(wait):
    for _ in range(2):
        try:
            raise ValueError(1)
        except ValueError as error:
            wait()
            if error.args:
                return


def raises(wait):
    wait()
    raise ValueError("out")


def raises_while_handling(wait):
    try:
        {}["x"]
    except KeyError as error:
        wait()
        raise ValueError("out") from error


def reraises(wait):
    try:
        {}["x"]
    except KeyError:
        wait()
        raise


def ends_in_finally(wait):
    try:
        raise ValueError("out")
    finally:
        wait()


def returns_in_finally(wait):
    def swallow():
        try:
            raise ValueError("swallowed")
        finally:
            wait()
            return 1  # noqa: B012

    with warnings.catch_warnings():
        swallow()


def handles_in_a_generator(wait):
    def generator():
        try:
            {}["x"]
        except KeyError:
            wait()
            yield 1
            yield 2

    for _ in generator():
        wait()
    next(kept := generator())
    kept.close()
    try:
        next(generator()), kept.throw(ValueError)
    except ValueError:
        pass


def leaves_a_generator_in_its_handler(wait):
    def generator():
        try:
            {}["x"]
        except KeyError:
            yield 1

    next(g := generator())
    kept.append(g)
    wait()


kept: list = []


def executes(wait):
    source = "try: {}['x']\nexcept KeyError: wait()\n"
    exec(source, {"wait": wait})
    try:
        exec("raise ValueError('out')")
    except ValueError:
        wait()
    eval("wait()", {"wait": wait})
    with pytest.raises(SyntaxError):
        exec("(" * 300)
    with pytest.raises((SyntaxError, RecursionError, MemoryError)):
        compile("-" * 100_000 + "1", "deep", "eval")


def recurses_too_deep(wait):
    def down(n):
        return down(n + 1)

    try:
        down(0)
    except RecursionError:
        wait()
    with pytest.raises(RecursionError):
        down(0)


def recurses_too_deep_in_c(wait):
    def down():
        return sorted([1], key=lambda _: down())

    try:
        down()
    except RecursionError:
        wait()


def recurses_too_deep_out(wait):
    def down():
        return down()

    wait()
    down()


def is_interrupted(wait):
    wait()
    raise KeyboardInterrupt


def handles_an_interruption(wait):
    try:
        raise KeyboardInterrupt
    except BaseException:
        wait()


def runs_in_a_context(wait):
    def inside():
        variable.set(1)
        try:
            {}["x"]
        except KeyError:
            pass
        raise ValueError("out")

    try:
        contextvars.copy_context().run(inside)
    except ValueError:
        wait()
    contextvars.Context().run(variable.set, 2)
    token = variable.set(3)
    wait()
    variable.reset(token)


def traces(wait):
    def trace(frame, event, arg):
        return trace

    def failing_trace(frame, event, arg):
        raise ValueError("in the trace function")

    def traced():
        try:
            {}["x"]
        except KeyError:
            return 1

    before = sys.gettrace()
    for function in (trace, failing_trace):
        sys.settrace(function)
        try:
            traced()
        except ValueError:
            pass
        finally:
            sys.settrace(before)
    sys.settrace(trace)
    try:
        wait()
        traced()
    finally:
        sys.settrace(before)


def profiles(wait):
    before = sys.getprofile()
    sys.setprofile(lambda *_: None)
    try:
        wait()
        handles_in_its_own_frame(wait)
    finally:
        sys.setprofile(before)


def drops_deep_structures(wait):
    deep: list = []
    for _ in range(50_000):
        deep = [deep]
    wait()
    del deep


class Finalized:
    def __del__(self):
        try:
            {}["x"]
        except KeyError:
            pass


def finalizes(wait):
    Finalized()
    wait()
    cycle = [Finalized()]
    cycle.append(cycle)
    del cycle
    gc.collect()


def makes_eager_frames(wait):
    frames = [sys._getframe()]
    try:
        {}["x"]
    except KeyError as error:
        kept_error.append(error)
        frames.append(error.__traceback__.tb_frame)
    wait()


kept_error: list = []


def calls_many_levels(wait):
    def down(n):
        if n:
            return down(n - 1)
        try:
            {}["x"]
        except KeyError:
            wait()

    down(400)


KINDS = [
    handles_in_its_own_frame,
    handles_and_returns_inside,
    raises,
    raises_while_handling,
    reraises,
    ends_in_finally,
    returns_in_finally,
    handles_in_a_generator,
    leaves_a_generator_in_its_handler,
    executes,
    recurses_too_deep,
    recurses_too_deep_in_c,
    recurses_too_deep_out,
    is_interrupted,
    handles_an_interruption,
    runs_in_a_context,
    traces,
    profiles,
    drops_deep_structures,
    finalizes,
    makes_eager_frames,
    calls_many_levels,
]


async def swallowing(awaitable):
    try:
        await awaitable
    except (ValueError, KeyError, RecursionError):
        pass


async def as_a_call(fb, function, wait):
    await swallowing(fb.with_portal_run_sync(function, wait))


async def as_a_call_while_handling(fb, function, wait):
    try:
        raise LookupError("what the caller handles")
    except LookupError:
        await swallowing(fb.with_portal_run_sync(function, wait))


async def as_a_coroutine(fb, function, wait):
    async def coroutine():
        function(wait)

    await swallowing(fb.with_portal_run(coroutine))


class ByHand:
    """What looks like a coroutine and is none: its methods' frames are at the bottom."""

    def __init__(self, function):
        self.function = function

    def send(self, value):
        self.function()
        raise StopIteration(None)

    def throw(self, error, value=None, trace=None):
        raise error

    def close(self):
        pass

    def __await__(self):
        return self

    __iter__ = __await__

    def __next__(self):
        return self.send(None)


async def as_something_like_a_coroutine(fb, function, wait):
    async def awaiting():
        await fb._fiberback.Portal(ByHand(functools.partial(function, wait)))

    await swallowing(awaiting())


async def in_a_callback(fb, function, wait):
    """On a runner, or on the host."""
    done = asyncio.get_running_loop().create_future()

    def callback():
        try:
            function(wait)
        except (ValueError, KeyError, RecursionError):
            pass
        finally:
            done.set_result(None)

    asyncio.get_running_loop().call_soon(callback)
    await done


CALLS = [
    as_a_call,
    as_a_call_while_handling,
    as_a_coroutine,
    as_something_like_a_coroutine,
    in_a_callback,
]


@pytest.mark.parametrize("waits", [False, True], ids=["ready", "waits"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stack_serves_again(fb, kind, call, waits):
    if kind is is_interrupted and call is in_a_callback:
        pytest.skip("an interrupted callback ends the loop, as it does natively")

    def wait():
        if waits:
            fb.await_(asyncio.sleep(0))

    async def once():
        try:
            await call(fb, kind, wait)
        except KeyboardInterrupt:
            pass

    async def main():
        for _ in range(3):
            await once()
        before = fb.stats()
        for _ in range(10):
            await once()
        after = fb.stats()
        return before, after

    before, after = asyncio.run(main())
    kept.clear()
    kept_error.clear()
    assert after["stacks_leaked"] == before["stacks_leaked"]
    assert after["stacks_in_use"] <= before["stacks_in_use"]


def run_script(source, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.leaks
def test_a_stack_that_is_given_up_is_counted_and_told_once():
    done = run_script("""
        import asyncio, gc, threading, time
        import fiberback

        def sync():
            fiberback.await_(asyncio.sleep(60))

        async def work():
            sync()

        kept = []

        def thread():
            loop = asyncio.new_event_loop()
            loop.set_task_factory(fiberback.task_factory)
            kept.extend(loop.create_task(work()) for _ in range(3))
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()  # without a word to the tasks
            kept.append(loop)

        t = threading.Thread(target=thread)
        t.start()
        t.join()
        for _ in range(1000):  # the thread itself may need a moment more
            if fiberback.stats()["stacks_leaked"]:
                break
            time.sleep(0.01)
        assert fiberback.stats()["stacks_leaked"] == 3, fiberback.stats()
        kept.clear()
        gc.collect()
        print(fiberback.stats()["stacks_leaked"])
    """)
    assert done.stdout == "3\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    says(done.stderr, "leaked-thread", "asyncio.run()")


@pytest.mark.leaks
def test_a_stack_on_which_something_is_left_behind_is_told():
    done = run_script("""
        import asyncio, contextvars, ctypes
        import fiberback

        def leaves():
            fiberback.await_(asyncio.sleep(0))
            ctypes.pythonapi.PyContext_Enter(ctypes.py_object(contextvars.Context()))

        async def main():
            await fiberback.with_portal_run_sync(leaves)
            print(fiberback.stats()["stacks_leaked"])

        asyncio.run(main())
    """)
    assert done.stdout == "1\n", done.stderr
    says(done.stderr, "leaked-frames", "PyContext_Exit()")


@pytest.mark.leaks
def test_a_portal_that_will_not_end_is_counted_and_told():
    done = run_script("""
        import asyncio, gc
        import fiberback

        def stubborn():
            while True:
                try:
                    fiberback.await_(asyncio.sleep(60))
                except BaseException:
                    pass

        async def main():
            portal = fiberback._fiberback.Portal(fiberback.with_portal_run_sync(stubborn))
            portal.send(None)
            del portal
            gc.collect()
            print(fiberback.stats()["stacks_leaked"])

        asyncio.run(main())
    """)
    assert done.stdout == "1\n", done.stderr
    says(done.stderr, "leaked-waiting")


@pytest.mark.leaks
def test_told_where_warnings_are_errors():
    """There is nobody to raise it to; nothing else changes."""
    done = run_script(
        """
        import asyncio, gc
        import fiberback

        def stubborn():
            while True:
                try:
                    fiberback.await_(asyncio.sleep(60))
                except BaseException:
                    pass

        async def main():
            for _ in range(2):
                portal = fiberback._fiberback.Portal(fiberback.with_portal_run_sync(stubborn))
                portal.send(None)
                try:
                    raise KeyError
                except KeyError:
                    del portal
                    gc.collect()
            print(fiberback.stats()["stacks_leaked"])

        asyncio.run(main())
        """,
        "-W",
        "error::RuntimeWarning",
    )
    assert done.stdout == "2\n", done.stderr
    assert "goes on waiting" in done.stderr, done.stderr
    assert "sys.unraisablehook" in done.stderr or "Exception ignored" in done.stderr, done.stderr


def test_the_suite_hears_of_its_subprocesses():
    """at_exit/sitecustomize.py is in place: what else would find leaks in them?"""
    import leaks

    done = run_script("""
        import sys, types, threading
        import sitecustomize
        print(sitecustomize.tell.__module__)
        import fiberback._fiberback as native
        sys.modules["fiberback._fiberback"] = types.SimpleNamespace(stats=lambda: {"stacks_leaked": 2})
    """)
    assert done.stdout == "sitecustomize\n", done.stderr
    (line,) = leaks.in_subprocesses()
    assert line.startswith("{'stacks_leaked': 2} by ")


def test_in_threads_that_end(fb):
    def work():
        def sync():
            handles_in_its_own_frame(lambda: fb.await_(asyncio.sleep(0)))

        async def main():
            await fb.with_portal_run_sync(sync)

        asyncio.run(main())

    before = fb.stats()["stacks_leaked"]
    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fb.stats()["stacks_leaked"] == before
