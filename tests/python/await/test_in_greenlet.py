"""Other stack switchers in the process: real greenlets and SQLAlchemy's asyncio layer."""

from __future__ import annotations

import asyncio
import functools
import random

import pytest
from support import UNDER_TEST, import_or_skip, only_fiberback

greenlet = import_or_skip("greenlet")


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


def test_greenlets_inside_a_portal(backend, fb):
    """Greenlets that switch among themselves between the portal's suspensions."""

    def sync():
        log = []

        def worker(first):
            value = first
            while True:
                log.append(value)
                value = main.switch(value * 2)

        main = greenlet.getcurrent()
        others = [greenlet.greenlet(worker) for _ in range(5)]
        results = []
        for i in range(10):
            fb.await_(backend.sleep(0))
            assert greenlet.getcurrent() is main
            results.append(others[i % 5].switch(i))
        return log, results

    log, results = in_portal(backend, fb, sync)
    assert log == list(range(10))
    assert results == [i * 2 for i in range(10)]


def test_greenlets_of_many_portals_interleave(backend, fb):
    def sync(n):
        def accumulate(value):
            total = 0
            while True:
                total += value
                value = parent.switch(total)

        parent = greenlet.getcurrent()
        child = greenlet.greenlet(accumulate)
        total = 0
        for i in range(20):
            fb.await_(backend.sleep(0))
            total = child.switch(i * n)
        return total

    async def main():
        results = {}

        async def one(n):
            results[n] = await fb.with_portal_run_sync(sync, n)

        async with backend.group() as group:
            for n in range(50):
                group.spawn(one, n)
        assert results == {n: 190 * n for n in range(50)}

    backend.run(main)


def test_portal_inside_a_greenlet(fb):
    """The whole event loop runs in a greenlet that is not the thread's first."""

    def sync():
        for _ in range(5):
            fb.await_(asyncio.sleep(0))
        return "inner"

    def run_loop():
        return asyncio.run(fb.with_portal_run_sync(sync))

    assert greenlet.greenlet(run_loop).switch() == "inner"


def test_suspended_portal_while_the_host_uses_greenlets(backend, fb):
    def sync():
        for _ in range(10):
            fb.await_(backend.sleep(0))

    async def host():
        main = greenlet.getcurrent()
        for i in range(10):
            child = greenlet.greenlet(lambda v: main.switch(v + 1))
            assert child.switch(i) == i + 1
            await backend.sleep(0)

    async def main():
        async with backend.group() as group:
            for _ in range(10):
                group.spawn(fb.with_portal_run_sync, sync)
                group.spawn(host)

    backend.run(main)


def test_await_in_a_greenlet_that_the_portal_has_begun(backend, fb):
    async def ready():
        return "ready"

    def sync():
        def inside():
            assert fb.await_(ready()) == "ready"
            fb.await_(backend.sleep(0.01))
            return "waited"

        answer = greenlet.greenlet(inside).switch()
        fb.await_(backend.sleep(0))
        return answer

    assert in_portal(backend, fb, sync) == "waited"


def test_await_in_foreign_greenlets_as_greenback_does(backend, fb):
    async def steps(outer):
        for i in range(5):
            await backend.sleep(0)
            assert outer.switch(i) == f"resumed {i}"
        return "finished"

    def sync():
        inner = greenlet.greenlet(fb.await_)
        got = inner.switch(steps(greenlet.getcurrent()))
        for i in range(5):
            assert got == i
            got = inner.switch(f"resumed {i}")
        return got

    assert in_portal(backend, fb, sync) == "finished"


def test_greenlet_spawn_inside_a_portal(backend, fb):
    import_or_skip("sqlalchemy")
    from sqlalchemy.util import await_only, greenlet_spawn

    if backend.library != "asyncio":
        pytest.skip("SQLAlchemy's greenlet_spawn is for asyncio")

    def orm_like(n):
        total = 0
        for i in range(5):
            total += await_only(value(i * n))
        return total

    async def value(v):
        await asyncio.sleep(0)
        return v

    def sync(n):
        result = fb.await_(greenlet_spawn(orm_like, n))
        fb.await_(asyncio.sleep(0))
        return result + fb.await_(greenlet_spawn(orm_like, n))

    async def main():
        coros = [fb.with_portal_run_sync(sync, n) for n in range(20)]
        assert await asyncio.gather(*coros) == [20 * n for n in range(20)]

    backend.run(main)


@only_fiberback
def test_await_inside_greenlet_spawn(aio, fb):
    """SQLAlchemy's greenlet waits in its parent for awaitables: `await_` hands them over."""
    import_or_skip("sqlalchemy")
    from sqlalchemy.util import greenlet_spawn

    def orm_like():
        fb.await_(asyncio.sleep(0))
        return fb.await_(asyncio.sleep(0.001, "value"))

    async def main():
        await fb.ensure_portal()
        return await greenlet_spawn(orm_like)

    assert aio.run(main) == "value"


def test_portal_inside_greenlet_spawn(aio, fb):
    import_or_skip("sqlalchemy")
    from sqlalchemy.util import await_only, greenlet_spawn

    def sync():
        return fb.await_(asyncio.sleep(0.001, "from the portal"))

    def orm_like():
        return await_only(fb.with_portal_run_sync(sync))

    async def main():
        return await greenlet_spawn(orm_like)

    assert aio.run(main) == "from the portal"


def test_stress_mixing_both(aio, fb):
    """50 tasks × 20 rounds of portals, greenlet_spawn and plain greenlets, at random."""
    import_or_skip("sqlalchemy")
    from sqlalchemy.util import await_only, greenlet_spawn

    def deep(n, then):
        if n == 0:
            return then()
        local = [n] * 50
        result = deep(n - 1, then)
        assert local == [n] * 50
        return result

    def spawned(rng):
        for _ in range(rng.randrange(4)):
            deep(rng.randrange(20), lambda: await_only(asyncio.sleep(0)))
        return rng.random()

    def with_greenlet(rng):
        main = greenlet.getcurrent()

        def child(value):
            while True:
                value = deep(rng.randrange(10), lambda v=value: main.switch(v))

        other = greenlet.greenlet(child)
        for i in range(3):
            assert other.switch(i) == i
            deep(rng.randrange(20), lambda: fb.await_(asyncio.sleep(0)))

    def worker(seed):
        rng = random.Random(seed)
        for _ in range(20):
            choice = rng.randrange(4)
            if choice == 0:
                fb.await_(greenlet_spawn(spawned, rng))
            elif choice == 1:
                with_greenlet(rng)
            elif choice == 2:
                deep(rng.randrange(30), lambda: fb.await_(asyncio.sleep(0)))
            else:
                fb.await_(fb.with_portal_run_sync(with_greenlet, rng))
        return seed

    async def main():
        coros = [fb.with_portal_run_sync(worker, seed) for seed in range(50)]
        assert await asyncio.gather(*coros) == list(range(50))

    aio.run(main)


def test_cancelled_with_suspended_greenlets_inside(aio, fb):
    log = []

    def sync():
        def child(value):
            try:
                main.switch(value)
            finally:
                log.append("child ended")

        main = greenlet.getcurrent()
        other = greenlet.greenlet(child)
        other.switch(1)
        try:
            fb.await_(asyncio.sleep(60))
        finally:
            log.append("sync ended")
            # Not left to the garbage collector: on 3.15 greenlet 3.5.6 hides from it.
            del other

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    aio.run(main)
    import gc

    gc.collect()
    assert sorted(log) == ["child ended", "sync ended"]


def test_sqlalchemy_orm_in_a_portal(aio, fb, tmp_path):
    """A real AsyncSession below sync code; its driver needs the loop for every statement."""
    if UNDER_TEST != "fiberback" and aio.name == "eager":
        pytest.skip("SQLAlchemy resumes the wrong greenlet when an eager task starts in another")
    import_or_skip("aiosqlite")
    sqlalchemy = import_or_skip("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    def sync():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
        with fb.async_context(engine.begin()) as connection:
            fb.await_(connection.execute(sqlalchemy.text("create table t (x int)")))
            for i in range(5):
                fb.await_(connection.execute(sqlalchemy.text(f"insert into t values ({i})")))
        with fb.async_context(engine.connect()) as connection:
            rows = fb.await_(connection.execute(sqlalchemy.text("select sum(x) from t")))
            total = rows.scalar()
        fb.await_(engine.dispose())
        return total

    async def main():
        return await fb.with_portal_run_sync(sync)

    assert aio.run(main) == 10
