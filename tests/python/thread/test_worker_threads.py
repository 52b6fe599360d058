"""`await_` in worker threads: on the loop that the thread works for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

LIMIT = 30  # seconds; what should take none


async def executor(fn, *args):
    return await asyncio.get_running_loop().run_in_executor(None, fn, *args)


async def pool(fn, *args):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, fn, *args)


async def told(fn, *args):
    """A plain thread that is told."""
    import fiberback

    loop = asyncio.get_running_loop()
    done = loop.create_future()
    context = contextvars.copy_context()

    def settle(result, error):
        if not done.done():
            done.set_exception(error) if error else done.set_result(result)

    def work():
        result = error = None
        try:
            with fiberback.parent_loop(loop):
                result = context.run(fn, *args)
        except BaseException as raised:
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        return await done
    finally:
        thread.join()


async def ours(fn, *args):
    import fiberback

    return await fiberback.to_thread(fn, *args)


WAYS = {
    "to_thread": asyncio.to_thread,
    "run_in_executor": executor,
    "pool": pool,
    "fiberback.to_thread": ours,
    "parent_loop": told,
}


@pytest.fixture(params=WAYS)
def in_thread(request):
    return WAYS[request.param]


@pytest.fixture(autouse=True)
def no_runner_is_opened(fb, monkeypatch):
    """None of this may fall back to a runner of the thread's own."""
    from fiberback._thread import runner

    opened = []
    monkeypatch.setattr(runner.ThreadRunner, "_open", lambda self: opened.append(self))
    yield
    assert opened == []


async def where():
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), threading.get_ident()


async def native(result=7):
    await asyncio.sleep(0.001)
    return result


def test_runs_on_the_loop(aio, fb, in_thread):
    def work():
        here = threading.get_ident()
        return here, fb.await_(where()), fb.await_(where())

    async def main():
        loop, mine = asyncio.get_running_loop(), threading.get_ident()
        here, *found = await in_thread(work)
        assert here != mine
        assert found == [(loop, mine)] * 2
        return "same"

    assert aio.run(main) == "same"


def test_tasks_and_futures_of_the_loop(aio, fb, in_thread):
    def work(task, future):
        return fb.await_(task), fb.await_(future), fb.await_(asyncio.gather(task, future))

    async def main():
        loop = asyncio.get_running_loop()
        task, future = asyncio.create_task(native("task")), loop.create_future()
        loop.call_later(0.01, future.set_result, "future")
        return await in_thread(work, task, future)

    def gather_needs_a_loop(outcome):
        return outcome[:2] == ("task", "future") and outcome[2] == ["task", "future"]

    assert gather_needs_a_loop(aio.run(main))


def test_a_future_tells_its_loop(fb):
    """Also in a thread that knows nothing, if the future's loop runs in another one."""

    def work(task):
        return fb.await_(task)

    async def main():
        task = asyncio.create_task(native("task"))
        result = []
        thread = threading.Thread(target=lambda: result.append(work(task)))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        return result

    assert asyncio.run(main()) == ["task"]


def test_many_threads_at_once(aio, fb, in_thread):
    def work(n):
        return sum(fb.await_(native(n)) for _ in range(10))

    async def main():
        return await asyncio.gather(*(in_thread(work, n) for n in range(20)))

    assert aio.run(main) == [10 * n for n in range(20)]


def test_many_short_work_items(aio, fb):
    """The item begins before asyncio has got to awaiting it: its loop is found all the same."""

    def work(n):
        return fb.await_(where())[0], n

    async def main():
        loop = asyncio.get_running_loop()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for n in range(300):
                assert await loop.run_in_executor(None, work, n) == (loop, n)
        finally:
            sys.setswitchinterval(interval)

    aio.run(main)


def test_the_loop_is_late_to_await_what_it_has_submitted(fb):
    """As it is where the machine is so busy that its thread gets no turn meanwhile."""

    class Late(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *args, **kwds):
            future = super().submit(*args, **kwds)
            asks.wait(60)
            time.sleep(1)
            return future

    def work():
        asks.set()
        return fb.await_(where())

    asks = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        with Late(1) as executor:
            found, _ = await loop.run_in_executor(executor, work)
            assert found is loop

    asyncio.run(main())


def test_contextvars_go_both_ways(aio, fb, in_thread):
    variable = contextvars.ContextVar("variable", default="default")

    async def change():
        seen = variable.get()
        variable.set("coroutine")
        await asyncio.sleep(0)
        return seen

    def work():
        variable.set("thread")
        assert fb.await_(change()) == "thread"
        assert variable.get() == "coroutine"
        return "changed"

    async def main():
        variable.set("caller")
        result = await in_thread(work)
        assert variable.get() == "caller"
        return result

    assert aio.run(main) == "changed"


def test_exceptions_with_their_tracebacks(aio, fb, in_thread):
    async def deep():
        await asyncio.sleep(0)
        raise KeyError("deep")

    async def fails():
        await deep()

    def work():
        with pytest.raises(KeyError) as caught:
            fb.await_(fails())
        names = [entry.name for entry in caught.traceback]
        assert names[0] == "work"
        assert names[-2:] == ["fails", "deep"]
        fb.await_(fails())

    async def main():
        with pytest.raises(KeyError) as caught:
            await in_thread(work)
        text = "".join(traceback.format_exception(caught.value))
        assert "in work" in text and "in deep" in text

    aio.run(main)


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, StopAsyncIteration])
def test_unusual_exceptions(aio, fb, kind):
    async def fails():
        await asyncio.sleep(0)
        raise kind("special")

    def work():
        with pytest.raises(kind, match="special"):
            fb.await_(fails())
        return fb.await_(native())

    async def main():
        return await fb.to_thread(work), await asyncio.to_thread(work)

    assert aio.run(main) == (7, 7)


def test_what_is_not_awaitable(aio, fb, in_thread):
    def work():
        for thing in (None, 5, native):
            with pytest.raises(TypeError, match="can't be"):
                fb.await_(thing)
        return "refused"

    async def main():
        return await in_thread(work)

    assert aio.run(main) == "refused"


def test_sync_code_below_the_coroutine_awaits(aio, fb, in_thread):
    async def outer():
        def sync():
            return fb.await_(native("inner"))

        return sync()

    def work():
        return fb.await_(outer())

    async def main():
        return await in_thread(work)

    assert aio.run(main) == "inner"


def test_threads_below_threads(aio, fb):
    def work(depth):
        if depth == 0:
            return fb.await_(native("bottom"))
        how = [asyncio.to_thread, fb.to_thread][depth % 2]
        return fb.await_(how(work, depth - 1))

    async def main():
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(10))
        return await fb.to_thread(work, 6)

    assert aio.run(main) == "bottom"


# Cancellation and timeouts.


@pytest.mark.parametrize("how", ["to_thread", "run_in_executor", "fiberback.to_thread"])
def test_cancelling_the_awaiting_task(aio, fb, how):
    log = []
    waiting = threading.Event()

    async def forever():
        try:
            waiting.set()
            await asyncio.sleep(60)
        finally:
            log.append("coroutine")

    def work():
        try:
            fb.await_(forever())
        except asyncio.CancelledError:
            log.append("thread")
            assert fb.await_(native("clean-up")) == "clean-up"
            raise
        finally:
            over.set()

    async def main():
        task = asyncio.create_task(WAYS[how](work))
        while not waiting.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not over.is_set():
            await asyncio.sleep(0.001)
        return "cancelled"

    over = threading.Event()
    assert aio.run(main) == "cancelled"
    assert log == ["coroutine", "thread"]


def test_timeouts_around(aio, fb):
    def work():
        fb.await_(asyncio.sleep(60))

    async def main():
        for how in (fb.to_thread, asyncio.to_thread):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await how(work)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(how(work), 0.05)
        assert asyncio.current_task().cancelling() == 0
        return "timed out"

    assert aio.run(main) == "timed out"


def test_timeouts_inside(aio, fb, in_thread):
    async def timeout():
        return asyncio.timeout(0.05)

    def work():
        with pytest.raises(TimeoutError):
            fb.await_(asyncio.wait_for(asyncio.sleep(60), 0.05))
        # Entered by one await_, in force in another.
        with pytest.raises(TimeoutError), fb.async_context(fb.await_(timeout())):
            fb.await_(asyncio.sleep(60))
        return fb.await_(native())

    async def main():
        return await in_thread(work)

    assert aio.run(main) == 7


def test_a_timeout_that_expires_between_two_calls(aio, fb, in_thread):
    async def timeout():
        return asyncio.timeout(0.02)

    def work():
        with pytest.raises(TimeoutError), fb.async_context(fb.await_(timeout())):
            time.sleep(0.2)
            fb.await_(asyncio.sleep(60))
        return fb.await_(native())

    async def main():
        return await in_thread(work)

    assert aio.run(main) == 7


def test_task_group_across_calls(aio, fb, in_thread):
    async def fails():
        await asyncio.sleep(0.01)
        raise KeyError

    def work():
        with pytest.raises(ExceptionGroup):
            with fb.async_context(asyncio.TaskGroup()) as group:
                start(group)
                fb.await_(asyncio.sleep(60))
        return fb.await_(native())

    def start(group):
        async def create():
            group.create_task(fails())

        fb.await_(create())

    async def main():
        return await in_thread(work)

    assert aio.run(main) == 7


def test_to_thread_is_the_awaiting_task(aio, fb):
    async def current():
        return asyncio.current_task()

    def work():
        return fb.await_(current())

    async def main():
        assert await fb.to_thread(work) is asyncio.current_task()
        # With asyncio's, a task that stays the same while the function runs.
        found = await asyncio.to_thread(lambda: [work(), work()])
        assert found[0] is found[1] is not asyncio.current_task()
        await asyncio.sleep(0.01)
        assert found[0].done()
        return len(asyncio.all_tasks())

    assert aio.run(main) == 1


def test_to_thread_delivers_a_cancellation_that_came_too_early(aio, fb):
    def work():
        begun.set()
        go_on.wait(LIMIT)
        with pytest.raises(asyncio.CancelledError):
            fb.await_(native())
        return fb.await_(native("swallowed"))

    async def main():
        task = asyncio.create_task(fb.to_thread(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        go_on.set()
        return await task

    begun, go_on = threading.Event(), threading.Event()
    assert aio.run(main) == "swallowed"


def test_to_thread_is_cancelled_though_the_function_never_awaits(aio, fb):
    def work():
        begun.set()
        go_on.wait(LIMIT)
        return "ignored"

    async def main():
        task = asyncio.create_task(fb.to_thread(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel("message")
        await asyncio.sleep(0.01)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    begun, go_on = threading.Event(), threading.Event()
    assert aio.run(main)


def test_to_thread_withdraws_what_has_not_begun(aio, fb):
    called = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        first = asyncio.create_task(asyncio.to_thread(go_on.wait, LIMIT))
        await asyncio.sleep(0.01)
        task = asyncio.create_task(fb.to_thread(called.append, 1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await first

    go_on = threading.Event()
    aio.run(main)
    assert called == []


def test_to_thread_passes_arguments_results_and_errors(aio, fb):
    def fails():
        raise KeyError("sync")

    def stops():
        raise StopIteration

    async def main():
        assert await fb.to_thread(divmod, 7, 2) == (3, 1)
        assert await fb.to_thread(dict, a=1, fn=2) == {"a": 1, "fn": 2}
        with pytest.raises(KeyError) as caught:
            await fb.to_thread(fails)
        assert [e.name for e in caught.traceback][-1] == "fails"
        with pytest.raises(RuntimeError):
            await fb.to_thread(stops)
        return "passed"

    assert aio.run(main) == "passed"


def test_to_thread_outside_a_loop(fb):
    coro = fb.to_thread(print)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coro.send(None)


def test_results_are_not_kept_alive(aio, fb):
    class Result:
        pass

    def work():
        result = fb.await_(native(Result()))
        refs.append(weakref.ref(result))
        return result

    async def main():
        for how in (fb.to_thread, asyncio.to_thread):
            await how(work)
        await asyncio.sleep(0.05)
        gc.collect()
        return [one() for one in refs]

    refs = []
    assert aio.run(main) == [None, None]


# Loops that do not answer.


@contextlib.contextmanager
def loop_in_a_thread(aio):
    """An event loop that runs in another thread; yields it and a function that stops it."""
    ready = threading.Event()

    def run():
        nonlocal loop
        loop = aio._loop_factory() if aio._loop_factory else asyncio.new_event_loop()
        loop.call_soon(ready.set)
        loop.run_forever()

    loop = None
    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()

    def stop():
        if thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    try:
        yield loop, stop
    finally:
        stop()
        loop.close()


def test_a_main_thread_works_for_a_loop_elsewhere(aio, fb):
    with loop_in_a_thread(aio) as (loop, _):
        with fb.parent_loop(loop):
            assert fb.await_(where())[0] is loop
            # Blocks nest; the innermost holds.
            with loop_in_a_thread(aio) as (other, _), fb.parent_loop(other):
                assert fb.await_(where())[0] is other
            assert fb.await_(where())[0] is loop


def test_a_loop_that_is_closed(aio, fb, recwarn):
    with loop_in_a_thread(aio) as (loop, stop):
        stop()
    with fb.parent_loop(loop), pytest.raises(RuntimeError, match="closed"):
        fb.await_(native())
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_a_loop_that_is_closed_while_a_thread_waits(aio, fb):
    with loop_in_a_thread(aio) as (loop, stop):

        def end():
            stop()
            loop.close()

        with fb.parent_loop(loop), pytest.raises(RuntimeError, match="closed|not running"):
            threading.Timer(0.1, end).start()
            fb.await_(asyncio.sleep(60))


def test_a_loop_that_stops(aio, fb):
    with loop_in_a_thread(aio) as (loop, stop):
        with fb.parent_loop(loop), pytest.raises(RuntimeError, match="not\\s+running"):
            threading.Timer(0.1, stop).start()
            fb.await_(asyncio.sleep(60))


def test_a_loop_that_pauses_goes_on(fb):
    """Between two runs is not the end."""
    loop = asyncio.new_event_loop()

    def run():
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0.05))
            time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with fb.parent_loop(loop):
            assert fb.await_(asyncio.sleep(0.12, "woken")) == "woken"
    finally:
        thread.join()
        loop.close()


def test_the_loop_ends_while_its_threads_wait(aio, fb):
    """asyncio.run() cancels what is left: the thread's await_ among it."""
    outcome = []

    def work():
        try:
            fb.await_(asyncio.sleep(60))
        except BaseException as error:
            outcome.append(error)

    async def main():
        asyncio.get_running_loop().run_in_executor(None, work)
        await asyncio.sleep(0.05)

    aio.run(main)
    assert [type(error) for error in outcome] == [asyncio.CancelledError]


def test_not_a_loop(fb):
    for thing in (None, 5, object()):
        with pytest.raises(TypeError, match=r"parent_loop\(asyncio.get_running_loop\(\)\)"):
            fb.parent_loop(thing)


# The loop waits for the thread that waits for the loop.


def blocked_by_result(loop, work, pool):
    return pool.submit(work).result()


def blocked_by_exception(loop, work, pool):
    raise pool.submit(work).exception()


def blocked_by_wait(loop, work, pool):
    future = pool.submit(work)
    concurrent.futures.wait([future])
    return future.result()


def blocked_by_shutdown(loop, work, pool):
    future = pool.submit(work)
    pool.shutdown()
    return future.result()


def blocked_by_map(loop, work, pool):
    return list(pool.map(lambda _: work(), [1]))


def blocked_by_join(loop, work, pool):
    outcome = []

    def target():
        try:
            work()
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    raise outcome[0]


def blocked_by_another_thread(loop, work, pool):
    """The loop waits for a thread that waits for the thread that waits for the loop."""
    return pool.submit(lambda: pool.submit(work).result()).result()


BLOCKED = [
    blocked_by_result,
    blocked_by_exception,
    blocked_by_wait,
    blocked_by_shutdown,
    blocked_by_map,
    blocked_by_join,
    blocked_by_another_thread,
]


@pytest.mark.parametrize("in_callback", [False, True], ids=["task", "callback"])
@pytest.mark.parametrize("blocked", BLOCKED, ids=lambda blocked: blocked.__name__)
def test_self_deadlock(aio, fb, blocked, in_callback):
    async def main():
        loop = asyncio.get_running_loop()

        def work():
            with fb.parent_loop(loop):
                return fb.await_(native())

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            call = functools.partial(blocked, loop, work, pool)
            if not in_callback:
                return call()
            done = loop.create_future()

            def callback():
                try:
                    done.set_result(call())
                except BaseException as error:
                    done.set_exception(error)

            loop.call_soon(callback)
            return await done

    with pytest.raises(RuntimeError, match="deadlock") as caught:
        aio.run(main)
    text = str(caught.value)
    assert "Thread 'MainThread':" in text
    assert f"in {blocked.__name__}" in text
    assert "in work" in text


def test_self_deadlock_after_the_loop_has_begun_with_it(aio, fb):
    async def main():
        loop = asyncio.get_running_loop()

        def work():
            with fb.parent_loop(loop):
                return fb.await_(asyncio.sleep(60))

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            await asyncio.sleep(0.1)
            future.result()

    with pytest.raises(RuntimeError, match="deadlock"):
        aio.run(main)


@pytest.mark.parametrize("with_asgiref", [False, True])
@pytest.mark.parametrize("own_context", [False, True])
def test_self_deadlock_in_what_the_thread_awaits(aio, fb, own_context, with_asgiref, monkeypatch):
    """The loop is in the middle of a step in the thread's own context, which cannot go back to it."""
    if with_asgiref:
        import_or_skip("asgiref.sync")
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(str(args.exc_value)))
    # From 3.14 on each thread has a context of its own, which ends with the thread.
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(str(args.exc_value)))
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def main():
        loop = asyncio.get_running_loop()

        def work():
            variable.set("the thread's")
            try:
                with fb.parent_loop(loop):
                    return fb.await_(blocks())
            finally:
                if not own_context:
                    seen.append(variable.get())
                    variable.set("set afterwards")

        async def blocks():
            variable.set("set in between")
            return future.result()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            run = contextvars.copy_context().run if own_context else (lambda fn: fn())
            future = pool.submit(run, work)
            try:
                return await asyncio.wrap_future(future)
            finally:
                seen.append(await asyncio.wrap_future(pool.submit(variable.get)))

    with pytest.raises(RuntimeError) as caught:
        aio.run(main)
    if own_context or sys.version_info >= (3, 14):
        assert any("deadlock" in each for each in [*told, str(caught.value)])
    else:
        assert "deadlock" in str(caught.value)
        assert told == []
    # The last one is what the thread's next job finds.
    assert seen == (["none"] if own_context else ["set in between", "set afterwards"])


def test_a_loop_that_waits_for_some_time_only(aio, fb):
    """With a timeout the loop goes on by itself: no deadlock."""

    async def main():
        loop = asyncio.get_running_loop()

        def work():
            with fb.parent_loop(loop):
                return fb.await_(native("late"))

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            with pytest.raises(concurrent.futures.TimeoutError):
                future.result(timeout=1)
            return await asyncio.wrap_future(future)

    assert aio.run(main) == "late"


def test_a_loop_that_is_busy_with_something_else_is_warned_of(fb, monkeypatch):
    from fiberback._thread import channel

    monkeypatch.setattr(channel, "_BUSY", 0.2)

    def work():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fb.await_(native())
        return result, caught

    async def main():
        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        time.sleep(1)
        return await task

    result, caught = asyncio.run(main())
    assert result == 7
    assert [one.category for one in caught] == [RuntimeWarning]
    assert caught[0].filename == __file__
    assert "in main" in str(caught[0].message)


# Interrupts.


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_in_a_thread_that_waits(aio, fb):
    log = []

    async def forever():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            log.append("cleaned up")

    with loop_in_a_thread(aio) as (loop, _), fb.parent_loop(loop):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            fb.await_(forever())
        assert log == ["cleaned up"]
        assert fb.await_(native()) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("how", ["to_thread", "fiberback.to_thread"])
def test_ctrl_c_in_the_loop(fb, how):
    log = []

    def work():
        try:
            fb.await_(asyncio.sleep(60))
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        await WAYS[how](work)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert log == ["cancelled"]


# Knowing the loop by the context, and from others' threads.


def test_pool_threads_in_a_context_of_run(fb):
    def work():
        return fb.await_(where())[0]

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(contextvars.copy_context().run, work)
            while not future.done():
                await asyncio.sleep(0.001)
            return future.result() is asyncio.get_running_loop()

    assert fb.run(main())


def test_a_context_that_outlives_its_loop(fb):
    async def main():
        return contextvars.copy_context()

    context = fb.run(main())
    outcome = []

    def work():
        try:
            fb.await_(native())
        except RuntimeError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=context.run, args=(work,))
    thread.start()
    thread.join()
    assert len(outcome) == 1 and "closed" in outcome[0]


def test_initializer_of_a_pool(aio, fb):
    def work():
        return fb.await_(where())[0]

    async def main():
        loop = asyncio.get_running_loop()
        initializer = fb.parent_loop(loop).__enter__
        with concurrent.futures.ThreadPoolExecutor(2, initializer=initializer) as pool:
            futures = [pool.submit(work) for _ in range(5)]
            while not all(future.done() for future in futures):
                await asyncio.sleep(0.001)
            return all(future.result() is loop for future in futures)

    assert aio.run(main)


def test_trio_threads(fb):
    trio = import_or_skip("trio")
    log = []

    async def inner():
        await trio.sleep(0)
        return trio.lowlevel.current_task(), variable.set("coroutine")

    def work():
        assert fb.await_(inner())[0] is task
        assert variable.get() == "coroutine"

        async def nested():
            return (lambda: fb.await_(inner()))()[0]

        assert fb.await_(nested()) is task
        with pytest.raises(KeyError):
            fb.await_(fails())
        return "done"

    async def fails():
        await trio.sleep(0)
        raise KeyError

    def waits():
        try:
            fb.await_(trio.sleep(60))
        except trio.Cancelled:
            log.append("cancelled")
            raise

    async def main():
        nonlocal task
        task = trio.lowlevel.current_task()
        for in_thread in (trio.to_thread.run_sync, fb.to_thread):
            assert await in_thread(work) == "done"
            with trio.move_on_after(0.05) as scope:
                await in_thread(waits)
            assert scope.cancelled_caught
        token = trio.lowlevel.current_trio_token()
        result = []

        def raw():
            with fb.parent_loop(token):
                result.append(fb.await_(sleep_and_return()))

        thread = threading.Thread(target=raw)
        thread.start()
        while thread.is_alive():
            await trio.sleep(0.001)
        return result, token

    async def sleep_and_return():
        await trio.sleep(0)
        return "raw"

    variable = contextvars.ContextVar("variable")
    task = None
    result, token = trio.run(main)
    assert result == ["raw"]
    assert log == ["cancelled"] * 2
    with fb.parent_loop(token), pytest.raises(RuntimeError, match="closed"):
        fb.await_(sleep_and_return())


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_anyio_threads(fb, library):
    anyio = import_or_skip("anyio")
    if library == "trio":
        import_or_skip("trio")
    log = []

    async def inner():
        await anyio.sleep(0)
        variable.set("coroutine")
        return threading.get_ident()

    def work():
        assert fb.await_(inner()) == main_thread
        assert variable.get() == "coroutine"
        with pytest.raises(KeyError):
            fb.await_(fails())
        return "done"

    async def fails():
        await anyio.sleep(0)
        raise KeyError

    def waits():
        try:
            fb.await_(anyio.sleep(60))
        except BaseException:
            log.append("cancelled")
            raise

    async def main():
        assert await anyio.to_thread.run_sync(work) == "done"
        with anyio.move_on_after(0.05) as scope:
            await anyio.to_thread.run_sync(waits)
        return scope.cancelled_caught

    variable = contextvars.ContextVar("variable")
    main_thread = threading.get_ident()
    assert anyio.run(main, backend=library)
    assert log == ["cancelled"]


def test_asgiref_like_executors(fb):
    """A loop in a thread whose work items run in the main thread."""

    class _WorkItem:
        def __init__(self, future, fn):
            self.future, self.fn = future, fn

        def run(self):
            self.future.set_running_or_notify_cancel()
            try:
                self.future.set_result(self.fn())
            except BaseException as error:
                self.future.set_exception(error)

    class MainThread(concurrent.futures.Executor):
        def submit(self, fn, *args, **kwds):
            item = _WorkItem(concurrent.futures.Future(), functools.partial(fn, *args, **kwds))
            queue.put(item)
            return item.future

    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(MainThread(), work) is loop

    def work():
        return fb.await_(where())[0]

    import queue as queues

    queue = queues.Queue()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(asyncio.run(main())))
    thread.start()
    queue.get().run()
    thread.join()
    assert outcome == [True]


def test_the_dropin_still_refuses(fb):
    greenback = import_or_skip("fiberback.greenback")
    sniffio = import_or_skip("sniffio")

    def work():
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            greenback.await_(native())
        return "refused"

    async def main():
        return await asyncio.to_thread(work)

    assert asyncio.run(main()) == "refused"
