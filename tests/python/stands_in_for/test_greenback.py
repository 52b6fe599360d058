"""`fiberback.greenback` raises exactly where greenback raises, with greenback's texts.

The shared behaviour is tested by running the other files with FIBERBACK_UNDER_TEST set to
`fiberback.greenback`; here, the errors are compared with those of the real greenback.
"""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from support import UNDER_TEST, import_or_skip

pytestmark = [
    pytest.mark.skipif(UNDER_TEST != "fiberback", reason="runs once, for fiberback"),
    pytest.mark.sampled,
]


@pytest.fixture(params=["fiberback.greenback", "greenback"])
def gb(request):
    return import_or_skip(request.param)


NO_PORTAL = (
    "You must create a greenback portal for this task in order to use 'greenback.await_()'. "
    "Try 'await greenback.ensure_portal()' or "
    "'await greenback.with_portal_run(some_fn, *args)'."
)


async def nothing():
    pass


def test_no_portal(backend, gb):
    async def main():
        coro = nothing()
        with pytest.raises(RuntimeError) as info:
            gb.await_(coro)
        assert str(info.value) == NO_PORTAL
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        for use in (
            lambda: gb.autoawait(nothing)(),
            lambda: gb.async_context(asyncio.TaskGroup()).__enter__(),
        ):
            with pytest.raises(RuntimeError) as info:
                use()
            assert str(info.value) == NO_PORTAL

    backend.run(main)


def test_must_yield(backend, gb):
    async def main():
        gb.bestow_portal(backend.current_task())
        coro = nothing()
        with pytest.raises(RuntimeError) as info:
            gb.await_(coro)
        assert str(info.value) == (
            f"You must yield to the event loop (try 'await {backend.library}.sleep(0)') after "
            "calling 'greenback.bestow_portal()' on the current task before using the portal"
        )
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        with pytest.raises(RuntimeError, match="must yield"):
            await gb.with_portal_run_sync(lambda: gb.await_(nothing()))

    backend.run(main)


def test_outside_async(gb):
    sniffio = import_or_skip("sniffio")
    coro = nothing()
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        gb.await_(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert gb.has_portal() is False
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        gb.await_(42)
    for function in (gb.ensure_portal, lambda: gb.with_portal_run(nothing)):
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            function().send(None)


def test_no_task_and_unknown_library(gb):
    sniffio = import_or_skip("sniffio")

    async def main():
        future = asyncio.get_running_loop().create_future()

        def callback():
            # Outside a task sniffio does not see asyncio, unless somebody says so.
            sniffio.thread_local.name, before = "asyncio", sniffio.thread_local.name
            try:
                gb.await_(nothing())
            except RuntimeError as error:
                future.set_result(str(error))
            finally:
                sniffio.thread_local.name = before

        asyncio.get_running_loop().call_soon(callback)
        assert await future == "No asyncio task is running"
        sniffio.thread_local.name, before = "tokio", sniffio.thread_local.name
        try:
            with pytest.raises(RuntimeError, match="^greenback does not support tokio$"):
                gb.await_(nothing())
        finally:
            sniffio.thread_local.name = before

    asyncio.run(main())


def test_trio_only(gb):
    message = "^This function is only supported when running under Trio$"

    async def main():
        with pytest.raises(RuntimeError, match=message):
            with gb.portals_for_children():
                pass
        with pytest.raises(RuntimeError, match=message):
            await gb.with_portal_run_tree(nothing)
        with pytest.raises(RuntimeError, match=message):
            async with gb.portals_for_tree():
                pass

    asyncio.run(main())


def test_wrong_arguments(gb):
    with pytest.raises(TypeError, match="'async_iter' requires an object with __aiter__ method"):
        gb.async_iter([])
    with pytest.raises(TypeError, match="does not implement __anext__"):
        gb.async_iter(type("X", (), {"__aiter__": lambda self: 42})())

    async def main():
        await gb.ensure_portal()
        for thing in (42, None, nothing):
            with pytest.raises(TypeError, match="asynchronous context manager protocol"):
                gb.async_context(thing).__enter__()
            with pytest.raises(TypeError):
                gb.await_(thing)
        with pytest.raises(AssertionError):
            gb.bestow_portal(42)

    asyncio.run(main())


class Recorder(collections.abc.Coroutine):
    """A coroutine of another kind than CPython's; what is sent and thrown into it goes to `steps`."""

    def __init__(self, coro):
        self.coro = coro
        self.steps = []

    def __await__(self):
        raise AssertionError("greenback steps a coroutine by its own send()")

    def send(self, value):
        self.steps.append("send")
        return self.coro.send(value)

    def throw(self, *exc):
        self.steps.append("throw")
        return self.coro.throw(*exc)

    def close(self):
        self.steps.append("close")
        self.coro.close()


def test_coroutines_of_another_kind(gb):
    async def sleep(seconds):
        await asyncio.sleep(seconds)
        return "slept"

    async def main():
        await gb.ensure_portal()
        slept = Recorder(sleep(0))
        assert gb.await_(slept) == "slept"
        assert slept.steps == ["send", "send"]
        cancelled = Recorder(sleep(10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                gb.await_(cancelled)
        assert cancelled.steps == ["send", "throw"]

    asyncio.run(main())


def test_public_names():
    import fiberback
    import fiberback.greenback as ours

    theirs = import_or_skip("greenback")
    public = {
        name
        for name in dir(theirs)
        if not name.startswith("_") and not inspect.ismodule(getattr(theirs, name))
    }
    assert public <= set(ours.__all__)
    assert public <= set(fiberback.__all__)
    assert ours.__version__ == "1.3.0"


def test_both_modules_serve_each_other():
    import fiberback
    import fiberback.greenback as ours

    def sync():
        assert ours.has_portal() and fiberback.has_portal()
        return fiberback.await_(asyncio.sleep(0, 1)) + ours.await_(asyncio.sleep(0, 2))

    async def main():
        assert await fiberback.with_portal_run_sync(sync) == 3
        assert await ours.with_portal_run_sync(sync) == 3
        return sync()

    assert fiberback.run(main()) == 3


def test_threads_have_none(gb):
    seen = []

    async def main():
        await gb.ensure_portal()
        thread = threading.Thread(target=lambda: seen.append(gb.has_portal()))
        thread.start()
        thread.join()
        assert gb.has_portal()

    asyncio.run(main())
    assert seen == [False]


@pytest.mark.parametrize(
    "shared",
    [
        "await/await",
        "portal/exceptions",
        "portal/cancel",
        "portal/generators",
        "portal/contextvars",
        "await/wrappers",
        "portal/trio_instrument",
        "await/in_greenlet",
    ],
)
def test_shared_behaviour_on_the_drop_in(shared):
    """Everything that greenback and fiberback share, once more on the drop-in."""
    room, name = shared.split("/")
    file = pathlib.Path(__file__).parents[1] / room / f"test_{name}.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        + [str(file)],
        env=dict(os.environ, FIBERBACK_UNDER_TEST="fiberback.greenback"),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
