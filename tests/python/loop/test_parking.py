"""`await_` inside a running stock asyncio loop with no portal: the whole stack waits."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import copy
import functools
import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
import types
import warnings
import weakref

import pytest
from support import only_fiberback, waiting_for_each_other

pytestmark = only_fiberback

PY312 = sys.version_info >= (3, 12)


def run_stock(main, **kwds):
    return asyncio.run(main, **kwds)


def run_eager(main, **kwds):
    def factory():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    with asyncio.Runner(loop_factory=factory, **kwds) as runner:
        return runner.run(main)


def run_pure(main, **kwds):
    """Tasks and futures in pure Python."""

    def factory():
        loop = asyncio.new_event_loop()

        def make(loop, coro, **kw):
            if kw.get("name", "") is None:
                del kw["name"]
            return asyncio.tasks._PyTask(coro, loop=loop, **kw)

        loop.set_task_factory(make)
        loop.create_future = lambda: asyncio.futures._PyFuture(loop=loop)
        return loop

    with pure_functions(), asyncio.Runner(loop_factory=factory, **kwds) as runner:
        return runner.run(main)


@contextlib.contextmanager
def pure_functions():
    """Since 3.14 asyncio's C functions and its pure-Python tasks know nothing of each other."""
    if sys.version_info < (3, 14):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in ("current_task", "all_tasks"):
            patch.setattr(asyncio, name, getattr(asyncio.tasks, f"_py_{name}"))
            patch.setattr(asyncio.tasks, name, getattr(asyncio.tasks, f"_py_{name}"))
        for name in ("enter_task", "leave_task", "swap_current_task", "register_task"):
            patch.setattr(asyncio.tasks, f"_{name}", getattr(asyncio.tasks, f"_py_{name}"))
        yield


def run_ours(main, **kwds):
    import fiberback

    return fiberback.run(main, **kwds)


RUNS = {"stock": run_stock, "pure": run_pure, "ours": run_ours}
if PY312:
    RUNS["eager"] = run_eager


@pytest.fixture(params=list(RUNS))
def run(request):
    return RUNS[request.param]


@pytest.fixture(params=["stock", "ours"])
def run_raw(request):
    """For what happens in callbacks, where tasks' kinds make no difference."""
    return RUNS[request.param]


async def value_later(value, delay=0.0):
    await asyncio.sleep(delay)
    return value


async def raise_later(error, delay=0.0):
    await asyncio.sleep(delay)
    raise error


# -- where it works ---------------------------------------------------------------------------


def test_in_a_task(fb, run):
    def deep(n):
        return deep(n - 1) if n else fb.await_(value_later(3, 0.001))

    async def main():
        return deep(50)

    assert run(main()) == 3


def test_all_kinds_of_awaitables(fb, run):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 1)
        assert fb.await_(future) == 1
        assert fb.await_(future) == 1  # done
        assert fb.await_(asyncio.create_task(value_later(2))) == 2
        assert fb.await_(asyncio.gather(value_later(3), value_later(4, 0.001))) == [3, 4]
        assert fb.await_(asyncio.sleep(0, 5)) == 5
        assert fb.await_(loop.run_in_executor(None, int, "6")) == 6
        assert fb.await_(asyncio.wait_for(value_later(7), 1)) == 7

        class Custom:
            def __await__(self):
                yield
                return (yield from future.__await__())

        assert fb.await_(Custom()) == 1
        with pytest.raises(TypeError):
            fb.await_(3)

    run(main())


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe", "signal"])
def test_in_callbacks(fb, run_raw, how):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def callback():
            assert asyncio.current_task() is None
            future.set_result(fb.await_(value_later("x", 0.001)))
            assert asyncio.current_task() is None

        if how == "call_later":
            loop.call_later(0.001, callback)
        elif how == "signal":
            loop.add_signal_handler(signal.SIGUSR1, callback)
            os.kill(os.getpid(), signal.SIGUSR1)
        elif how == "call_soon_threadsafe":
            threading.Thread(target=loop.call_soon_threadsafe, args=(callback,)).start()
        else:
            loop.call_soon(callback)
        assert await future == "x"
        if how == "signal":
            loop.remove_signal_handler(signal.SIGUSR1)

    run_raw(main())


def test_callbacks_get_a_task_of_their_own(fb, run_raw):
    variable = contextvars.ContextVar("variable", default=0)

    async def inside():
        assert asyncio.current_task() is not None
        variable.set(variable.get() + 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return 1

    async def main():
        done = asyncio.get_running_loop().create_future()

        def callback():
            variable.set(10)
            fb.await_(inside())
            done.set_result(variable.get())

        asyncio.get_running_loop().call_soon(callback)
        return await done, variable.get()

    assert run_raw(main()) == (11, 0)


def test_in_protocol_callbacks(fb, run_raw):
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        got = loop.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                fb.await_(asyncio.sleep(0.001))
                transport.write(b"hello")

            def data_received(self, data):
                fb.await_(asyncio.sleep(0.001))
                if not got.done():
                    got.set_result(data)

        one, _ = await loop.create_connection(Protocol, sock=here)
        two, _ = await loop.create_connection(Protocol, sock=there)
        assert await got == b"hello"
        one.close()
        two.close()
        await asyncio.sleep(0.02)

    run_raw(main())


def test_in_special_methods_and_c_code(fb, run):
    class Lazy:
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return fb.await_(value_later(name, 0.001))

        def __iter__(self):
            for n in range(3):
                yield fb.await_(value_later(n))

        def __len__(self):
            return fb.await_(value_later(7))

        def __eq__(self, other):
            return fb.await_(value_later(True))

        __hash__ = None

    @functools.lru_cache(maxsize=4)
    def cached(n):
        return fb.await_(value_later(n * n, 0.001))

    async def main():
        lazy = Lazy()
        assert lazy.name == "name"
        assert list(lazy) == [0, 1, 2]
        assert len(lazy) == 7
        assert lazy in [object()]
        assert [cached(3), cached(3), cached(4)] == [9, 9, 16]
        assert sorted([3, 1, 2], key=lambda n: fb.await_(value_later(n))) == [1, 2, 3]
        assert [*map(lambda n: fb.await_(value_later(n)), range(3))] == [0, 1, 2]

    async def three():
        await asyncio.gather(*(asyncio.create_task(main()) for _ in range(3)))

    run(three())


def test_in_del(fb, run):
    log = []

    class Resource:
        def __del__(self):
            log.append(fb.await_(value_later("closed", 0.001)))

    class Cyclic:
        def __init__(self):
            self.me = self

        def __del__(self):
            log.append(fb.await_(value_later("collected", 0.001)))

    async def main():
        Resource()
        Cyclic()
        gc.collect()

    async def others():
        for _ in range(20):
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(main(), others())

    run(both())
    assert log == ["closed", "collected"]


# -- what it leaves behind --------------------------------------------------------------------


def snapshot(loop):
    def plain(mapping):
        """What the containers hold, too."""
        return {
            key: copy.copy(value) if type(value) in CONTAINERS else value
            for key, value in mapping.items()
        }

    task = asyncio.current_task()
    fields = {
        name: getattr(task, name)
        for name in dir(task)
        if not callable(getattr(task, name))
        and not name.startswith("__")
        and name != "_log_traceback"
        and not (name == "_coro" and "greenlet" in sys.modules)  # which may get a portal
    }
    modules = {
        name: plain(vars(module))
        for name, module in sys.modules.items()
        if name.split(".")[0] in ("asyncio", "_asyncio")
    }
    classes = [dict(vars(cls)) for cls in type(loop).__mro__]
    return plain(vars(loop)), fields, modules, classes, dict(vars(type(task)))


CONTAINERS = (collections.deque, dict, list, set, weakref.WeakSet)


def test_nothing_is_changed(fb):
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            before = snapshot(loop)
            fb.await_(value_later(1, 0.001))
            after = snapshot(loop)
            assert before == after
        done = loop.create_future()
        before = snapshot(loop)
        loop.call_soon(lambda: done.set_result(fb.await_(value_later(1))))
        await done
        assert snapshot(loop) == before

    asyncio.run(main())


async def by_task(delay):
    return asyncio.create_task(value_later(1, delay))


async def by_gather(delay):
    return asyncio.gather(value_later(1, delay), value_later(2))


async def by_shield(delay):
    return asyncio.shield(asyncio.create_task(value_later(1, delay)))


async def by_wait(delay):
    return asyncio.wait([asyncio.create_task(value_later(1, delay))])


async def by_wait_for(delay):
    return asyncio.wait_for(value_later(1, delay), None)


async def by_wait_for_with_a_limit(delay):
    return asyncio.wait_for(value_later(1, delay), 60)


async def by_await_of_a_task(delay):
    async def inner():
        return await asyncio.create_task(value_later(1, delay))

    return inner()


async def by_failing_task(delay):
    return asyncio.create_task(raise_later(KeyError("x"), delay))


WAYS = [
    by_task,
    by_gather,
    by_shield,
    by_wait,
    by_wait_for,
    by_wait_for_with_a_limit,
    by_await_of_a_task,
    by_failing_task,
]


def without_limits(snapshot):
    """Without the timers of `wait_for`, which asyncio itself leaves in the heap, cancelled."""
    loop = snapshot[0]
    loop["_scheduled"] = [timer for timer in loop["_scheduled"] if not timer.cancelled()]
    del loop["_timer_cancelled_count"]
    return snapshot


def without_looks(snapshot, name):
    from fiberback._deadlock.watchdog import is_look

    handles = snapshot[0][name]
    snapshot[0][name] = type(handles)(handle for handle in handles if not is_look(handle))


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.__name__)
@pytest.mark.parametrize("delay", [0.0, 0.12], ids=["at once", "later"])
@pytest.mark.parametrize("others", ["alone", "among others"])
@pytest.mark.parametrize("where", ["task", "portal"])
def test_nothing_is_changed_by_waiting_for_tasks(fb, run, how, delay, others, where):
    async def main():
        loop = asyncio.get_running_loop()
        if where == "portal":
            await fb.ensure_portal()
        if others == "among others":
            gate = asyncio.Event()

            async def parked(waits_for):
                fb.await_(waits_for)

            if run is not run_eager:  # where it would wait with its creator
                kept = [asyncio.create_task(parked(gate.wait())) for _ in range(2)]
            timers = [loop.call_later(60 + n % 7, int) for n in range(50)]
            await asyncio.sleep(0)
        for _ in range(3):
            scheduled = list(loop._scheduled)
            awaitable = await how(delay)
            before = snapshot(loop)
            # What it has begun with is over afterwards.
            before[0]["_ready"].clear()
            before[0]["_scheduled"] = scheduled
            try:
                fb.await_(awaitable)
            except KeyError:
                pass
            after = snapshot(loop)
            if how is by_wait_for_with_a_limit:
                before, after = without_limits(before), without_limits(after)
            # A watch's timer that came due in this turn: a late one on a busy machine. (Of pure Python, the
            # others' futures are watched, too.)
            without_looks(after, "_ready")
            if others == "among others" and run is run_pure:
                without_looks(before, "_scheduled")
                without_looks(after, "_scheduled")
            if others == "among others":
                assert sorted(before[0].pop("_scheduled")) == sorted(after[0].pop("_scheduled"))
                heap = loop._scheduled
                assert all(not heap[n] < heap[(n - 1) // 2] for n in range(1, len(heap)))
            assert before == after
        if others == "among others":
            gate.set()
            for timer in timers:
                timer.cancel()
            if run is not run_eager:
                await asyncio.gather(*kept)

    run(main())


def test_nothing_is_changed_by_cancelling_a_wait_for_a_task(fb, run_raw):
    async def main():
        loop = asyncio.get_running_loop()
        forever = asyncio.create_task(asyncio.Event().wait())

        async def waits():
            fb.await_(asyncio.shield(forever))

        await asyncio.sleep(0)
        before = snapshot(loop)
        for delay in (0.0, 0.12):
            task = asyncio.create_task(waits())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        del task
        assert_same_but_for_sleep(snapshot(loop), before)
        forever.cancel()

    run_raw(main())


def assert_same_but_for_sleep(one, other):
    for each in (one, other):
        without_limits(each)
        del each[0]["_scheduled"][:]
    assert one == other


@pytest.mark.parametrize("held_up", [False, True], ids=["", "held up"])
@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.__name__)
def test_nothing_is_left_in_uvloop(fb, how, held_up):
    uvloop = pytest.importorskip("uvloop")

    def timers():
        """How many are still to come. One that has been called lives on in uvloop until the end of the
        loop's turn, but has no callback any more, whose name it would show."""
        found = [item for item in gc.get_objects() if type(item) is uvloop.loop.TimerHandle]
        return sum(not timer.cancelled() and repr(timer) != "<TimerHandle>" for timer in found)

    async def main():
        await fb.ensure_portal()
        for delay in (0.0, 0.12):
            with contextlib.suppress(KeyError):
                fb.await_(await how(delay))
            assert timers() == 0
        lasting = asyncio.create_task(asyncio.sleep(10))
        waits = asyncio.create_task(fb.with_portal_run_sync(fb.await_, lasting))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it waits
        if held_up:  # so the watch has its first look in the turn in which the next sleep ends
            asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        await asyncio.sleep(0.01)
        assert timers() == 2  # that of the sleep, and that of the watch: they can be seen
        waits.cancel()
        await asyncio.wait([waits, lasting])
        assert timers() == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_current_task_and_its_waiter(fb, run):
    async def main():
        me = asyncio.current_task()
        future = asyncio.get_running_loop().create_future()

        async def other():
            assert asyncio.current_task() is not me
            assert me._fut_waiter is future
            assert not me._must_cancel
            assert me in asyncio.all_tasks()
            future.set_result(4)

        task = asyncio.create_task(other())
        assert fb.await_(future) == 4
        assert asyncio.current_task() is me
        assert me._fut_waiter is None
        await task

    if run is run_eager:
        pytest.skip("the other task runs at once")
    run(main())


def test_the_rest_of_the_loop_goes_on(fb, run):
    async def main():
        order = []
        ticked = asyncio.Event()

        async def ticks():
            for n in range(5):
                await asyncio.sleep(0.001)
                order.append(n)
            ticked.set()

        task = asyncio.create_task(ticks())
        fb.await_(ticked.wait())
        order.append("caller")
        await task
        return order

    assert run(main()) == [0, 1, 2, 3, 4, "caller"]


def test_any_order(fb, run):
    async def main():
        loop = asyncio.get_running_loop()
        gates = [loop.create_future() for _ in range(10)]
        order = []

        def wait(n):
            order.append(fb.await_(gates[n]))

        async def one(n):
            wait(n)

        tasks = []
        for n in range(10):
            if n % 3:
                tasks.append(asyncio.create_task(one(n)))
            else:
                loop.call_soon(wait, n)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        expected = [3, 0, 7, 9, 1, 2, 8, 4, 6, 5]
        for n in expected:
            gates[n].set_result(n)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return order

    if run is run_eager:
        pytest.skip("an eager task holds its creator, see PARKING.md")
    assert run(main()) == [3, 0, 7, 9, 1, 2, 8, 4, 6, 5]


async def interleave(seed, wait):
    """Tasks that wait for each other's events, sleep, time out and cancel, at random."""
    random_ = random.Random(seed)
    log = []
    count = random_.randint(3, 12)
    events = [asyncio.Event() for _ in range(count)]
    plans = []
    for _ in range(count):
        steps = []
        for _ in range(random_.randint(1, 6)):
            kind = random_.choice(
                ["yield", "yield", "set", "wait", "timeout", "raise", "nested", "shield"]
            )
            steps.append((kind, random_.randrange(count)))
        plans.append(steps)

    async def nested(n):
        await asyncio.sleep(0)
        return n

    async def one(n):
        for kind, other in plans[n]:
            log.append((n, kind))
            try:
                if kind == "yield":
                    await wait(asyncio.sleep(0))
                elif kind == "set":
                    events[other].set()
                elif kind == "wait":
                    await wait(events[other].wait())
                elif kind == "timeout":
                    try:
                        async with asyncio.timeout(0):
                            await wait(asyncio.sleep(10))
                    except TimeoutError:
                        log.append((n, "timed out", asyncio.current_task().cancelling()))
                elif kind == "raise":
                    try:
                        await wait(raise_later(KeyError(other)))
                    except KeyError as error:
                        log.append((n, str(error)))
                elif kind == "nested":
                    log.append((n, await wait(asyncio.gather(nested(n), nested(other)))))
                else:
                    log.append((n, await wait(asyncio.shield(asyncio.ensure_future(nested(n))))))
            except asyncio.CancelledError:
                log.append((n, "cancelled", asyncio.current_task().cancelling()))
                raise
        return n

    tasks = [asyncio.create_task(one(n)) for n in range(count)]
    for n in random_.sample(range(count), count // 3):
        await asyncio.sleep(0)
        tasks[n].cancel()
    for _ in range(40):
        await asyncio.sleep(0)
    for event in events:
        event.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return log, [type(r) if isinstance(r, BaseException) else r for r in results]


@pytest.mark.parametrize("seed", range(60))
def test_interleavings_are_those_of_native_await(fb, seed):
    async def natively(awaitable):
        return await awaitable

    async def parked(awaitable):
        return fb.await_(awaitable)

    expected = asyncio.run(interleave(seed, natively))
    assert run_stock(interleave(seed, parked)) == expected
    assert run_ours(interleave(seed, parked)) == expected


@pytest.mark.parametrize("count", [1000, 10_000])
def test_many_callers(fb, run_raw, count):
    async def main():
        gate = asyncio.Event()
        order = []

        def sync(n):
            for _ in range(3):
                fb.await_(asyncio.sleep(0))
            fb.await_(gate.wait())
            order.append(n)
            return n

        async def one(n):
            return sync(n)

        tasks = [asyncio.create_task(one(n)) for n in range(count)]
        for _ in range(6):
            await asyncio.sleep(0)
        assert not order
        gate.set()
        assert await asyncio.gather(*tasks) == list(range(count))
        assert order == list(range(count))

    run_raw(main())


# -- cancellation and timeouts ----------------------------------------------------------------


def test_cancel_is_prompt(fb, run):
    async def main():
        log = []

        async def parked():
            try:
                fb.await_(asyncio.sleep(1000))
            except asyncio.CancelledError as error:
                log.append(error.args)
                raise
            finally:
                log.append(
                    (asyncio.current_task().cancelling(), asyncio.current_task()._must_cancel)
                )

        task = asyncio.get_running_loop().create_task(parked())
        await asyncio.sleep(0.001)
        assert task.cancel("why")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == [("why",), (1, False)]
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    if run is run_eager:
        pytest.skip("an eager task holds its creator, see PARKING.md")
    run(main())


def test_cancelled_before_it_waits(fb, run):
    async def main():
        async def parked():
            me = asyncio.current_task()
            me.cancel()
            with pytest.raises(asyncio.CancelledError):
                fb.await_(asyncio.sleep(0.001))
            assert not me._must_cancel
            assert me.cancelling() == 1
            fb.await_(asyncio.sleep(0.001))
            me.cancel()
            with pytest.raises(asyncio.CancelledError):
                fb.await_(asyncio.sleep(0))  # a bare yield
            assert not me._must_cancel
            assert me.uncancel() == 1
            assert me.uncancel() == 0
            fb.await_(asyncio.sleep(0))
            await asyncio.sleep(0)
            return 1

        return await asyncio.create_task(parked())

    assert run(main()) == 1


def test_cancelled_during_a_bare_yield(fb, run):
    async def main():
        async def parked():
            with pytest.raises(asyncio.CancelledError):
                fb.await_(asyncio.sleep(0))
            assert not asyncio.current_task()._must_cancel
            await asyncio.sleep(0)

        task = asyncio.create_task(parked())
        if run is not run_eager:
            await asyncio.sleep(0)
        task.cancel()
        await task

    if run is run_eager:
        pytest.skip("an eager task holds its creator, see PARKING.md")
    run(main())


def test_a_cancelled_caller_can_go_on(fb, run_raw):
    async def main():
        async def parked():
            for _ in range(3):
                with contextlib.suppress(asyncio.CancelledError):
                    fb.await_(asyncio.sleep(1000))
            return asyncio.current_task().cancelling()

        task = asyncio.create_task(parked())
        for _ in range(3):
            await asyncio.sleep(0.001)
            task.cancel()
        return await task

    assert run_raw(main()) == 3


def test_timeouts(fb, run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                fb.await_(asyncio.sleep(1000))
        assert asyncio.current_task().cancelling() == 0
        with pytest.raises(TimeoutError):
            fb.await_(asyncio.wait_for(asyncio.sleep(1000), 0.005))
        async with asyncio.timeout(10):
            fb.await_(asyncio.sleep(0.001))

        async def inside():
            async with asyncio.timeout(0.005):
                await asyncio.sleep(1000)

        with pytest.raises(TimeoutError):
            fb.await_(inside())

    run(main())


def test_many_are_cancelled_at_once(fb, run_raw):
    async def main():
        ended = []

        async def parked(n):
            try:
                fb.await_(asyncio.sleep(1000))
            finally:
                ended.append(n)

        tasks = [asyncio.create_task(parked(n)) for n in range(500)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in done)
        assert ended == list(range(500))

        async def timed(n):
            try:
                async with asyncio.timeout(0.01):
                    fb.await_(asyncio.sleep(1000))
            except TimeoutError:
                return asyncio.current_task().cancelling()

        assert await asyncio.gather(*(timed(n) for n in range(500))) == [0] * 500

    run_raw(main())


def test_task_groups(fb, run):
    async def main():
        log = []

        async def fails():
            fb.await_(asyncio.sleep(0.002))
            raise ValueError("group")

        async def waits():
            try:
                await asyncio.sleep(0)
                fb.await_(asyncio.sleep(1000))
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        with pytest.raises(BaseExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                group.create_task(waits())
                group.create_task(fails())
                fb.await_(asyncio.sleep(1000))
        assert [str(error) for error in info.value.exceptions] == ["group"]
        assert log == ["cancelled"]
        assert asyncio.current_task().cancelling() == 0

    if run is run_eager:
        pytest.skip("an eager task holds its creator, see PARKING.md")
    run(main())


def test_eager_tasks_wait_with_their_creator(fb):
    if not PY312:
        pytest.skip("eager tasks came with 3.12")

    async def main():
        log = []

        async def child():
            me = asyncio.current_task()
            log.append(fb.await_(value_later("child", 0.002)))
            assert asyncio.current_task() is me
            return me

        async def ticker():
            await asyncio.sleep(0.001)
            log.append("ticker")

        tick = asyncio.create_task(ticker())
        me = asyncio.current_task()
        task = asyncio.create_task(child())
        assert asyncio.current_task() is me
        log.append("created")
        assert await task is task
        await tick
        return log

    assert run_eager(main()) == ["ticker", "child", "created"]


# -- contexts -----------------------------------------------------------------------------------


def test_contextvars(fb, run):
    variable = contextvars.ContextVar("variable", default="outside")

    async def sets():
        variable.set("inside")
        await asyncio.sleep(0.001)

    async def main():
        variable.set("main")

        async def other():
            variable.set("other")
            await asyncio.sleep(0)
            return variable.get()

        task = asyncio.create_task(other())
        fb.await_(sets())  # like await: in the caller's own context
        assert variable.get() == "inside"
        assert await task == "other"
        inner = contextvars.copy_context()
        inner.run(variable.set, "nested")

        def nested():
            fb.await_(asyncio.sleep(0.001))
            return variable.get()

        assert inner.run(nested) == "nested"
        assert variable.get() == "inside"

    run(main())
    assert variable.get() == "outside"


def test_a_shared_context(fb, run_raw):
    variable = contextvars.ContextVar("variable", default=0)

    async def main():
        loop = asyncio.get_running_loop()
        shared = contextvars.Context()
        done = loop.create_future()

        def parked():
            variable.set(1)
            fb.await_(asyncio.sleep(0.01))
            done.set_result(variable.get())

        def meanwhile():
            variable.set(variable.get() + 1)

        loop.call_soon(parked, context=shared)
        loop.call_soon(meanwhile, context=shared)
        task = loop.create_task(value_later(1), context=shared)
        await task
        assert await done == 2

    run_raw(main())


# -- exceptions, tracebacks, stacks -------------------------------------------------------------


def test_exceptions_and_tracebacks(fb, run):
    def sync():
        fb.await_(raise_later(ValueError("x"), 0.001))

    async def main():
        try:
            sync()
        except ValueError as error:
            names = [entry.name for entry in traceback.extract_tb(error.__traceback__)]
            assert names == ["main", "sync", "raise_later"]
            assert error.__context__ is None

        try:
            raise KeyError("outer")
        except KeyError as outer:
            try:
                sync()
            except ValueError as error:
                assert error.__context__ is outer
            assert sys.exc_info()[1] is outer
            task = asyncio.create_task(no_exception())
            fb.await_(asyncio.sleep(0.001))
            assert sys.exc_info()[1] is outer
            await task

    async def no_exception():
        if run is not run_eager:
            assert sys.exc_info()[1] is None
        await asyncio.sleep(0)

    run(main())


def test_handled_exceptions_are_those_of_each_stack(fb, run_raw):
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        done = loop.create_future()

        def first():
            try:
                raise KeyError(1)
            except KeyError:
                fb.await_(asyncio.sleep(0.002))
                seen.append(repr(sys.exc_info()[1]))
            done.set_result(None)

        def second():
            seen.append(sys.exc_info()[1])

        loop.call_soon(first)
        loop.call_soon(second)
        await done
        assert seen == [None, "KeyError(1)"]

    run_raw(main())


def test_frames_below_are_those_of_the_loop(fb, run_raw):
    async def main():
        loop = asyncio.get_running_loop()
        stacks = []

        def look():
            stacks.append([entry.name for entry in traceback.extract_stack()])

        def parked_function():
            fb.await_(asyncio.sleep(0.002))
            look()

        natively = loop.create_future()
        loop.call_soon(lambda: (look(), natively.set_result(None)))
        await natively
        loop.call_soon(look)
        parked_function()
        for stack in stacks[:2]:
            assert "parked_function" not in stack
            assert "run_forever" in stack
            assert stack[-1] == "look"
        below = [stack[: stack.index("_run_once") + 1] for stack in stacks]
        assert below[0] == below[1] == below[2]
        assert "parked_function" in stacks[2]

    run_raw(main())


def test_recursion_limit(fb, run_raw):
    def depth():
        try:
            return 1 + depth()
        except RecursionError:
            return 1

    async def main():
        loop = asyncio.get_running_loop()
        measured = []
        natively = loop.create_future()
        loop.call_soon(lambda: natively.set_result(depth()))
        expected = await natively

        def deep(n):
            if n:
                return deep(n - 1)
            return fb.await_(asyncio.sleep(0.002))

        loop.call_soon(lambda: measured.append(depth()))
        deep(300)
        assert abs(measured[0] - expected) < 30, (measured, expected)
        assert abs(depth() - expected) < 30

    run_raw(main())


def test_bad_yields_are_told_in_the_awaitable(fb, run_raw):
    class Bad:
        def __init__(self, thing):
            self.thing = thing

        def __await__(self):
            try:
                yield self.thing
            except RuntimeError as error:
                return str(error)

    async def main():
        assert fb.await_(Bad(3)) == "Task got bad yield: 3"
        future = asyncio.get_running_loop().create_future()
        assert "yield was used instead of yield from" in fb.await_(Bad(future))
        me = asyncio.current_task()
        me._asyncio_future_blocking = True
        told = fb.await_(Bad(me))
        assert "await on itself" in told or "deadlock" in told
        me._asyncio_future_blocking = False
        other = asyncio.new_event_loop()
        theirs = other.create_future()
        theirs._asyncio_future_blocking = True
        assert "attached to a different loop" in fb.await_(Bad(theirs))
        other.close()

    run_raw(main())


# -- the loop's own ways --------------------------------------------------------------------------


def test_keyboard_interrupt_and_exit_reach_the_caller(fb, run):
    for error in (KeyboardInterrupt, SystemExit):

        async def main(error=error):
            def callback():
                raise error("out")

            asyncio.get_running_loop().call_later(0.002, callback)
            fb.await_(asyncio.sleep(1000))

        with pytest.raises(error):
            run(main())


def test_keyboard_interrupt_of_a_task(fb, run_raw):
    async def main():
        async def interrupted():
            fb.await_(asyncio.sleep(0.002))
            raise KeyboardInterrupt

        asyncio.create_task(interrupted())
        fb.await_(asyncio.sleep(1000))

    with pytest.raises(KeyboardInterrupt):
        run_raw(main())


def test_sigint(fb, run):
    async def main():
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            fb.await_(asyncio.sleep(1000))
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    cancelled = []
    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cancelled == [1]


def test_exceptions_in_callbacks_go_to_the_handler(fb, run_raw):
    async def main():
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        loop.set_exception_handler(lambda loop, context: told.set_result(context["exception"]))

        def callback():
            fb.await_(raise_later(ValueError("x")))

        loop.call_soon(callback)
        assert isinstance(await told, ValueError)

    run_raw(main())


@pytest.mark.parametrize("where", ["task", "callback"])
def test_the_slow_callback_log_does_not_count_parked_time(fb, run_raw, where, caplog):
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.5
        done = loop.create_future()

        def waits():
            handle = loop._current_handle
            assert handle is not None
            fb.await_(asyncio.sleep(1.2))
            if where == "callback":
                assert loop._current_handle is handle

        if where == "task":
            waits()
        else:
            loop.call_soon(lambda: (waits(), done.set_result(None)))
            await done

        async def slow():
            fb.await_(asyncio.sleep(0.001))
            threading.Event().wait(0.6)

        await asyncio.create_task(slow(), name="slow")

    with caplog.at_level(logging.WARNING, "asyncio"):
        run_raw(main(), debug=True)
    told = [record.getMessage() for record in caplog.records if "Executing" in record.getMessage()]
    assert len(told) == 1, told
    assert "slow" in told[0]


def test_stop_and_run_again(fb):
    loop = asyncio.new_event_loop()
    gates = [loop.create_future() for _ in range(4)]
    log = []

    def wait(n):
        log.append(fb.await_(gates[n]))

    async def task(n):
        wait(n)

    with fb.enable(loop):
        loop.call_soon(wait, 3)
        tasks = [loop.create_task(task(n)) for n in range(3)]
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert log == []
        for n in range(3):
            gates[n].set_result(n)
        loop.run_until_complete(asyncio.gather(*tasks))
        assert log == [0, 1, 2]
        gates[3].set_result("callback")
        loop.run_until_complete(asyncio.sleep(0.001))
        assert log == [0, 1, 2, "callback"]
    loop.close()


def test_callers_on_runners_are_carried_over(fb):
    """Whatever is not parked on the host survives a run of the loop."""
    loop = asyncio.new_event_loop()
    gates = [loop.create_future() for _ in range(3)]
    log = []

    async def task(n):
        log.append(fb.await_(gates[n]))

    async def main():
        fb.await_(asyncio.sleep(0.001))

    mains = loop.create_task(main())  # the first to park: on the host
    tasks = [loop.create_task(task(n)) for n in range(3)]
    loop.run_until_complete(mains)
    loop.run_until_complete(asyncio.sleep(0))
    assert log == []
    for n, gate in enumerate(gates):
        gate.set_result(n)
    loop.run_until_complete(asyncio.gather(*tasks))
    assert log == [0, 1, 2]
    loop.close()


def test_a_caller_on_the_host_is_cancelled_with_a_warning(fb):
    loop = asyncio.new_event_loop()
    log = []

    async def holds():
        try:
            fb.await_(asyncio.sleep(1000))
        except asyncio.CancelledError as error:
            log.append(str(error))
            fb.await_(asyncio.sleep(0.001))  # and cleans up
            log.append("clean")

    task = loop.create_task(holds(), name="holder")
    with pytest.warns(RuntimeWarning, match="holder.*fiberback.enable"):
        loop.run_until_complete(asyncio.sleep(0.005))
    assert log == ["the event loop was stopped", "clean"]
    assert task.done()

    def callback():
        try:
            fb.await_(asyncio.sleep(1000))
        except asyncio.CancelledError:
            log.append("callback")

    loop.call_soon(callback)
    with pytest.warns(RuntimeWarning, match="a callback"):
        loop.run_until_complete(asyncio.sleep(0.005))
    assert log[-1] == "callback"
    loop.close()


def test_a_short_wait_on_the_host_ends_by_itself(fb):
    loop = asyncio.new_event_loop()
    log = []

    async def works():
        while True:
            log.append(fb.await_(asyncio.sleep(0.001, len(log))))
            await asyncio.sleep(0)

    task = loop.create_task(works())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            before = len(log)
            loop.run_until_complete(asyncio.sleep(0.005))
            assert not task.done()
        assert len(log) > before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


# -- the loop is closed while callers are parked --------------------------------------------------


def parked_callers(fb, loop, log, count=2):
    """Callbacks, and tasks 'parked 0', …, parked on fibers of a loop that does not run any more.

    Where greenlet is loaded, no tasks: they would have portals (crash/loop/parked_and_closed.py has it not).
    """

    done = loop.create_future()

    def wait(name):
        try:
            fb.await_(loop.create_future())
        except asyncio.CancelledError:
            log.append(name)
            try:
                fb.await_(done)  # unless the loop runs
            except asyncio.CancelledError:
                log.append("again")
            raise

    async def task(n):
        wait(f"task {n}")

    async def first():
        fb.await_(asyncio.sleep(0.001))  # takes the host, so that the others park on fibers

    def callback(n):
        with contextlib.suppress(asyncio.CancelledError):
            wait(n)

    main = loop.create_task(first())
    coros = [] if "greenlet" in sys.modules else [task(n) for n in range(2)]
    tasks = [loop.create_task(coro, name=f"parked {n}") for n, coro in enumerate(coros)]
    for n in range(count):
        loop.call_soon(callback, n)
    loop.run_until_complete(main)
    loop.run_until_complete(asyncio.sleep(0))
    assert log == []
    return tasks, done


def ended(tasks, count=2):
    return sorted([*map(str, range(count)), *(f"task {n}" for n in range(len(tasks)))])


def test_close_ends_callers_with_a_warning(fb):
    loop, log = asyncio.new_event_loop(), []
    tasks, _ = parked_callers(fb, loop, log)
    with pytest.warns(RuntimeWarning) as caught:
        loop.close()
    text = str(caught[0].message)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert "closed" in text and text.count("a callback that waits for <Future") == 2
    assert all(f"name={task.get_name()!r}" in text for task in tasks)
    again = [name for name in log if name == "again"]
    assert len(again) == 2 + len(tasks)
    assert sorted(str(name) for name in log if name != "again") == ended(tasks)
    assert all(task.cancelled() for task in tasks)
    assert loop.is_closed()
    assert asyncio._get_running_loop() is None
    loop.close()


def test_close_of_an_enabled_loop(fb):
    """There callbacks are parked; tasks are suspended, and destroyed as those of asyncio."""
    loop, log = asyncio.new_event_loop(), []
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context["task"].get_name()))
    with fb.enable(loop):
        tasks, _ = parked_callers(fb, loop, log)
        count = len(tasks)
        with pytest.warns(RuntimeWarning, match="a callback that waits for"):
            loop.close()
    assert sorted(log, key=str) == [0, 1, "again", "again"]
    del tasks
    gc.collect()
    assert sorted(told) == [f"parked {n}" for n in range(count)]


def test_close_names_only_some_of_many(fb):
    loop, log = asyncio.new_event_loop(), []
    tasks, _ = parked_callers(fb, loop, log, count=100)
    with pytest.warns(RuntimeWarning, match=f"{90 + len(tasks)} more"):
        loop.close()
    assert sorted(str(name) for name in log if name != "again") == ended(tasks, 100)


def test_close_where_warnings_are_errors(fb, monkeypatch):
    loop, log = asyncio.new_event_loop(), []
    tasks, _ = parked_callers(fb, loop, log)
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(args.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.close()
    assert raised == [RuntimeWarning]
    assert sorted(str(name) for name in log if name != "again") == ended(tasks)


def test_close_without_callers_says_nothing(fb):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop, log = asyncio.new_event_loop(), []
        tasks, done = parked_callers(fb, loop, log)
        for _, future in fb._fiberback.parked_on(loop):
            future.cancel()
        done.set_result(None)
        loop._close_self_pipe()  # as some do after a fork
        loop._make_self_pipe()
        assert log == []
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0.001))
        assert sorted(map(str, log)) == ended(tasks)  # the loop runs
        assert fb._fiberback.parked_on(loop) == []
        loop.close()


def test_asyncio_run_ends_callbacks_that_wait_for_ever(fb, run_raw):
    """asyncio.run cancels tasks only."""
    log = []

    async def main():
        loop = asyncio.get_running_loop()

        def callback():
            try:
                fb.await_(loop.create_future())
            except asyncio.CancelledError:
                log.append("cancelled")

        if run_raw is run_stock:
            loop.call_later(0.001, callback)
            fb.await_(asyncio.sleep(0.01))  # takes the host
        else:
            loop.call_soon(callback)
            await asyncio.sleep(0.01)
        return 1

    with pytest.warns(RuntimeWarning, match="a callback that waits for"):
        assert run_raw(main()) == 1
    assert log == ["cancelled"]


@pytest.mark.parametrize("enabled", [False, True], ids=["stock", "enabled"])
def test_stop_with_callers_on_the_host_and_on_fibers(fb, enabled):
    loop, log = asyncio.new_event_loop(), []
    gate = loop.create_future()

    async def waits(n):
        try:
            log.append((n, fb.await_(asyncio.shield(gate))))
        except asyncio.CancelledError:
            log.append((n, "cancelled"))

    with fb.enable(loop) if enabled else contextlib.nullcontext():
        tasks = [loop.create_task(waits(n), name=f"waits {n}") for n in range(3)]
        loop.call_later(0.01, loop.stop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_forever()
        # On a stock loop the first one is in the way of the loop's end.
        assert log == ([] if enabled else [(0, "cancelled")])
        assert ["waits 0" in str(each.message) for each in caught] == ([] if enabled else [True])
        gate.set_result("open")
        loop.run_until_complete(asyncio.wait(tasks))
        first = "open" if enabled else "cancelled"
        assert log == [(0, first), (1, "open"), (2, "open")]
    loop.close()


def test_asyncio_run_cancels_without_a_warning(fb):
    log = []

    async def holds():
        try:
            fb.await_(asyncio.sleep(1000))
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main():
        asyncio.create_task(holds())
        await asyncio.sleep(0.005)
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(main()) == 1
    assert log == ["cancelled"]


def test_handles_left_at_stop_run_next_time(fb):
    loop = asyncio.new_event_loop()
    log = []

    def parked(n):
        fb.await_(asyncio.sleep(0))
        log.append(n)
        if n == 5:
            loop.stop()
            loop.call_soon(log.append, "late")

    for n in range(20):
        loop.call_soon(parked, n)
    loop.run_forever()
    seen = list(log)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert sorted(n for n in log if n != "late") == list(range(20))
    assert "late" in log and seen
    assert not loop._ready
    loop.close()


def test_subclassed_loops(fb):
    class Loop(asyncio.SelectorEventLoop):
        calls = 0

        def call_soon(self, *args, **kwds):
            type(self).calls += 1
            return super().call_soon(*args, **kwds)

        def time(self):
            return super().time() + 1000

    async def main():
        fb.await_(asyncio.gather(*(value_later(n, 0.001) for n in range(5))))
        return 1

    for runner in (
        asyncio.Runner(loop_factory=Loop),
        asyncio.Runner(loop_factory=asyncio.new_event_loop),
    ):
        with runner:
            assert runner.run(main()) == 1
            assert runner.run(main()) == 1
    assert Loop.calls


def test_a_loop_with_its_own_run_once_is_refused(fb):
    class Loop(asyncio.SelectorEventLoop):
        def _run_once(self):
            super()._run_once()

    async def main():
        with pytest.raises(RuntimeError, match="fiberback.ensure_portal"):
            fb.await_(asyncio.sleep(0))
        await fb.ensure_portal()
        return fb.await_(value_later(1))

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == 1


@pytest.mark.parametrize("depth", [0, 1], ids=["its class", "a base"])
def test_a_run_once_that_a_class_gets_later_is_refused(fb, depth):
    """What is known of a class ends with each change of it."""

    class Base(asyncio.SelectorEventLoop):
        pass

    class Loop(Base):
        pass

    def own(loop):
        asyncio.SelectorEventLoop._run_once(loop)

    async def main(refused):
        steps = []

        async def ready():
            steps.append(1)
            return 7

        for _ in range(3):
            if refused:
                with pytest.raises(RuntimeError, match="fiberback.ensure_portal"):
                    fb.await_(ready())
                with pytest.raises(RuntimeError, match="fiberback.ensure_portal"):
                    fb.await_(asyncio.sleep(0))
            else:
                assert fb.await_(ready()) == 7
                assert fb.await_(value_later(1)) == 1
        return len(steps)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main(refused=False)) == 3
        changed = (Loop, Base)[depth]
        changed._run_once = own
        assert runner.run(main(refused=True)) == 0
        del changed._run_once
        assert runner.run(main(refused=False)) == 3


def test_a_run_once_of_the_loop_itself_is_refused(fb):
    """Its class is stock, and has been waited on before: then an awaitable that need not wait is served."""
    ended = []

    async def ready():
        return 7

    async def pending():
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    async def main():
        loop = asyncio.get_running_loop()
        assert fb.await_(value_later(1)) == 1
        loop._run_once = types.MethodType(lambda loop: type(loop)._run_once(loop), loop)
        try:
            for _ in range(2):
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="fiberback.ensure_portal"):
                    fb.await_(pending())
                assert fb.await_(ready()) == 7
        finally:
            del loop._run_once
        return fb.await_(value_later(1))

    assert asyncio.run(main()) == 1
    assert ended == [True, True]


def test_child_processes(fb, run):
    async def main():
        async def echo(text):
            process = fb.await_(
                asyncio.create_subprocess_exec("echo", text, stdout=asyncio.subprocess.PIPE)
            )
            out, _ = fb.await_(process.communicate())
            return out.decode().strip(), process.returncode

        return await asyncio.gather(echo("a"), echo("b"))

    assert run(main()) == [("a", 0), ("b", 0)]


def test_threads_each_with_a_loop(fb):
    results = []

    def thread(seed):
        async def main():
            async def one(n):
                total = 0
                for k in range(20):
                    total += fb.await_(value_later(k, 0.0001 * ((seed + n) % 3)))
                return total

            return await asyncio.gather(*(one(n) for n in range(20)))

        results.append(asyncio.run(main()))

    threads = [threading.Thread(target=thread, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [[190] * 20] * 4


def test_nested_calls(fb, run):
    """await_ in code that await_ itself runs, several levels deep."""

    def sync(n):
        async def inner():
            await asyncio.sleep(0)
            return sync(n - 1) + 1

        return fb.await_(inner()) if n else 0

    async def main():
        return await asyncio.gather(
            *(asyncio.to_thread(int), value_later(sync(20)), value_later(1))
        )

    assert run(main())[1] == 20


def test_generators_and_async_generators(fb, run):
    async def source():
        for n in range(4):
            await asyncio.sleep(0.0005)
            yield n

    async def main():
        async def consume():
            return list(fb.async_iter(source()))

        assert await asyncio.gather(consume(), consume()) == [[0, 1, 2, 3]] * 2

    run(main())


def test_with_a_portal_nothing_is_parked(fb):
    async def main():
        loop = asyncio.get_running_loop()
        before = fb._fiberback.stats()["stacks_in_use"]

        def sync():
            fb.await_(asyncio.sleep(0.001))
            return fb._fiberback.current_portal() is not None

        assert await fb.with_portal_run_sync(sync)
        done = loop.create_future()

        # A callback of a loop whose tasks have portals still can wait.
        loop.call_soon(lambda: done.set_result(sync()))
        assert await done is False
        assert before is not None

    asyncio.run(main())


def test_bestowed_but_not_stepped(fb):
    async def main():
        fb.bestow_portal(asyncio.current_task())
        assert fb.await_(value_later(1, 0.001)) == 1
        assert not fb.has_portal()
        await asyncio.sleep(0)
        assert fb.has_portal()
        assert fb.await_(value_later(2, 0.001)) == 2

    asyncio.run(main())


def test_uvloop_says_what_to_type(fb):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        with pytest.raises(RuntimeError, match="fiberback.run"):
            fb.await_(asyncio.sleep(0))
        loop = asyncio.get_running_loop()
        told = loop.create_future()

        def callback():
            try:
                fb.await_(asyncio.sleep(0))
            except RuntimeError as error:
                told.set_result(str(error))

        loop.call_soon(callback)
        return await told

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert "with_portal_run_sync" in runner.run(main())


def test_trio_says_what_to_type(fb):
    trio = pytest.importorskip("trio")

    async def main():
        with pytest.raises(RuntimeError, match="with_portal_run"):
            fb.await_(trio.sleep(0))

    trio.run(main)


def test_deadlocks_of_parked_tasks_are_named(fb):
    async def main():
        done = await waiting_for_each_other(fb)
        assert all(isinstance(error, RuntimeError) for error in done)
        assert any("'a'" in str(error) and "'b'" in str(error) for error in done), done

        async def itself():
            fb.await_(asyncio.current_task())

        with pytest.raises(RuntimeError):
            await asyncio.create_task(itself())

    asyncio.run(main())


def test_no_await_refuses_parking(fb):
    async def main():
        with fb.no_await("region"):
            with pytest.raises(RuntimeError, match="region"):
                fb.await_(value_later(1))
        assert fb.await_(value_later(1)) == 1

        def callback():
            with fb.no_await("callback"):
                try:
                    fb.await_(asyncio.sleep(0))
                except RuntimeError as error:
                    told.set_result(str(error))

        told = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(callback)
        assert "callback" in fb.await_(told)

    asyncio.run(main())
