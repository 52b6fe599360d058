"""`fiberback.greenlet` with event loops: who waits for whom, and which greenlets are refused."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import fiberback
import fiberback.greenlet as greenlet
import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


def run_on_uvloop(main):
    return fiberback.run(main, loop_factory=import_or_skip("uvloop").new_event_loop)


def run_enabled(main):
    async def prepared():
        with fiberback.enable():
            return await asyncio.ensure_future(main)

    return asyncio.run(prepared())


RUNS = {
    "portals": fiberback.run,
    "parked": asyncio.run,
    "enabled": run_enabled,
    "uvloop": run_on_uvloop,
}


@pytest.fixture(params=RUNS)
def run(request):
    return RUNS[request.param]


async def later(value, seconds=0.001):
    await asyncio.sleep(seconds)
    return value


def waits(value):
    return fiberback.await_(later(value))


def test_a_greenlet_waits_for_its_task(run):
    async def task(number):
        g = greenlet.greenlet(lambda x: waits(greenlet.getcurrent().parent.switch(waits(x))))
        assert g.switch(number) == number
        return g.switch(number + 1), g.dead

    async def main():
        return await asyncio.gather(*(task(number) for number in range(20)))

    assert run(main()) == [(number + 1, True) for number in range(20)]


def test_the_loop_goes_on_meanwhile(run):
    async def main():
        ticked = asyncio.Event()

        async def ticker():
            for _ in range(3):
                await asyncio.sleep(0)
            ticked.set()

        ticking = asyncio.ensure_future(ticker())
        assert greenlet.greenlet(lambda: fiberback.await_(ticked.wait())).switch()
        await ticking

    run(main())


def test_nested_greenlets_stay_where_they_are(run):
    def inner(log):
        log.append(waits("inner"))
        greenlet.getcurrent().parent.switch("from inner")
        log.append(waits("again"))

    def outer(log):
        g = greenlet.greenlet(inner)
        log.append(g.switch(log))
        log.append(waits("outer"))
        g.switch()
        return "end"

    async def main():
        log = []
        assert greenlet.greenlet(outer).switch(log) == "end"
        return log

    assert run(main()) == ["inner", "from inner", "outer", "again"]


def test_under_trio():
    trio = import_or_skip("trio")
    ticks = []

    async def later(value):
        await trio.sleep(0.001)
        return value

    def inner(log):
        log.append(fiberback.await_(later("inner")))
        greenlet.getcurrent().parent.switch("from inner")
        with pytest.raises(trio.Cancelled):
            fiberback.await_(trio.sleep_forever())
        log.append("cancelled")
        raise KeyError("out")

    def outer(log, scope):
        g = greenlet.greenlet(inner)
        log.append(g.switch(log))
        log.append(fiberback.await_(later("outer")))
        scope.cancel()
        with pytest.raises(KeyError):
            g.switch()
        return "end"

    async def ticker():
        while True:
            await trio.sleep(0)
            ticks.append(1)

    async def task(log):
        with trio.CancelScope() as scope:
            log.append(
                await fiberback.with_portal_run_sync(greenlet.greenlet(outer).switch, log, scope)
            )

    async def main():
        logs = [[] for _ in range(10)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticker)
            async with trio.open_nursery() as tasks:
                for log in logs:
                    tasks.start_soon(task, log)
            nursery.cancel_scope.cancel()
        assert logs == [["inner", "from inner", "outer", "cancelled", "end"]] * 10

    trio.run(main)
    assert ticks


def test_begun_in_one_task_and_gone_on_with_in_another(run):
    def body():
        there = [waits(1)]
        there.append(greenlet.getcurrent().parent.switch())
        there.append(waits(asyncio.current_task().get_name()))
        return there

    async def main():
        g = greenlet.greenlet(body)

        async def first():
            g.switch()

        async def second():
            return g.switch("second")

        await asyncio.create_task(first(), name="one")
        return await asyncio.create_task(second(), name="two")

    assert run(main()) == [1, "second", "two"]


def test_begun_before_a_loop_and_gone_on_with_in_two_and_after_them(run):
    def body():
        there = []
        for number in range(4):
            there.append(waits(number))
            there.append(greenlet.getcurrent().parent.switch())
        return there

    async def main(value):
        await asyncio.sleep(0)
        return g.switch(value)

    g = greenlet.greenlet(body)
    assert g.switch() == ()
    assert run(main("first")) == ()
    assert run(main("second")) == ()
    assert g.switch("after") == ()
    assert g.switch("end") == [0, "first", 1, "second", 2, "after", 3, "end"]
    assert g.dead


def test_a_task_group_cancels_what_waits_in_a_greenlet(run):
    log = []

    def body():
        try:
            fiberback.await_(asyncio.sleep(60))
        finally:
            log.append("unwound")

    async def main():
        async def waiting():
            greenlet.greenlet(body).switch()

        async def fails():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise KeyError("sibling")

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(waiting())
                group.create_task(fails())
        return [type(error) for error in caught.value.exceptions]

    assert run(main()) == [KeyError]
    assert log == ["unwound"]


def test_a_task_group_inside_of_a_greenlet(run):
    async def both():
        async with asyncio.TaskGroup() as group:
            return [await task for task in [group.create_task(later(n)) for n in range(2)]]

    def body():
        inner = greenlet.greenlet(lambda: fiberback.await_(both()))
        return inner.switch(), fiberback.await_(both())

    async def main():
        async with asyncio.timeout(30):
            return greenlet.greenlet(body).switch()

    assert run(main()) == ([0, 1], [0, 1])


def test_in_two_tasks_of_trios():
    """Begun in one and gone on with in another; and refused while the first one's await_ is not done."""
    trio = import_or_skip("trio")

    def body():
        fiberback.await_(trio.sleep(0))
        got = greenlet.getcurrent().parent.switch("from the first")
        begun.set()
        fiberback.await_(done.wait())
        return got

    async def first(g):
        assert await fiberback.with_portal_run_sync(g.switch) == "from the first"

    async def second(g):
        assert (
            await fiberback.with_portal_run_sync(g.switch, "from the second") == "from the second"
        )

    async def main():
        nonlocal begun, done
        begun, done = trio.Event(), trio.Event()
        g = greenlet.greenlet(body)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, g)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second, g)
            await begun.wait()
            await trio.lowlevel.checkpoint()
            for attempt in (g.switch, lambda: g.throw(KeyError)):
                with pytest.raises(greenlet.error, match=r"\[fiberback:greenlet-waits\]"):
                    attempt()
            done.set()
        return g.dead

    begun = done = None
    assert trio.run(main)


def test_a_greenlet_that_waits_is_not_switched_to(run):
    async def main():
        g = greenlet.greenlet(lambda: fiberback.await_(later("waited", 0.02)))

        async def first():
            return g.switch()

        task = asyncio.ensure_future(first())
        await asyncio.sleep(0.002)
        assert g and not g.dead
        for attempt in (g.switch, lambda: g.throw(KeyError)):
            with pytest.raises(greenlet.error, match=r"\[fiberback:greenlet-waits\]"):
                attempt()
        return await task

    assert run(main()) == "waited"


def test_cancellation_and_timeouts(run):
    def body():
        try:
            fiberback.await_(asyncio.sleep(60))
        except asyncio.CancelledError:
            return "cancelled"

    async def main():
        async def waiting():
            return greenlet.greenlet(body).switch()

        task = asyncio.ensure_future(waiting())
        await asyncio.sleep(0.001)
        task.cancel()
        assert await task == "cancelled"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                greenlet.greenlet(lambda: fiberback.await_(asyncio.sleep(60))).switch()

    run(main())


def test_an_error_of_what_is_awaited(run):
    async def fails():
        await asyncio.sleep(0)
        raise KeyError("x")

    def body():
        with pytest.raises(KeyError):
            fiberback.await_(fails())
        fiberback.await_(fails())

    async def main():
        with pytest.raises(KeyError):
            greenlet.greenlet(body).switch()

    run(main())


def test_contexts_are_the_greenlets_own(run):
    variable = contextvars.ContextVar("variable", default=None)

    def body():
        variable.set("greenlet's")
        waits(1)
        return variable.get()

    async def main():
        variable.set("task's")
        assert greenlet.greenlet(body).switch() == "greenlet's"
        return variable.get()

    assert run(main()) == "task's"


def test_a_tasks_context_is_not_its_greenlets_to_set():
    async def main():
        with pytest.raises(ValueError, match=r"\[fiberback:greenlet-context\]"):
            greenlet.getcurrent().gr_context = contextvars.copy_context()

    fiberback.run(main())


def test_the_current_portal_is_the_hosts():
    async def main():
        return greenlet.greenlet(fiberback._fiberback.current_portal).switch()

    assert fiberback.run(main()) is not None


@pytest.mark.parametrize("outer", ["plain", "greenlet"])
def test_without_a_loop(outer):
    call = (lambda: waits(5)) if outer == "plain" else greenlet.greenlet(lambda: waits(5)).switch
    result = []
    thread = threading.Thread(target=lambda: result.append(call_in_thread()))

    def call_in_thread():
        return greenlet.greenlet(lambda: waits(5)).switch() if outer == "greenlet" else call()

    thread.start()
    thread.join()
    assert result == [5]


def test_a_loop_inside_of_a_greenlet():
    async def main():
        return [await later(1), waits(2), greenlet.greenlet(waits).switch(3)]

    assert greenlet.greenlet(lambda: fiberback.run(main())).switch() == [1, 2, 3]


def test_a_loop_inside_of_a_greenlet_that_callers_park():
    """There the loop is on the greenlet's stack, which hosts what its callbacks switch to and wait in."""

    async def task(number):
        g = greenlet.greenlet(
            lambda: (waits(number), greenlet.getcurrent().parent.switch(1), waits(2))
        )
        return g.switch(), g.switch(3)

    async def main():
        return await asyncio.gather(*(task(number) for number in range(10)))

    main_greenlet = greenlet.getcurrent()
    g = greenlet.greenlet(lambda: asyncio.run(main()))
    assert g.switch() == [(1, (number, 3, 2)) for number in range(10)]

    async def leaves():
        def inner():
            waits(1)
            log.append(main_greenlet.switch("from inner"))
            return waits(2)

        return greenlet.greenlet(inner).switch()

    log = []
    g = greenlet.greenlet(lambda: asyncio.run(leaves()))
    assert g.switch() == "from inner"
    # what goes on is the greenlet of the loop, not the one that waits for it
    assert g.switch("to the loop's greenlet") == "to the loop's greenlet"
    assert log == []


@pytest.mark.parametrize("way", ["method", "bound"])
def test_a_task_that_nobody_can_wake_is_collected_with_its_greenlet(way):
    log = []

    def body():
        future = asyncio.get_running_loop().create_future()
        mine = [greenlet.getcurrent(), future, asyncio.current_task()]
        mine.append(mine)
        try:
            fiberback.await_(waits_for(future))
        finally:
            log.append("finally")

    async def waits_for(future):
        await future

    async def main():
        async def task():
            if way == "method":
                greenlet.greenlet(body).switch()
            else:
                switch = greenlet.greenlet(body).switch
                switch()

        asyncio.get_running_loop().set_exception_handler(lambda *args: None)
        there = weakref.ref(asyncio.ensure_future(task()))
        await asyncio.sleep(0.001)
        gc.collect()
        await asyncio.sleep(0)
        gc.collect()
        return there()

    assert fiberback.run(main()) is None
    assert log == ["finally"]


def test_out_of_a_task_to_a_greenlet_around_its_loop():
    main = greenlet.getcurrent()
    log = []

    def with_a_loop():
        async def task():
            this = greenlet.getcurrent()

            def inner():
                log.append(greenlet.getcurrent().parent is this)
                log.append(main.switch("from the task"))
                return "inner's end"

            g = greenlet.greenlet(inner)
            log.append(g.switch())
            # the main greenlet has gone on, and has come back to this one
            log.append(g.switch("to inner"))
            return waits("end")

        return fiberback.run(task())

    g = greenlet.greenlet(with_a_loop)
    assert g.switch() == "from the task"
    assert g.switch("back") == "end"
    assert log == [True, "back", "to inner", "inner's end"]


def test_dropped_in_a_task_while_suspended(run):
    log = []

    def body():
        try:
            greenlet.getcurrent().parent.switch()
        finally:
            log.append(waits("waited in finally"))

    async def main():
        g = greenlet.greenlet(body)
        g.switch()
        del g
        return list(log)

    assert run(main()) == ["waited in finally"]


def test_sqlalchemys_way(run):
    """What SQLAlchemy does: the function is in a greenlet, whose parent awaits for it."""

    class Provider(greenlet.greenlet):
        __sqlalchemy_greenlet_provider__ = True

    async def spawn(fn):
        g = Provider(fn, greenlet.getcurrent())
        result = g.switch()
        while not g.dead:
            try:
                value = await result
            except BaseException as error:
                result = g.throw(error)
            else:
                result = g.switch(value)
        return result

    def await_only(awaitable):
        return greenlet.getcurrent().parent.switch(awaitable)

    def body():
        return await_only(later(1)), fiberback.await_(later(2)), await_only(later(3))

    async def main():
        return await asyncio.gather(*(spawn(body) for _ in range(5)))

    assert run(main()) == [(1, 2, 3)] * 5


def test_masked_in_a_greenlet():
    """Below `call_masked` there is no portal, in greenlets either; and other tasks go on where one waits."""
    native = fiberback._fiberback

    async def main():
        ticks = []

        async def ticker():
            while True:
                ticks.append(1)
                await asyncio.sleep(0)

        def masked():
            before = len(ticks)
            waits(1)
            return native.on_portal(), native.current_portal(), len(ticks) > before

        def body():
            return native.call_masked(masked), native.on_portal()

        ticking = asyncio.ensure_future(ticker())
        found = greenlet.greenlet(body).switch()
        ticking.cancel()
        return found

    assert fiberback.run(main()) == ((False, None, True), True)


def test_masked_is_the_greenlet_and_not_the_task_that_has_switched_to_it():
    """A greenlet may switch away below `call_masked`, and go on when the task before is no more."""
    native = fiberback._fiberback

    def body():
        away = greenlet.getcurrent().parent.switch
        native.call_masked(away)
        return native.on_portal()

    async def main():
        g = greenlet.greenlet(body)

        async def first():
            g.switch()
            on_portal = native.on_portal()
            waits(1)
            return on_portal

        async def second():
            return g.switch()

        assert await asyncio.create_task(first())
        fiberback.trim()
        return await asyncio.create_task(second())

    assert fiberback.run(main())
