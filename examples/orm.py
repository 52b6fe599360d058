"""The same synchronous ORM code, unchanged, run three ways inside an asyncio program.

50 requests arrive at once. Each loads a customer, lazily loads its orders, waits for a slow query,
and stores what it found. The functions that do so are plain SQLAlchemy with a plain `Session`; they
are called

- directly, with a blocking driver: right, but the event loop stands still,
- in a thread pool, with a blocking driver: one thread for each request,
- directly, on fiberback, with an async driver: one thread, and the event loop goes on.

    python examples/orm.py                                  # an SQLite file of its own
    python examples/orm.py postgresql://user@host/database  # makes and drops two tables there

Needs `pip install fiberback[sqlalchemy] aiosqlite`, for PostgreSQL `asyncpg` and `psycopg`.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import fiberback
import fiberback.sqlalchemy
from sqlalchemy import Engine, ForeignKey, create_engine, event, func, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

REQUESTS = 50
CONNECTIONS = 10
PAUSE = 0.02  # seconds that the slow query takes

# ---- synchronous code, written without a thought of async -----------------------------------------

Session = sessionmaker()


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "fiberback_example_customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    spent: Mapped[int] = mapped_column(default=0)
    orders: Mapped[list[Order]] = relationship()

    def __repr__(self) -> str:
        return f"{self.name}, {len(self.orders)} orders"  # loads them, if need be


class Order(Base):
    __tablename__ = "fiberback_example_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    amount: Mapped[int]


def handle(number: int) -> str:
    with Session() as session:
        customer = session.get_one(Customer, number)
        text = repr(customer)
        session.execute(select(func.pg_sleep(PAUSE)))
        customer.spent = sum(order.amount for order in customer.orders)
        session.commit()
        return f"{text}: {customer.spent}"


# ---- the asynchronous program around it -------------------------------------------------------------


def blocking(number: int):
    async def request() -> str:
        return handle(number)

    return request()


def threads(number: int):
    return asyncio.get_running_loop().run_in_executor(None, handle, number)


on_fiberback = blocking  # the very same call

WAYS = {
    "blocking": (blocking, asyncio.run),
    "in threads": (threads, asyncio.run),
    "on fiberback": (on_fiberback, fiberback.run),
}


async def serve(way) -> tuple[list[str], float, float, int]:
    """The answers, the seconds that took, the longest pause of the loop, the threads in use."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(REQUESTS))
    await asyncio.gather(*(way(number) for number in range(1, CONNECTIONS + 1)))  # warms up
    pauses, most = [0.0], threading.active_count()

    async def tick() -> None:
        nonlocal most
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now
            most = max(most, threading.active_count())

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    begin = time.perf_counter()
    answers = await asyncio.gather(*(way(number) for number in range(1, REQUESTS + 1)))
    seconds = time.perf_counter() - begin
    await asyncio.sleep(0.002)
    ticker.cancel()
    return answers, seconds, max(pauses), most


def connect(url: str) -> Engine:
    engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection, record) -> None:
            connection.create_function("pg_sleep", 1, time.sleep)
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA busy_timeout = 20000")
            cursor.close()

    Session.configure(bind=engine)
    return engine


def measure(name: str, url: str) -> tuple[list[str], float, float, int]:
    way, run = WAYS[name]

    async def main() -> tuple[list[str], float, float, int]:
        engine = connect(url)
        try:
            return await serve(way)
        finally:
            engine.dispose()

    return run(main())


def main(url: str | None = None) -> dict[str, tuple[list[str], float, float, int]]:
    with contextlib.ExitStack() as cleanup:
        if url is None:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory())
            url = f"sqlite:///{pathlib.Path(folder, 'example.db')}"
        sqlite = make_url(url).get_backend_name() == "sqlite"
        plain, asynchronous = ("pysqlite", "aiosqlite") if sqlite else ("psycopg", "asyncpg")

        def with_driver(driver: str) -> str:
            changed = make_url(url).set(drivername=f"{make_url(url).get_backend_name()}+{driver}")
            return changed.render_as_string(hide_password=False)

        engine = connect(with_driver(plain))
        Base.metadata.create_all(engine)
        cleanup.callback(engine.dispose)
        cleanup.callback(Base.metadata.drop_all, engine)
        with Session() as session:
            for number in range(1, REQUESTS + 1):
                orders = [Order(amount=number * n) for n in range(number % 4 + 1)]
                session.add(Customer(id=number, name=f"customer {number}", orders=orders))
            session.commit()

        print(f"{REQUESTS} requests at once, {CONNECTIONS} connections to {engine.dialect.name}")
        print(
            f"\n{'':14}{'driver':12}{'wall time':>12}{'threads':>10}{'longest pause of the loop':>29}"
        )
        results = {}
        cleanup.enter_context(fiberback.sqlalchemy.install())
        for name in WAYS:
            driver = asynchronous if name == "on fiberback" else plain
            results[name] = measure(name, with_driver(driver))
            _, seconds, pause, used = results[name]
            print(f"{name:14}{driver:12}{seconds:10.2f} s{used:10}{1000 * pause:26.0f} ms")
        same = len({tuple(result[0]) for result in results.values()}) == 1
        print(f"\nthe same answers each time: {same}; the last: {results['blocking'][0][-1]!r}")
        if sqlite:
            print("(an SQLite driver is a thread for each connection: aiosqlite brings those 10)")
        return results


def test_main() -> None:
    results = main()
    answers = [result[0] for result in results.values()]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][6] == "customer 7, 4 orders: 42"
    stood_still = results["blocking"][2]
    assert stood_still > REQUESTS * PAUSE  # it waited for all of them in one go
    assert results["on fiberback"][2] < stood_still
    assert results["on fiberback"][1] < results["blocking"][1]


if __name__ == "__main__":
    main(*sys.argv[1:])
