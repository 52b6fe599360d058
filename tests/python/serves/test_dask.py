"""Dask's tasks on a worker's event loop: one worker with two threads, in this process."""

# ruff: noqa: E402

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from support import import_or_skip, only_fiberback

dask = import_or_skip("dask")
distributed = import_or_skip("distributed")

import dask_cluster
import fiberback
import fiberback.dask
from saying import says

pytestmark = [only_fiberback, pytest.mark.sampled]


@pytest.fixture(scope="module")
def running():
    config = {"distributed.admin.tick.limit": "1h", "distributed.worker.memory.terminate": False}
    with dask.config.set(config), dask_cluster.running() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(running):
    return running[0]


@pytest.fixture(scope="module")
def client(running):
    return running[1]


def on_loop(client, fn, *args, **options):
    with dask.annotate(executor="fiberback"):
        return client.submit(fn, *args, pure=False, **options)


class Meeting:
    """In the worker's loop: all wait until so many have come."""

    def __init__(self, count):
        self.count, self.come, self.event, self.cancelled = count, 0, None, 0

    async def wait(self):
        if self.event is None:
            self.event = asyncio.Event()
        self.come += 1
        if self.come == self.count:
            self.event.set()
        await self.event.wait()

    def __reduce__(self):  # the worker is in this process
        return _meeting, (id(self),)


meetings = {}


def _meeting(key):
    return meetings[key]


def meeting(count):
    made = Meeting(count)
    meetings[id(made)] = made
    return made


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_wait_on_two_threads(client, count):
    where = meeting(count)

    def wait(n):
        fiberback.await_(where.wait())
        return n, threading.get_ident()

    with dask.annotate(executor="fiberback"):
        results = client.gather(client.map(wait, range(count)))
    assert [n for n, _ in results] == list(range(count))
    assert len({thread for _, thread in results}) == 1


def test_others_run_in_threads_meanwhile(client):
    where = meeting(2)

    def wait():
        fiberback.await_(where.wait())
        return threading.get_ident()

    waiting = on_loop(client, wait)
    threads = client.gather([client.submit(threading.get_ident, pure=False) for _ in range(5)])
    where_it_waits = on_loop(client, wait).result()
    assert waiting.result() == where_it_waits not in threads


def test_all_are_sent_at_once(client, cluster):
    """Those of Dask's own executor are kept back in the scheduler until a slot is free."""

    def states(**annotations):
        with dask.annotate(**annotations):
            futures = client.map(abs, range(40), pure=False)
        client.gather(futures)
        keys = [future.key for future in futures]
        return client.run_on_scheduler(
            lambda dask_scheduler: {finish for _, _, finish, *_ in dask_scheduler.story(*keys)}
        )

    assert "queued" in states()
    on_the_loop = states(executor="fiberback")
    assert "memory" in on_the_loop and "queued" not in on_the_loop
    # Restrictions of the user's stay.
    (worker,) = cluster.workers.values()
    assert "queued" not in states(executor="fiberback", workers=[worker.address])


def test_what_comes_while_there_is_no_worker():
    """Is run by the next one."""

    def until(is_so):
        while not client.run_on_scheduler(is_so):
            time.sleep(0.02)

    with dask_cluster.running() as (cluster, client):
        cluster.scale(0)
        until(lambda dask_scheduler: not dask_scheduler.workers)
        with dask.annotate(executor="fiberback"):
            futures = client.map(abs, range(40), pure=False)
        until(lambda dask_scheduler: len(dask_scheduler.tasks) == 40)
        cluster.scale(1)
        assert client.gather(futures) == list(range(40))


def test_a_scheduler_that_takes_no_plugin(caplog):
    class Scheduler:
        async def register_scheduler_plugin(self, **_):
            raise ModuleNotFoundError("No module named 'fiberback'")

    class Worker:
        executors = {}
        scheduler = Scheduler()

    plugin = fiberback.dask.Plugin()
    asyncio.run(plugin.setup(Worker))
    assert set(Worker.executors) == {"fiberback"}
    says(caplog.text, "dask-queued", "No module named 'fiberback'")
    plugin.teardown(Worker)
    assert not Worker.executors


def test_dependencies_errors_and_retries(client):
    def add(a, b):
        return fiberback.await_(asyncio.sleep(0, a + b))

    first = on_loop(client, add, 1, 2)
    assert on_loop(client, add, first, client.submit(int, "4")).result() == 7
    tries = meeting(0)

    def fails():
        fiberback.await_(asyncio.sleep(0))
        tries.come += 1
        if tries.come < 3:
            raise LookupError(tries.come)
        return tries.come

    with pytest.raises(LookupError, match="1"):
        on_loop(client, fails).result()
    assert on_loop(client, fails, retries=2).result() == 3


def test_cancelling_raises_where_it_waits(client):
    where = meeting(2)
    begun, ended = threading.Event(), threading.Event()
    events = meeting(0)
    events.begun, events.ended = begun, ended

    def wait():
        events.begun.set()
        try:
            fiberback.await_(where.wait())
        except asyncio.CancelledError:
            events.ended.set()
            raise

    future = on_loop(client, wait)
    assert begun.wait(60)
    future.cancel()
    assert ended.wait(60)
    with pytest.raises(distributed.client.FutureCancelledError):
        future.result()
    assert on_loop(client, int, "3").result() == 3


def test_a_client_in_a_task(client):
    def sums(n):
        mine = distributed.get_client()
        assert distributed.get_worker().executors["fiberback"]
        futures = mine.map(lambda each: each + 1, range(n), pure=False)
        return sum(mine.gather(futures)) + mine.submit(int, "5").result()

    assert on_loop(client, sums, 4).result() == 15


@pytest.mark.parametrize("portal", [False, True])
def test_the_sync_client_suspends_in_a_running_loop(client, portal):
    """The worker's task waits for what only this loop, going on, will set."""
    come = threading.Event()
    events = meeting(0)
    events.begun = come

    def wait():
        return fiberback.await_(asyncio.to_thread(events.begun.wait, 60))

    def sync_code():
        return client.gather([on_loop(client, wait), client.submit(int, "3")]), on_loop(
            client, int, "4"
        ).result(timeout=60)

    async def main():
        asyncio.get_running_loop().call_soon(come.set)
        if portal:
            return await fiberback.with_portal_run_sync(sync_code)
        return sync_code()

    with fiberback.dask.install():
        assert asyncio.run(main()) == ([True, 3], 4)
        with pytest.raises(TimeoutError):
            asyncio.run(_times_out(client))
    assert distributed.utils.sync.__module__ == "distributed.utils"


async def _times_out(client):
    where = meeting(2)
    on_loop(client, lambda: fiberback.await_(where.wait())).result(timeout=0.05)


def test_an_executor_that_was_shut_down(client):
    executor = fiberback.dask.Executor(None)
    executor.shutdown()
    with pytest.raises(RuntimeError) as raised:
        executor.submit(int)
    says(raised.value, "dask-shut-down")
    assert repr(executor) == "<fiberback.dask.Executor: 0 tasks, limit=1000>"
