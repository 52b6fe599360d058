"""`fiberback.asgiref`: asgiref's functions where a loop runs, without a thread, and without its deadlocks."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from saying import says
from support import AsyncioBackend, TrioBackend, import_or_skip, only_fiberback

stock = import_or_skip("asgiref.sync")
import fiberback.asgiref as ours  # noqa: E402
from asgiref.local import Local  # noqa: E402
from fiberback.asgiref import (  # noqa: E402
    AsyncSingleThreadContext,
    ThreadSensitiveContext,
    _async_to_sync,
    _sync_to_async,
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def single_thread(monkeypatch):
    """A pool of the test's own, so that a hang in one test is not one in the next."""
    pool = ThreadPoolExecutor(1)
    monkeypatch.setattr(stock.SyncToAsync, "single_thread_executor", pool)
    yield pool
    pool.shutdown(wait=False)


def uvloop():
    return AsyncioBackend("uvloop", import_or_skip("uvloop").new_event_loop)


def run(main):
    async def limited():
        async with asyncio.timeout(60):
            return await main()

    return asyncio.run(limited())


def where():
    return threading.get_ident()


@async_to_sync
async def double(number):
    await asyncio.sleep(0)
    return number * 2


def five_deep(fn, depth=5):
    return fn() if depth == 0 else five_deep(fn, depth - 1)


# --- async_to_sync where a loop runs -----------------------------------------------------------------


def test_in_the_loop_s_own_thread_others_go_on(fb):
    order = []

    async def slow(go_on):
        await go_on.wait()
        return where()

    async def other(go_on):
        order.append("other")
        go_on.set()

    async def main():
        go_on = asyncio.Event()
        task = asyncio.create_task(other(go_on))
        assert five_deep(functools.partial(async_to_sync(slow), go_on)) == where()
        order.append("main")
        await task

    run(main)
    assert order == ["other", "main"]


def test_in_a_callback_of_the_loop(fb):
    async def main():
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(double(4)))
        return await done

    assert run(main) == 8


def test_uvloop_with_and_without_a_portal(fb):
    async def main():
        with pytest.raises(RuntimeError, match=r"enable\(\).*\[fiberback:loop-no-portal\]"):
            double(4)
        assert await sync_to_async(double, on_fiber=True)(3) == 6
        assert await sync_to_async(double)(5) == 10
        return await fb.with_portal_run_sync(double, 4)

    assert uvloop().run(main) == 8


def test_trio_with_and_without_a_portal(fb):
    backend = TrioBackend()

    @async_to_sync
    async def doubled(number):
        await backend.sleep(0)
        return number * 2

    async def main():
        with pytest.raises(RuntimeError, match=r"\[fiberback:trio-no-portal\]"):
            doubled(4)
        assert await sync_to_async(doubled, on_fiber=True)(3) == 6
        assert await fb.with_portal_run_sync(async_to_sync(on_asyncio, force_new_loop=True), 4) == 8
        return await fb.with_portal_run_sync(doubled, 4)

    async def on_asyncio(number):
        await asyncio.sleep(0)
        return number * 2

    assert backend.run(main) == 8


@pytest.mark.parametrize("on_fiber", [False, True])
def test_cancelling_reaches_what_it_waits_for(fb, on_fiber):
    log = []

    async def forever():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("inner")
            raise

    def function():
        try:
            async_to_sync(forever)()
        except asyncio.CancelledError:
            log.append("outer")
            raise

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sync_to_async(function, on_fiber=on_fiber)(), 0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                function()

    run(main)
    assert log == ["inner", "outer"] * 2


def test_a_loop_of_its_own(fb):
    """`force_new_loop` where a loop runs: that goes on."""

    async def loop_and_thread():
        variable.set("changed")
        return asyncio.get_running_loop(), await stock.sync_to_async(where)()

    async def main():
        ticks = []
        asyncio.get_running_loop().call_soon(ticks.append, 1)
        variable.set("before")
        loop, thread = async_to_sync(loop_and_thread, force_new_loop=True)()
        assert loop is not asyncio.get_running_loop() and loop.is_closed()
        assert thread != where()
        assert ticks == [1]
        return variable.get()

    assert run(main) == "changed"


# --- what is the same on both sides ------------------------------------------------------------------


async def by_the_loop(function):
    return function()


async def by_a_thread(function):
    return await sync_to_async(function)()


async def by_another_thread(function):
    return await sync_to_async(function, thread_sensitive=False)()


async def by_a_fiber(function):
    return await sync_to_async(function, on_fiber=True)()


async def by_a_new_loop(function):
    """Sync code that no loop awaits."""
    result = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: result.append(context.run(function)))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    for var, value in context.items():
        var.set(value)
    return result[0]


PLACES = [by_the_loop, by_a_thread, by_another_thread, by_a_fiber]


@pytest.fixture(params=[*PLACES, by_a_new_loop], ids=lambda place: place.__name__)
def place(request):
    return request.param


def test_context_variables_go_both_ways(fb, place):
    async def inner():
        seen = variable.get()
        variable.set("inner")
        await asyncio.sleep(0)
        return seen

    def function():
        seen = variable.get()
        variable.set("function")
        assert async_to_sync(inner)() == "function"
        assert variable.get() == "inner"
        variable.set("end")
        return seen

    async def main():
        variable.set("main")
        assert await place(function) == "main"
        return variable.get()

    assert run(main) == "end"


@pytest.mark.parametrize("where_to", PLACES, ids=lambda place: place.__name__)
def test_locals_go_both_ways(fb, where_to):
    local = Local()

    async def inner():
        seen = local.value
        local.value = "inner"
        await asyncio.sleep(0)
        assert await sync_to_async(lambda: local.value)() == "inner"
        return seen

    def function():
        local.value = "function"
        assert async_to_sync(inner)() == "function"
        return local.value

    async def main():
        local.value = "main"
        assert await where_to(function) == "inner"
        return local.value

    assert run(main) == "inner"


def test_the_exception_being_handled(fb, place):
    async def inner():
        await asyncio.sleep(0)
        return sys.exc_info()[0]

    def function():
        try:
            raise KeyError
        except KeyError:
            return async_to_sync(inner)()

    def outside():
        return sys.exc_info()[0]

    async def main():
        assert await place(function) is KeyError
        assert sys.exc_info() == (None, None, None)
        try:
            raise LookupError
        except LookupError:
            if place is not by_a_new_loop:
                assert await place(outside) is LookupError
            return sys.exc_info()[0]

    assert run(main) is LookupError


def test_exceptions_come_out(fb, place):
    class Special(Exception):
        pass

    async def inner():
        await asyncio.sleep(0)
        raise Special("inner")

    def function():
        try:
            async_to_sync(inner)()
        except Special as error:
            names = []
            trace = error.__traceback__
            while trace is not None:
                names.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            return names

    async def main():
        names = await place(function)
        assert (names[0], names[-1]) == ("function", "inner")

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_exceptions_that_are_none_of_the_loop_s(fb, error):
    """In a thread they are the thread's, as asgiref has it."""

    async def inner():
        raise error

    def function():
        with pytest.raises(RuntimeError if error is StopIteration else error):
            async_to_sync(inner)()
        return "went on"

    async def main():
        return await sync_to_async(function)()

    assert run(main) == "went on"


def test_in_a_thread_it_is_a_task_of_the_loop_that_awaits_it(fb):
    class Loop(asyncio.SelectorEventLoop):
        pass

    made = []

    def factory(loop, coro, **kwds):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwds)

    async def inner():
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return asyncio.get_running_loop(), asyncio.current_task()

    async def main():
        loop = asyncio.get_running_loop()
        found, task = await sync_to_async(async_to_sync(inner))()
        assert found is loop and task is not asyncio.current_task() and task.done()
        loop.set_task_factory(factory)
        assert (await sync_to_async(async_to_sync(inner))())[0] is loop
        assert made
        made.clear()
        loop.set_task_factory(None)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_a_loop_that_has_ended_is_not_waited_for(fb):
    """The thread remembers it: then a new one runs, as with asgiref."""
    handled = []

    async def inner():
        handled.append(sys.exc_info()[0])
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(1) as pool:

        async def main():
            await sync_to_async(where, thread_sensitive=False, executor=pool)()
            return asyncio.get_running_loop()

        before = asyncio.run(main())
        after = pool.submit(async_to_sync(inner)).result(timeout=60)
    assert before is not after and handled == [None]


def test_a_loop_that_stands_still_is_reported(fb):
    """asgiref waits for ever."""
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as pool:

        async def main():
            await sync_to_async(where, thread_sensitive=False, executor=pool)()

        loop.run_until_complete(main())
        with pytest.raises(RuntimeError, match=r"\[fiberback:loop-stopped\]"):
            pool.submit(double, 4).result(timeout=60)
    loop.run_until_complete(asyncio.sleep(0))  # it finds that nobody waits any more
    loop.close()


def test_without_a_loop(fb):
    """As asgiref's: the caller's thread does the thread-sensitive work."""

    async def inner():
        return await sync_to_async(where)(), where()

    sync_code, loop = async_to_sync(inner)()
    assert (sync_code == where()) and loop != where()
    with AsyncSingleThreadContext():
        assert len({async_to_sync(inner)()[1] for _ in range(3)}) == 1


@pytest.mark.parametrize("levels", [3, 60])
def test_nested_deep(fb, levels):
    """By turns in the loop's thread, on fibers, and in one other thread."""
    threads = set()

    async def down(level):
        if level == 0:
            return 0
        return await sync_to_async(up, on_fiber=level % 3 == 0)(level)

    def up(level):
        threads.add(where())
        return 1 + async_to_sync(down)(level - 1)

    async def main():
        return await down(levels)

    assert run(main) == levels
    threads.clear()
    assert async_to_sync(main)() == levels
    assert len(threads) <= 2


# --- sync_to_async on a fiber ------------------------------------------------------------------------


def test_on_a_fiber_no_thread_takes_part(fb):
    before = set(threading.enumerate())

    def function(number, *, plus):
        return where(), asyncio.current_task(), double(number) + plus

    async def main():
        found = await sync_to_async(function, on_fiber=True)(4, plus=1)
        assert found == (where(), asyncio.current_task(), 9)
        results = await asyncio.gather(
            *(sync_to_async(double, on_fiber=True)(n) for n in range(100))
        )
        assert results == [2 * n for n in range(100)]

    run(main)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("theirs", [False, True], ids=["ours", "asgiref's"])
def test_thread_sensitive_code_below_a_fiber_is_in_its_thread(fb, theirs):
    """That of the sync code further out; what is not thread-sensitive has another one."""
    module = stock if theirs else ours

    async def inner():
        task = asyncio.create_task(module.sync_to_async(where)())
        return (
            await module.sync_to_async(where)(),
            await task,
            await module.sync_to_async(where, thread_sensitive=False)(),
        )

    async def main():
        # The loop's own, whatever is outside of it.
        *sensitive, free = await sync_to_async(async_to_sync(inner), on_fiber=True)()
        assert set(sensitive) == {where()} and free != where()
        *sensitive, free = await sync_to_async(
            async_to_sync(inner, force_new_loop=True), on_fiber=True
        )()
        # And it is over with the function.
        assert await module.sync_to_async(where)() != where()

    run(main)


def test_from_another_loop_below_a_fiber(fb):
    """Thread-sensitive work comes to the fiber's thread, whose loop goes on."""

    def function():
        return double(1), where()

    async def other_loop():
        return where(), await sync_to_async(function)()

    def with_another_loop():
        return asyncio.run(other_loop())

    async def main():
        in_a_thread = async_to_sync(sync_to_async(with_another_loop, thread_sensitive=False))
        return await sync_to_async(in_a_thread, on_fiber=True)(), where()

    (other, (result, thread)), mine = run(main)
    assert (result, thread) == (2, mine) and other != mine


def test_a_context_of_its_own(fb):
    def function():
        assert variable.get() == "before"
        variable.set("changed")
        return double(4)

    async def main():
        variable.set("before")
        context = contextvars.copy_context()
        assert await sync_to_async(function, context=context, on_fiber=True)() == 8
        assert variable.get() == "before"
        return context.get(variable)

    assert run(main) == "changed"


def test_somebody_else_s_thread_handler(fb):
    """As that of Channels' `database_sync_to_async`, which closes connections around the function."""
    log = []

    class Around(ours.SyncToAsync):
        def thread_handler(self, loop, *args, **kwds):
            log.append("before")
            try:
                return super().thread_handler(loop, *args, **kwds)
            finally:
                log.append("after")

    async def main():
        assert await Around(double, on_fiber=True)(4) == 8
        assert await Around(double)(4) == 8

    run(main)
    assert log == ["before", "after"] * 2


# --- deadlocks that were reported of asgiref ---------------------------------------------------------


def in_a_task(awaitable):
    return asyncio.create_task(awaitable)


def with_a_timeout(awaitable):
    return asyncio.wait_for(awaitable, 60)


@pytest.mark.parametrize("way", [in_a_task, asyncio.gather, asyncio.shield, with_a_timeout])
@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("on_fiber", [False, True])
def test_249_and_348_a_task_calls_sync_code_again(fb, way, in_context, on_fiber):
    async def view():
        await way(sync_to_async(where)())
        await way(sync_to_async(double)(4))
        return "done"

    async def main():
        middleware = sync_to_async(async_to_sync(view), on_fiber=on_fiber)
        if not in_context:
            return await middleware()
        async with ThreadSensitiveContext():
            return await middleware()

    assert run(main) == "done"
    assert async_to_sync(main)() == "done"


def test_323_two_at_once_in_one_context(fb):
    """asgiref takes it for a deadlock."""

    async def main():
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(sync_to_async(where)(), context=context) for _ in range(3)]
        return await asyncio.gather(*tasks)

    assert len(set(run(main))) == 1


def test_323_started_by_sync_code_that_goes_on(fb):
    async def main():
        loop = asyncio.get_running_loop()
        tasks = []

        def function():
            started = threading.Event()

            def start():
                tasks.append(asyncio.create_task(sync_to_async(where)()))
                started.set()

            loop.call_soon_threadsafe(start)
            assert started.wait(60)
            return where()

        return await sync_to_async(function)(), await tasks[0]

    first, second = run(main)
    assert first == second


def test_323_a_real_deadlock_is_still_told(fb):
    """The single thread waits for a thread whose loop waits for the single thread."""

    async def inner():
        return await sync_to_async(where)()

    def function():
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(context.run, asyncio.run, inner()).result()

    async def main():
        await sync_to_async(function)()

    with pytest.raises(RuntimeError, match="Single thread executor already being used") as told:
        run(main)
    says(told.value, "asgiref-deadlock", "sync_to_async(fn, thread_sensitive=False)")


def test_495_a_refused_submission_is_no_deadlock(fb, monkeypatch, single_thread):
    async def main():
        closed = ThreadPoolExecutor(1)
        closed.shutdown()
        monkeypatch.setattr(stock.SyncToAsync, "single_thread_executor", closed)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="after shutdown"):
                await sync_to_async(where)()
        monkeypatch.setattr(stock.SyncToAsync, "single_thread_executor", single_thread)
        return await sync_to_async(where)()

    assert isinstance(run(main), int)


@pytest.mark.parametrize("outermost", [run, lambda main: async_to_sync(main)()])
@pytest.mark.parametrize("later", [0, 0.05])
@pytest.mark.parametrize("theirs", [False, True], ids=["ours", "asgiref's"])
def test_491_and_492_a_task_that_outlives_the_call(fb, outermost, later, theirs):
    """Be it ours, or asgiref's own, that is called last."""
    module = stock if theirs else ours

    async def main():
        done = asyncio.get_running_loop().create_future()

        async def task():
            await asyncio.sleep(later)
            done.set_result(await module.sync_to_async(where)())

        async def inner():
            keep.append(asyncio.create_task(task()))

        keep = []
        await sync_to_async(async_to_sync(inner))()
        return await done

    assert isinstance(outermost(main), int)


@pytest.mark.parametrize("in_context", [False, True])
def test_a_loop_in_the_thread_of_thread_sensitive_code(fb, in_context):
    """What is to run in that very thread does, on top of the loop; asgiref waits for ever, or refuses."""

    async def inner():
        return await sync_to_async(where)(), double(await sync_to_async(double)(4))

    def function():
        return where(), *asyncio.run(inner())

    async def main():
        if not in_context:
            return await sync_to_async(function)()
        async with ThreadSensitiveContext():
            return await sync_to_async(function)()

    first, second, result = run(main)
    assert (first, result) == (second, 16)
    first, second, result = async_to_sync(main)()
    assert (first, result) == (second, 16)
    assert first == where()


# --- as asgiref's ------------------------------------------------------------------------------------


def test_decorators_methods_and_attributes(fb):
    class Service:
        @async_to_sync
        async def get(self, number):
            """Gets."""
            return self, number

        @sync_to_async
        def load(self, number):
            """Loads."""
            return self, number

        @sync_to_async(on_fiber=True)
        def near(self, number):
            return self, number, where()

    class Callable:
        async def __call__(self, number):
            return number + 1

    service = Service()
    assert service.get(1) == (service, 1)
    assert service.get.__doc__ == "Gets." and service.load.__name__ == "load"

    async def main():
        assert await service.load(2) == (service, 2)
        assert await service.near(3) == (service, 3, where())
        assert async_to_sync(Callable())(4) == 5
        assert await sync_to_async(functools.partial(int, "12"), on_fiber=True)() == 12
        assert await sync_to_async(max, on_fiber=True)(1, 2) == 2

    run(main)
    assert sync_to_async(service.__repr__).__self__ is service
    assert async_to_sync(Callable().__call__).__self__.__class__ is Callable
    wrapped = sync_to_async(inspect.cleandoc)
    assert iscoroutinefunction(wrapped)
    assert (wrapped.__name__, wrapped.__wrapped__) == ("cleandoc", inspect.cleandoc)
    assert isinstance(wrapped, stock.SyncToAsync) and isinstance(double, stock.AsyncToSync)
    assert markcoroutinefunction is stock.markcoroutinefunction


def test_rubbish_is_refused(fb):
    async def coroutine_function():
        pass

    for rubbish in (1, coroutine_function, double.awaitable):
        with pytest.raises(TypeError, match="sync_to_async can only be applied to sync functions"):
            sync_to_async(rubbish, on_fiber=True)
    with pytest.raises(TypeError, match="executor must not be set when thread_sensitive"):
        sync_to_async(len, executor=ThreadPoolExecutor(1))
    with pytest.raises(TypeError, match="executor must not be set when on_fiber") as told:
        sync_to_async(len, thread_sensitive=False, executor=ThreadPoolExecutor(1), on_fiber=True)
    says(told.value, "asgiref-executor", "sync_to_async(fn, on_fiber=True)")
    called = coroutine_function()
    with pytest.warns(UserWarning, match="non-async-marked callable"):
        wrong = async_to_sync(called)

    async def main():
        with pytest.raises(TypeError) as told:
            wrong()
        says(told.value, "function-called", "async_to_sync")
        with pytest.warns(UserWarning, match="non-async-marked callable"):
            plain = async_to_sync(lambda: 1)
        for place in PLACES:
            with pytest.raises(TypeError):
                await place(plain)

    run(main)


def test_a_forked_child(tmp_path):
    program = """
import asyncio, os
from fiberback.asgiref import async_to_sync, sync_to_async

async def double(number):
    await asyncio.sleep(0)
    return 2 * number

def fork():
    child = os.fork()
    if child == 0:
        os._exit(async_to_sync(double)(21))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def main():
    print(await sync_to_async(fork)(), await sync_to_async(fork, on_fiber=True)())
    print(async_to_sync(double)(21))

asyncio.run(main())
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("42 42\n42\n", "", 0)


# --- install -----------------------------------------------------------------------------------------

# As Django's and Channels' own, made before anything is installed.
their_double = stock.async_to_sync(double.awaitable)
their_where = stock.sync_to_async(where)


@pytest.fixture
def untouched(monkeypatch):
    """`get_asgi_application` of `fiberback.django`, once called, leaves a wrapper there."""
    monkeypatch.setattr(stock.AsyncToSync, "__call__", _async_to_sync.stock_call)
    monkeypatch.setattr(stock.SyncToAsync, "__call__", _sync_to_async.stock_call)


def wrap_async_to_sync(monkeypatch, log):
    """As others do, and never take back."""
    wrapped = stock.AsyncToSync.__call__

    def call(self, *args, **kwds):
        log.append("wrapper")
        return wrapped(self, *args, **kwds)

    monkeypatch.setattr(stock.AsyncToSync, "__call__", call)


@pytest.mark.parametrize("when", ["before", "after"])
def test_install_beside_somebody_elses_wrapper(fb, untouched, monkeypatch, when):
    log = []

    async def main():
        if when == "before":
            wrap_async_to_sync(monkeypatch, log)
        for _ in range(2):
            ours.install()
            if when == "after" and not log:
                wrap_async_to_sync(monkeypatch, log)
            assert their_double(4) == 8
            ours.uninstall()
            log.clear()
            with pytest.raises(RuntimeError, match="same thread as an async event loop"):
                their_double(4)
            assert log == ["wrapper"]

    run(main)


def test_install_serves_those_that_have_imported_asgiref(fb, untouched):
    before = [vars(cls)["__call__"] for cls in (stock.AsyncToSync, stock.SyncToAsync)]

    async def main():
        with pytest.raises(RuntimeError, match="same thread as an async event loop"):
            their_double(4)
        with ours.install() as handle:
            assert repr(handle) == "<fiberback.asgiref.Installed: on_fiber=False>"
            assert their_double(4) == 8
            assert await their_where() != where()
            with ours.install(on_fiber=True):
                assert await their_where() == where() == await sync_to_async(where)()
                free = stock.sync_to_async(where, thread_sensitive=False)
                assert await free() != where()
                with ThreadPoolExecutor(1) as pool:
                    async with ThreadSensitiveContext(executor=pool):
                        assert await their_where() == pool.submit(where).result()
                async with ThreadSensitiveContext():
                    assert await their_where() == where()
            assert await their_where() != where()
        assert repr(handle) == "<fiberback.asgiref.Installed: undone>"
        with pytest.raises(RuntimeError, match="same thread as an async event loop"):
            their_double(4)

    run(main)
    ours.install(on_fiber=True)
    ours.install()
    ours.uninstall()
    ours.uninstall()
    assert before == [vars(cls)["__call__"] for cls in (stock.AsyncToSync, stock.SyncToAsync)]


def test_installed_on_fibers_code_below_sync_code_has_that_s_thread(fb):
    async def main():
        return await their_where(), where()

    with ours.install(on_fiber=True):
        sync_code, loop = async_to_sync(main)()
        assert sync_code == where() != loop


def test_undone_while_somebody_waits(fb):
    async def main():
        go_on = asyncio.Event()

        async def wait():
            await go_on.wait()
            return "done"

        with ours.install():
            wait = stock.async_to_sync(wait)
            tasks = [
                asyncio.create_task(sync_to_async(wait)()),
                asyncio.create_task(sync_to_async(wait, on_fiber=True)()),
            ]
            await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(*tasks)

    assert run(main) == ["done", "done"]


def test_an_older_asgiref_is_refused(tmp_path):
    program = 'import asgiref\nasgiref.__version__ = "3.8.1"\nimport fiberback.asgiref\n'
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    says(done.stderr, "unknown-asgiref", "3.8.1", "pip install")
