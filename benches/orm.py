"""Queries per second of the same ORM work, four ways, on a private PostgreSQL.

`python benches/orm.py` starts a server of its own (as the tests do), and lets 20 tasks query it

- with the synchronous `Session` on fiberback and asyncpg, in tasks with a portal,
- with the same in tasks that nothing was prepared for, under plain `asyncio.run`,
- with `AsyncSession`, which is SQLAlchemy's own bridge on greenlet, and asyncpg,
- with the synchronous `Session` and psycopg in a pool of 20 threads,

in turn, round after round in one process, so that whatever else the machine does hits all alike.
Numbers are medians over the rounds, ratios the medians of each round's ratio. Then 50 tasks wait
for `pg_sleep(0.1)` at the same time in one thread.
`--rounds N`, `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import pathlib
import platform
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fiberback
import fiberback.sqlalchemy
import sqlalchemy
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "python"))

import postgres

TASKS = 20
QUERIES = 5  # in each session
ROWS = 1000


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]


def work(engine, sessions, start):
    for number in range(start, start + sessions):
        with Session(engine) as session:
            for n in range(QUERIES):
                query = select(Item).where(Item.id == (number * QUERIES + n) % ROWS)
                assert session.scalars(query).one().price >= 0


async def async_work(engine, sessions, start):
    for number in range(start, start + sessions):
        async with AsyncSession(engine) as session:
            for n in range(QUERIES):
                query = select(Item).where(Item.id == (number * QUERIES + n) % ROWS)
                assert (await session.scalars(query)).one().price >= 0


async def on_fiberback(engine, sessions):
    tasks = (fiberback.with_portal_run_sync(work, engine, sessions, 7 * n) for n in range(TASKS))
    await asyncio.gather(*tasks)


async def unprepared(engine, sessions):
    async def task(start):
        work(engine, sessions, start)

    await asyncio.gather(*(task(7 * n) for n in range(TASKS)))


async def on_greenlet(engine, sessions):
    await asyncio.gather(*(async_work(engine, sessions, 7 * n) for n in range(TASKS)))


async def in_threads(engine, sessions):
    loop = asyncio.get_running_loop()
    jobs = (loop.run_in_executor(POOL, work, engine, sessions, 7 * n) for n in range(TASKS))
    await asyncio.gather(*jobs)


POOL = ThreadPoolExecutor(TASKS)


async def measure(cluster, rounds, sessions):
    """Queries per second, and processor microseconds per query: a list of each contender's rounds."""
    options = {"pool_size": TASKS, "max_overflow": 0}
    engines = {
        "fiberback": create_engine(cluster.url("asyncpg"), **options),
        "unprepared": create_engine(cluster.url("asyncpg"), **options),
        "greenlet": create_async_engine(cluster.url("asyncpg"), **options),
        "threads": create_engine(cluster.url("psycopg"), **options),
    }
    contenders = {
        "fiberback": on_fiberback,
        "unprepared": unprepared,
        "greenlet": on_greenlet,
        "threads": in_threads,
    }
    names = list(contenders)
    rates = {name: [] for name in names}
    costs = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % 4 :] + names[: number % 4]:
            # What is not the contender's own is out of its way.
            if name in ("fiberback", "unprepared"):
                fiberback.sqlalchemy.install()
            else:
                fiberback.sqlalchemy.uninstall()
            gc.collect()
            begin, spent = time.perf_counter(), time.process_time()
            await contenders[name](engines[name], sessions)
            seconds, spent = time.perf_counter() - begin, time.process_time() - spent
            if number:  # the first round connects and warms up
                rates[name].append(TASKS * sessions * QUERIES / seconds)
                costs[name].append(spent / (TASKS * sessions * QUERIES) * 1e6)
    await engines["greenlet"].dispose()
    engines["threads"].dispose()
    fiberback.sqlalchemy.install()
    for name in ("fiberback", "unprepared"):
        await fiberback.with_portal_run_sync(engines[name].dispose)
    return rates, costs


async def sleeps(cluster, count=50, pause=0.1):
    """Seconds that `count` tasks take for one `pg_sleep` each, and the threads in use."""
    engine = create_engine(cluster.url("asyncpg"), pool_size=count)

    def sleep(seconds):
        with Session(engine) as session:
            session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

    async def all_at_once(seconds):
        begin = time.perf_counter()
        await asyncio.gather(
            *(fiberback.with_portal_run_sync(sleep, seconds) for _ in range(count))
        )
        return time.perf_counter() - begin

    await all_at_once(0)  # connects
    seconds = await all_at_once(pause)
    await fiberback.with_portal_run_sync(engine.dispose)
    return seconds


def verdict(label, value, met, target):
    print(f"    {label}: {value}, target {target}: {'PASS' if met else 'MISS'}")
    return met


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few rounds, short ones")
    options = parser.parse_args()
    rounds, sessions = (3, 5) if options.quick else (options.rounds, 20)
    import asyncpg
    import greenlet
    import psycopg

    print(f"CPython {platform.python_version()}, {platform.machine()}", end="")
    print(f", fiberback {fiberback.__version__}, SQLAlchemy {sqlalchemy.__version__}", end="")
    print(f", asyncpg {asyncpg.__version__}, psycopg {psycopg.__version__}", end="")
    print(f" ({psycopg.pq.__impl__}), greenlet {greenlet.__version__}; medians of {rounds} rounds")
    cluster = postgres.Cluster()
    try:
        engine = create_engine(cluster.url("psycopg"))
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            rows = [{"id": n, "name": f"item {n}", "price": n} for n in range(ROWS)]
            connection.execute(Item.__table__.insert(), rows)
        engine.dispose()
        rates, costs = asyncio.run(measure(cluster, rounds, sessions))
        threads = threading.active_count()
        POOL.shutdown()
        idle = threading.active_count()
        seconds = asyncio.run(sleeps(cluster))
    finally:
        cluster.stop()
    print(f"\nORM queries per second, {TASKS} tasks at once:")
    names = {
        "fiberback": "Session on fiberback, asyncpg",
        "unprepared": "the same, without a portal",
        "greenlet": "AsyncSession on greenlet, asyncpg",
        "threads": f"Session in {TASKS} threads, psycopg",
    }
    for name, label in names.items():
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"    {label:36} {rate:8,.0f}   ({cost:,.0f} µs of this process's time for each)")
    met = []
    for own, peer, least in (
        ("fiberback", "greenlet", 1.1),
        ("fiberback", "threads", 1.5),
        ("unprepared", "greenlet", 1.1),
    ):
        pairs = zip(rates[own], rates[peer], strict=True)
        ratio = statistics.median([ours / theirs for ours, theirs in pairs])
        label = f"{own}, times {peer}"
        met.append(verdict(label, f"{ratio:.2f}", ratio >= least, f"at least {least}"))
    assert threads > idle == 1
    print("\n50 tasks in pg_sleep(0.1) at once, one thread:")
    met.append(verdict("seconds", f"{seconds:.3f}", seconds < 0.7, "well under 1"))
    print("\nall targets met" if all(met) else f"\n{met.count(False)} targets missed")


if __name__ == "__main__":
    main()
