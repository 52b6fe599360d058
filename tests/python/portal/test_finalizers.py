"""Objects whose `__del__` awaits, wherever a portal's code lets go of them.

Strictly inside the portal: through `fiberback.greenback.await_`, which never goes on without one.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import weakref

import fiberback
import pytest
from fiberback import greenback
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


class Awaits:
    """Waits when it is finalized, and says whether it could."""

    def __init__(self, log, sleep=asyncio.sleep):
        self.log = log
        self.sleep = sleep

    def __del__(self):
        try:
            greenback.await_(self.sleep(0))
        except BaseException as error:
            self.log.append(repr(error))
        else:
            self.log.append("finalized")


async def cancelled_wait(_held):
    """Handles the exception that the loop raises."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "cancelled"


async def timed_out(_held):
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timed out"


async def replaced(_held):
    """As `asyncio.timeout` does, which leaves a cycle behind, however."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        raise LookupError from error


def in_await(log, wait):
    return greenback.await_(wait(Awaits(log)))


def in_two_awaits(log, wait):
    in_await(log, wait)
    before = list(log)
    greenback.await_(asyncio.sleep(0))
    return before


async def handled_outside(log):
    try:
        await replaced(Awaits(log))
    except LookupError:
        pass
    else:
        raise AssertionError("was not cancelled")


async def handled_then_waits(log):
    await handled_outside(log)
    greenback.await_(asyncio.sleep(0))


async def run_cancelled(coroutine):
    task = asyncio.create_task(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    return await task


def test_an_exception_handled_in_the_awaited_coroutine():
    async def main():
        log = []
        before = await run_cancelled(
            greenback.with_portal_run_sync(in_two_awaits, log, cancelled_wait)
        )
        # At once, not when the step ends, as reference counting has it.
        assert before == log == ["finalized"]

    asyncio.run(main())


@pytest.mark.parametrize("wait", [cancelled_wait, timed_out])
def test_an_exception_handled_in_a_native_await(wait):
    async def main():
        log = []

        async def work():
            await wait(Awaits(log))

        coroutine = greenback.with_portal_run(work)
        if wait is cancelled_wait:
            await run_cancelled(coroutine)
        else:
            await coroutine
        assert log == ["finalized"]

    asyncio.run(main())


@pytest.mark.parametrize("work", [handled_outside, handled_then_waits])
def test_an_exception_that_became_another_one(work):
    async def main():
        log = []
        await run_cancelled(greenback.with_portal_run(work, log))
        assert log == ["finalized"]

    asyncio.run(main())


def test_a_kept_exception_keeps_its_traceback():
    """In a variable, or as the cause or context of another one."""

    async def main():
        kept = []

        async def wait():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                kept.append(error)

        async def timed_out():
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError as error:
                kept.append(error.__context__)  # and its cause, since 3.11.4

        await run_cancelled(fiberback.with_portal_run_sync(lambda: fiberback.await_(wait())))
        await run_cancelled(fiberback.with_portal_run(wait))
        await fiberback.with_portal_run_sync(lambda: fiberback.await_(timed_out()))
        assert len(kept) == 3
        for error in kept:
            assert isinstance(error, asyncio.CancelledError)
            assert error.__traceback__ is not None

    asyncio.run(main())


def test_an_exception_thrown_twice_keeps_what_it_came_with():
    error = ValueError()
    try:
        raise error
    except ValueError:
        pass
    came_with = error.__traceback__

    class Once:
        def __await__(self):
            try:
                yield
            except ValueError:
                pass

    async def twice():
        await Once()

    portal = fiberback._fiberback.Portal(twice())
    portal.send(None)
    with pytest.raises(StopIteration):
        portal.throw(error)
    assert error.__traceback__ is came_with


def test_an_exception_that_ends_the_step_is_as_raised():
    async def main():
        async def wait():
            await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError) as caught:
            await run_cancelled(fiberback.with_portal_run_sync(lambda: fiberback.await_(wait())))
        names = [entry.name for entry in caught.traceback]
        assert "wait" in names

    asyncio.run(main())


@pytest.mark.parametrize("way", ["returns", "raises", "calls"])
def test_variables_of_a_coroutine_that_ends(way):
    async def main():
        log = []

        def below(_held):
            greenback.await_(asyncio.sleep(0))

        async def work():
            held = Awaits(log)  # noqa: F841 - lives as long as the frame
            if way == "calls":
                below(Awaits(log))
            if way == "raises":
                try:
                    raise ValueError
                except ValueError:
                    pass

        await greenback.with_portal_run(work)
        assert log == ["finalized"] * (2 if way == "calls" else 1)

    asyncio.run(main())


async def held(object_):
    await asyncio.sleep(10)


async def yields(object_):
    yield 1
    yield 2


def generator(object_):
    yield


async def closed(log):
    coroutine = held(Awaits(log))
    coroutine.send(None)
    coroutine.close()


async def dropped(log):
    coroutine = held(Awaits(log))
    coroutine.send(None)
    del coroutine


async def never_started(log):
    held(Awaits(log)).close()


async def async_generator_closed(log):
    source = yields(Awaits(log))
    await source.__anext__()
    await source.aclose()


async def generator_dropped(log):
    source = generator(Awaits(log))
    next(source)
    del source


async def in_a_cycle(log):
    object_ = Awaits(log)
    object_.itself = object_
    del object_
    gc.collect()


class Referred:
    pass


async def weak_reference(log):
    object_ = Referred()
    reference = weakref.ref(object_, lambda _: Awaits(log))
    del object_
    assert reference() is None


async def weak_finalizer(log):
    object_ = Referred()
    weakref.finalize(object_, lambda: Awaits(log))
    del object_


LETS_GO = [
    closed,
    dropped,
    never_started,
    async_generator_closed,
    generator_dropped,
    in_a_cycle,
    weak_reference,
    weak_finalizer,
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("lets_go", LETS_GO)
def test_wherever_the_last_reference_goes(lets_go, loop):
    factory = None if loop == "asyncio" else import_or_skip(loop).new_event_loop

    async def main():
        log = []
        await greenback.with_portal_run(lets_go, log)
        assert log == ["finalized"]

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks are for other versions of Python"
)
@pytest.mark.parametrize("waits", [False, True])
def test_in_an_eager_task(waits):
    async def main():
        log = []

        async def work():
            held = Awaits(log)  # noqa: F841 - lives as long as the frame
            if waits:
                await asyncio.sleep(0)

        loop = asyncio.get_running_loop()
        await asyncio.Task(greenback.with_portal_run(work), loop=loop, eager_start=True)
        assert log == ["finalized"]

    asyncio.run(main())


TRIO = """
    import gc, sys
    if "greenlet" in sys.argv:
        import greenlet
    import trio, trio.testing
    import fiberback.greenback as greenback

    died = []

    class Awaits:
        @greenback.autoawait
        async def __init__(self):
            await trio.sleep(1)

        @greenback.autoawait
        async def __del__(self):
            await trio.sleep(2)
            died.append(trio.current_time())

    async def main():
        await greenback.ensure_portal()
        Awaits()
        if "greenlet" not in sys.argv:
            assert died == [3], died  # where it was dropped
        await trio.sleep(0)  # until then Trio has the exception
        gc.collect()
        assert len(died) == 1, died

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    print("ended")
"""


@pytest.mark.parametrize("argument", ["alone", "greenlet"])
def test_on_trio(argument):
    import_or_skip("trio")
    if argument == "greenlet":
        import_or_skip("greenlet")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(TRIO), argument],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "ended\n", done.stderr
    assert done.stderr == ""
