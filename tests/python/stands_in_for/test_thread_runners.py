"""`fiberback.threads` in the words of others: asyncio-thread-runner, AnyIO's portal, asyncio-anywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import subprocess
import sys
import threading

import fiberback
import pytest
import sdists
from fiberback.threads import LoopThread, ThreadRunner, asyncio_run, start_blocking_portal
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


async def double(number):
    await asyncio.sleep(0)
    return number * 2


async def fail():
    await asyncio.sleep(0)
    raise LookupError("deep")


def uvloop_factory():
    return import_or_skip("uvloop").new_event_loop


def places(function):
    """Where `function` is called: no loop, asyncio's, a portal on uvloop, uvloop without, a worker thread, Trio."""

    async def main():
        return function()

    async def in_thread():
        return await asyncio.to_thread(function)

    yield function()
    yield asyncio.run(main())
    yield fiberback.run(main(), loop_factory=uvloop_factory())
    with asyncio.Runner(loop_factory=uvloop_factory()) as runner:
        yield runner.run(main())
    yield asyncio.run(in_thread())
    yield import_or_skip("trio").run(main)


# --- asyncio-thread-runner -------------------------------------------------------------------------


def test_thread_runner():
    @contextlib.asynccontextmanager
    async def session():
        await asyncio.sleep(0)
        yield asyncio.get_running_loop()

    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    def function():
        with runner.wrap_context(session()) as loop, runner.wrap_context(session) as same:
            assert loop is same is runner.loop
        assert runner.run_as_future(double(1)).result(60) == 2
        return runner.run(double(2)), list(runner.wrap_iter(numbers()))

    with ThreadRunner(debug=False) as runner:
        assert isinstance(runner, LoopThread)
        assert runner.enter_context(session) is runner.loop
        assert list(places(function)) == [(4, [0, 1, 2])] * 6
        with pytest.raises(TypeError):
            runner.wrap_context("")


@pytest.mark.slow
def test_asyncio_thread_runners_own_suite(tmp_path):
    source = sdists.unpack("asyncio_thread_runner", "1.0", tmp_path) / "tests" / "test_runner.py"
    suite = tmp_path / "suite"
    suite.mkdir()
    text = source.read_text()
    private = "runner._runner.get_loop()"  # the one thing of its inside that it looks at
    assert text.count(private) == 1
    (suite / "test_runner.py").write_text(text.replace(private, "runner.loop"))
    (suite / "asyncio_thread_runner.py").write_text("from fiberback.threads import ThreadRunner\n")
    for code in (
        "import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider']))",
        # Where a loop runs, too.
        "import asyncio, pytest\nasync def main():\n"
        "    return pytest.main(['-q', '-p', 'no:cacheprovider'])\n"
        "raise SystemExit(asyncio.run(main()))",
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=suite, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout
        assert "17 passed" in done.stdout


# --- AnyIO's portal --------------------------------------------------------------------------------


@pytest.fixture
def portal():
    with start_blocking_portal() as portal:
        yield portal


def test_call(portal):
    def where(*args):
        return args, threading.current_thread() is not caller

    def function():
        nonlocal caller
        caller = threading.current_thread()
        with pytest.raises(LookupError, match="deep"):
            portal.call(fail)
        assert portal.call(where, 1, 2) == ((1, 2), True)
        return portal.call(double, 21)

    caller = None
    assert list(places(function)) == [42] * 6


def test_call_in_its_own_loop_suspends(portal):
    """AnyIO raises RuntimeError there."""

    def below():
        return portal.call(double, 21)

    async def main():
        return below()

    assert portal.call(main) == 42


def test_contexts_go_along(portal):
    async def get():
        return variable.get()

    variable.set("mine")
    assert portal.call(get) == "mine"
    assert portal.start_task_soon(get).result(60) == "mine"


def test_start_task_soon(portal):
    async def name():
        return asyncio.current_task().get_name()

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    cancelled = threading.Event()
    assert portal.start_task_soon(name, name="mine").result(60) == "mine"
    assert portal.start_task_soon(max, 1, 2).result(60) == 2
    future = portal.start_task_soon(waits)
    portal.call(asyncio.sleep, 0.01)
    assert future.cancel()
    assert cancelled.wait(60)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(60)


def test_start_task(portal):
    async def serves(port, *, task_status):
        task_status.started(port + 1)
        await asyncio.sleep(0)
        return "ended"

    def function():
        future, value = portal.start_task(serves, 1, name="server")
        return value, future.result(60)

    assert list(places(function)) == [(2, "ended")] * 6


def test_start_task_of_what_does_not_start(portal):
    async def ends(*, task_status):
        await asyncio.sleep(0)

    async def fails(*, task_status):
        await fail()

    with pytest.raises(RuntimeError) as raised:
        portal.start_task(ends)
    says(raised.value, "portal-not-started")
    with pytest.raises(LookupError, match="deep"):
        portal.start_task(fails)


def test_context_managers(portal):
    @contextlib.asynccontextmanager
    async def session():
        task = asyncio.current_task()
        yield 42
        assert asyncio.current_task() is task

    with portal.wrap_async_context_manager(session()) as value:
        assert value == 42


def test_the_end_waits_for_tasks():
    async def counts():
        for _ in range(5):
            await asyncio.sleep(0)
        return 42

    with start_blocking_portal() as portal:
        future = portal.start_task_soon(counts)
    assert future.result(0) == 42


def test_an_exception_cancels_them():
    async def waits():
        await asyncio.Event().wait()

    with pytest.raises(LookupError), start_blocking_portal() as portal:
        future = portal.start_task_soon(waits)
        raise LookupError
    assert future.cancelled()


def test_options_of_the_backend():
    import_or_skip("uvloop")

    async def loop():
        return type(asyncio.get_running_loop()).__module__, asyncio.get_running_loop().get_debug()

    with start_blocking_portal("asyncio", {"use_uvloop": True, "debug": True}, name="p") as portal:
        assert portal.call(loop) == ("uvloop", True)
        assert portal.call(threading.current_thread).name == "p"
    with pytest.raises(ValueError) as raised:
        start_blocking_portal("trio")
    says(raised.value, "portal-backend")


# --- asyncio-anywhere ------------------------------------------------------------------------------


def test_asyncio_run():
    async def leaves():
        left.append(asyncio.ensure_future(asyncio.Event().wait()))
        await asyncio.sleep(0)
        return 42

    def function():
        left.clear()
        with pytest.raises(
            LookupError, match="deep"
        ):  # asyncio-anywhere gives None where a loop runs
            asyncio_run(fail())
        result = asyncio_run(leaves())
        assert left[0].cancelled()  # as by `asyncio.run`
        return result

    left = []
    assert list(places(function)) == [42] * 6


def test_asyncio_run_lets_the_loop_go_on():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0, future.set_result, 42)

        async def inner():
            assert asyncio.get_running_loop() is loop
            return await future, loop.get_debug()

        return asyncio_run(inner(), debug=True), loop.get_debug()

    assert asyncio.run(main()) == ((42, True), False)


def test_asyncio_run_without_a_loop():
    async def debug():
        loop = asyncio.get_running_loop()
        return type(loop).__module__, loop.get_debug()

    assert asyncio_run(debug(), True)[1] is True
    assert asyncio_run(debug(), loop_factory=uvloop_factory()) == ("uvloop", False)
    with pytest.raises(TypeError):
        asyncio_run(42)
