"""Tasks that wait for each other in a circle get an error that names it, instead of a hang."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref

import pytest
from support import only_fiberback

pytestmark = only_fiberback

LIMIT = 20  # seconds; what should take none


class Circle:
    """Two tasks: 'first' waits for 'second' in `await_`, and 'second' for 'first' as `how` says."""

    def __init__(self, fb, how, first_has_portal=True, second_has_portal=True, pause=0.0):
        self.first_has_portal = first_has_portal
        self.fb = fb
        self.how = how
        self.second_has_portal = second_has_portal
        self.pause = pause

    async def first(self):
        if self.first_has_portal:
            await self.fb.ensure_portal()
        await asyncio.sleep(0)
        return self.fb.await_(self.tasks["second"])

    async def second(self):
        if self.second_has_portal:
            await self.fb.ensure_portal()
        await asyncio.sleep(self.pause)
        return await self.how(self.fb, self.tasks["first"])

    async def run(self):
        self.tasks = {
            name: asyncio.create_task(getattr(self, name)(), name=name)
            for name in ("first", "second")
        }
        waiting = asyncio.gather(*self.tasks.values(), return_exceptions=True)
        outcomes = await asyncio.wait_for(waiting, LIMIT)
        errors = [error for error in map(innermost, outcomes) if isinstance(error, RuntimeError)]
        assert errors, outcomes
        return str(errors[0])


def innermost(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def by_await_(fb, task):
    return fb.await_(task)


async def natively(fb, task):
    return await task


async def by_gather(fb, task):
    return fb.await_(asyncio.gather(asyncio.sleep(0), task))


async def by_native_gather(fb, task):
    return await asyncio.gather(task, asyncio.sleep(0))


async def by_shield(fb, task):
    return fb.await_(asyncio.shield(task))


async def by_wait_for(fb, task):
    return fb.await_(asyncio.wait_for(task, LIMIT))


async def by_wait(fb, task):
    await_result = fb.await_(asyncio.wait([task]))
    return await_result[0].pop().result()


async def by_coroutine(fb, task):
    return fb.await_(natively(fb, task))


async def by_nested_gather(fb, task):
    return fb.await_(asyncio.gather(asyncio.gather(asyncio.shield(task))))


async def by_task_group(fb, task):
    async with asyncio.TaskGroup() as group:
        group.create_task(natively(fb, task))


async def by_way_of_a_task(fb, task):
    return fb.await_(asyncio.ensure_future(natively(fb, task)))


WAYS = [
    by_await_,
    natively,
    by_gather,
    by_native_gather,
    by_shield,
    by_wait_for,
    by_wait,
    by_coroutine,
    by_nested_gather,
    by_task_group,
    by_way_of_a_task,
]


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.__name__)
def test_two_tasks(aio, fb, how):
    text = aio.run(Circle(fb, how).run)
    assert "deadlock" in text
    assert "task 'first' (at " in text
    assert "task 'second' (at " in text
    assert __file__ in text


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_two_parked_tasks(fb, how, debug):
    """Without portals, on a stock loop."""
    circle = Circle(fb, how, first_has_portal=False, second_has_portal=False)
    text = asyncio.run(circle.run(), debug=debug)
    assert "task 'first' (at " in text and "task 'second' (at " in text


@pytest.mark.parametrize("how", [natively, by_native_gather, by_task_group])
def test_closed_by_a_task_without_a_portal(aio, fb, how):
    """Nobody is told of a native await: the watch finds it, soon or later."""
    for pause in (0.0, 0.3):
        text = aio.run(Circle(fb, how, second_has_portal=False, pause=pause).run)
        assert "task 'first' (at " in text and "task 'second' (at " in text


def test_says_where_each_one_waits(aio, fb):
    text = aio.run(Circle(fb, by_await_).run)
    assert "in Circle.first()" in text
    assert "in by_await_()" in text


def test_a_task_that_awaits_itself(aio, fb):
    async def main():
        await fb.ensure_portal()
        me = asyncio.current_task()
        me.set_name("myself")
        for wait in (lambda: me, lambda: asyncio.gather(me), lambda: asyncio.shield(me)):
            with pytest.raises(RuntimeError, match="task 'myself'.* waits for task 'myself'"):
                fb.await_(wait())
        return fb.await_(asyncio.sleep(0, "goes on"))

    assert aio.run(main) == "goes on"


def test_a_long_circle(aio, fb):
    count = 30

    async def link(n):
        await fb.ensure_portal()
        await asyncio.sleep(0)
        return fb.await_(tasks[(n + 1) % count])

    async def main():
        nonlocal tasks
        tasks = [asyncio.create_task(link(n), name=f"link {n}") for n in range(count)]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LIMIT)

    tasks = []
    outcomes = aio.run(main)
    assert all(isinstance(outcome, RuntimeError) for outcome in outcomes)
    assert all(f"'link {n}'" in str(outcomes[0]) for n in range(count))


def test_through_a_worker_thread(aio, fb):
    """A task waits for a thread, whose await_ waits for a task that waits for the first."""

    def work():
        return fb.await_(tasks["second"])

    async def first(in_thread):
        await asyncio.sleep(0)
        return await in_thread(work)

    async def second():
        await asyncio.sleep(0.05)
        return await tasks["first"]

    async def main(in_thread):
        tasks["first"] = asyncio.create_task(first(in_thread), name="first")
        tasks["second"] = asyncio.create_task(second(), name="second")
        waiting = asyncio.gather(*tasks.values(), return_exceptions=True)
        return await asyncio.wait_for(waiting, LIMIT)

    tasks = {}
    for in_thread in (fb.to_thread, asyncio.to_thread):
        outcomes = aio.run(main, in_thread)
        assert all(isinstance(outcome, RuntimeError) for outcome in outcomes), outcomes
        assert "'first'" in str(outcomes[0]) and "'second'" in str(outcomes[0])


def test_the_waiter_can_catch_it_and_the_other_goes_on(aio, fb):
    async def first():
        await fb.ensure_portal()
        try:
            return fb.await_(tasks[1])
        except RuntimeError:
            return fb.await_(asyncio.sleep(0, "first"))

    async def second():
        await asyncio.sleep(0.01)
        return await tasks[0], "second"

    async def main():
        nonlocal tasks
        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        return await asyncio.wait_for(tasks[1], LIMIT)

    tasks = []
    assert aio.run(main) == ("first", "second")


def test_cancelling_works_in_the_watch(aio, fb):
    async def waits(other):
        await fb.ensure_portal()
        fb.await_(other)

    async def main():
        other = asyncio.create_task(asyncio.sleep(60))
        task = asyncio.create_task(waits(other))
        await asyncio.sleep(0.2)  # the watch has looked
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), other.cancelled()

    assert aio.run(main) == (True, True)


# No false alarms.


def test_waiting_for_each_other_one_after_the_other(aio, fb):
    async def first():
        await fb.ensure_portal()
        event = asyncio.Event()
        events.append(event)
        fb.await_(event.wait())
        return "first"

    async def second():
        await fb.ensure_portal()
        events[0].set()
        return fb.await_(tasks[0])

    async def third():
        await fb.ensure_portal()
        return fb.await_(asyncio.gather(*tasks[:2]))

    async def main():
        for one in (first, second, third):
            tasks.append(asyncio.create_task(one()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await asyncio.wait_for(tasks[-1], LIMIT)

    events, tasks = [], []
    assert aio.run(main) == ["first", "first"]


def test_a_wait_that_something_else_can_end(aio, fb):
    """`wait` with a timeout or for the first of several: no deadlock."""

    async def first(**options):
        await fb.ensure_portal()
        others = [tasks[1], asyncio.create_task(asyncio.sleep(0.1))]
        fb.await_(asyncio.wait(others[: 1 if "timeout" in options else 2], **options))
        return "first"

    async def second():
        await asyncio.sleep(0.01)
        return await tasks[0]

    async def main(options):
        tasks[:] = [asyncio.create_task(first(**options)), asyncio.create_task(second())]
        return await asyncio.wait_for(tasks[1], LIMIT)

    tasks = []
    assert aio.run(main, {"timeout": 0.1}) == "first"
    assert aio.run(main, {"return_when": asyncio.FIRST_COMPLETED}) == "first"


def test_a_done_callback_that_sets_what_is_awaited(aio, fb):
    async def first():
        await fb.ensure_portal()
        asyncio.get_running_loop().call_later(0.1, stop.set_result, "stopped")
        return fb.await_(asyncio.shield(stop))

    async def main():
        nonlocal stop
        stop = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(first())
        task.add_done_callback(lambda _: stop.done() or stop.set_result("done"))
        return await asyncio.wait_for(task, LIMIT)

    stop = None
    assert aio.run(main) == "stopped"


def test_many_wait_for_one(aio, fb):
    """The search does not go over everybody again and again."""
    count = 2000

    async def waits():
        await fb.ensure_portal()
        return fb.await_(tasks[0])

    async def one():
        await fb.ensure_portal()
        await asyncio.sleep(0.05)
        for _ in range(20):
            fb.await_(asyncio.create_task(asyncio.sleep(0)))
        return 1

    async def main():
        tasks.append(asyncio.create_task(one()))
        return sum(await asyncio.gather(*(waits() for _ in range(count))))

    tasks = []
    assert aio.run(main) == count


def test_a_look_costs_what_there_is(aio, fb, monkeypatch):
    """A row of tasks, each waiting for the next: a look at all of them looks at each once."""
    from fiberback._deadlock import wait_cycle, watchdog

    length, looks, asked = 100, [], 0
    waiters = wait_cycle.waiters_of

    def counting(node):
        nonlocal asked
        asked += 1
        return waiters(node)

    look = watchdog._Watch._look

    def noting(self):
        nonlocal asked
        asked = 0
        look(self)
        looks.append((len(self.waits), asked))

    monkeypatch.setattr(wait_cycle, "waiters_of", counting)
    monkeypatch.setattr(watchdog._Watch, "_look", noting)

    async def link(n):
        if n:
            return fb.await_(asyncio.create_task(fb.with_portal_run(link, n - 1))) + 1
        while not looks or looks[-1][0] < length:
            await asyncio.sleep(0.01)
        return 0

    assert aio.run(fb.with_portal_run, link, length) == length
    assert all(asked <= waits + 10 for waits, asked in looks), looks


def test_a_circle_above_a_row(aio, fb):
    """What leads to a circle is looked at as well; those in the circle are told, and all goes on."""

    async def row(n, last):
        if n == 0:
            return fb.await_(last)
        return fb.await_(asyncio.create_task(fb.with_portal_run(row, n - 1, last)))

    async def main():
        tasks = {}

        async def first():
            await asyncio.sleep(0)
            return fb.await_(tasks["second"])

        async def second():
            await asyncio.sleep(0.01)
            return await tasks["first"]

        for run in (first, second):
            tasks[run.__name__] = asyncio.create_task(fb.with_portal_run(run), name=run.__name__)
        rows = [fb.with_portal_run(row, 5, tasks["second"]) for _ in range(3)]
        outcomes = await asyncio.wait_for(asyncio.gather(*rows, return_exceptions=True), LIMIT)
        assert all("waits for" in str(outcome) for outcome in outcomes), outcomes

    aio.run(main)


def test_the_watch_keeps_nothing_alive(aio, fb):
    class Result:
        pass

    async def produce():
        await asyncio.sleep(0)
        return Result()

    async def consume():
        await fb.ensure_portal()
        return weakref.ref(fb.await_(asyncio.create_task(produce())))

    async def main():
        found = await consume()
        await asyncio.sleep(0)
        gc.collect()
        return found() is None

    assert aio.run(main)


@pytest.mark.parametrize(
    ("callback", "watched"),
    [
        (functools.partial([].append), False),  # as of loop.sock_recv()
        ([].append, False),  # as of a driver that is compiled
        (lambda future: None, True),  # as of shield(), and of run_in_executor()
    ],
)
def test_what_a_driver_waits_for_is_not_watched(fb, callback, watched):
    """The search for circles costs as much as a small query."""

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future.add_done_callback(callback)

        async def waits():
            await fb.ensure_portal()
            return fb.await_(future)

        before = len(loop._scheduled)
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(loop._scheduled) - before == watched
        future.set_result("here")
        return await task

    assert asyncio.run(main()) == "here"


def test_somebody_cancels_the_timer_of_the_watch(fb):
    """What all timers of a loop are cancelled by must not leave its count wrong."""

    async def main():
        loop = asyncio.get_running_loop()

        async def waits():
            await fb.ensure_portal()
            return fb.await_(gate_task)

        gate = asyncio.Event()
        gate_task = asyncio.create_task(gate.wait())
        for _ in range(3):
            task = asyncio.create_task(waits())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            timers = [timer for timer in loop._scheduled if not timer.cancelled()]
            assert len(timers) == 1
            timers[0].cancel()
            task.cancel()
            await asyncio.wait([task])
            if gate_task.done():
                gate_task = asyncio.create_task(gate.wait())
        cancelled = sum(timer.cancelled() for timer in loop._scheduled)
        assert loop._timer_cancelled_count == cancelled
        gate.set()
        return await waits()

    assert asyncio.run(main())
