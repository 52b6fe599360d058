"""Synchronous SQLAlchemy on async drivers, and AsyncSession without MissingGreenlet.

On aiosqlite everywhere; on asyncpg and psycopg where PostgreSQL is. `test_sqlalchemy_suite.py`
runs this file with SQLAlchemy 2.0, too.
"""

# ruff: noqa: E402

from __future__ import annotations

import asyncio
import gc
import logging
import pathlib
import random
import subprocess
import sys
import textwrap
import weakref

import pytest
from support import import_or_skip, make_backend, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

sqlalchemy = import_or_skip("sqlalchemy")
import_or_skip("aiosqlite")

import fiberback.sqlalchemy
from sqlalchemy import ForeignKey, create_engine, event, func, select, text
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list[Order]] = relationship(back_populates="user", order_by="Order.id")

    def __repr__(self):
        return f"<{self.name}: {[order.total for order in self.orders]}>"


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship(back_populates="orders")


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


USERS = 4


def fill(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for n in range(USERS):
            session.add(User(name=f"user {n}", orders=[Order(total=n), Order(total=10 * n)]))
        session.commit()


@pytest.fixture(params=["aiosqlite", "asyncpg", "psycopg_async"])
def url(request, tmp_path):
    if request.param == "aiosqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/test.db"
    database = request.getfixturevalue("database")
    import_or_skip(request.param.partition("_")[0])
    return database.url(request.param)


@pytest.fixture(autouse=True)
def installed():
    with fiberback.sqlalchemy.install():
        yield


def run(aio, sync_fn, *args):
    return aio.run(fiberback.with_portal_run_sync, sync_fn, *args)


class Ticker:
    """Counts the event loop's rounds while something else is going on."""

    async def __aenter__(self):
        self.ticks = 0
        self._task = asyncio.create_task(self._tick())
        return self

    async def _tick(self):
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1

    async def __aexit__(self, *exc):
        self._task.cancel()


# ---- the synchronous API --------------------------------------------------------------------------


def test_everyday_orm_code(aio, url):
    def main():
        engine = create_engine(url)
        assert type(engine.pool).__name__ == "AsyncAdaptedQueuePool"
        fill(engine)
        with Session(engine) as session:
            users = session.scalars(select(User).order_by(User.id)).all()
            assert repr(users[2]) == "<user 2: [2, 20]>"  # loads in __repr__
            assert f"{users[3]}" == "<user 3: [3, 30]>"
            assert users[0].orders[0].user is users[0]
            users[1].orders.append(Order(total=5))
            session.commit()
            assert users[1].name == "user 1"  # expired, loaded again
            assert [order.total for order in users[1].orders] == [1, 10, 5]
            eager = select(User).options(selectinload(User.orders)).order_by(User.id)
            assert [len(user.orders) for user in session.scalars(eager)] == [2, 3, 2, 2]
            joined = select(User).options(joinedload(User.orders)).order_by(User.id)
            assert [len(user.orders) for user in session.scalars(joined).unique()] == [2, 3, 2, 2]
            session.delete(users[1].orders[0])
            session.flush()
            session.rollback()
            assert session.scalar(select(func.count()).select_from(Order)) == 9
            assert session.get(User, 99) is None
            if hasattr(session, "query"):
                assert session.query(User).filter_by(name="user 2").one() is users[2]
        with pytest.raises(sa_exc.IntegrityError), Session(engine) as session:
            session.add(User(id=1, name="again"))
            session.commit()
        with engine.begin() as connection:
            connection.execute(Note.__table__.insert(), [{"text": str(n)} for n in range(300)])
        assert sqlalchemy.inspect(engine).has_table("notes")
        engine.dispose()

    run(aio, main)


def test_savepoints(aio, url):
    def main():
        engine = create_engine(url)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Note(text="kept"))
            with pytest.raises(ZeroDivisionError), session.begin_nested():
                session.add(Note(text="taken back"))
                session.flush()
                1 / 0  # noqa: B018
            with session.begin_nested():
                session.add(Note(text="kept, too"))
            session.commit()
        with Session(engine) as session:
            assert session.scalars(select(Note.text).order_by(Note.id)).all() == [
                "kept",
                "kept, too",
            ]
        engine.dispose()

    run(aio, main)


def test_streaming(aio, url):
    """Rows arrive in portions from a server-side cursor, and other tasks run between them."""

    def stream(engine):
        seen = 0
        with Session(engine) as session:
            notes = select(Note).order_by(Note.id).execution_options(yield_per=50)
            for part in session.scalars(notes).partitions():
                assert len(part) == 50
                seen += len(part)
        with engine.connect() as connection:
            rows = connection.execution_options(stream_results=True, max_row_buffer=20)
            for row in rows.execute(select(Note.id)):
                seen += 1
                if row.id == 100:
                    break  # the rest is not wanted
        return seen

    async def main():
        engine = create_engine(url)

        def prepare():
            Base.metadata.create_all(engine)
            with engine.begin() as connection:
                connection.execute(Note.__table__.insert(), [{"text": str(n)} for n in range(500)])

        await fiberback.with_portal_run_sync(prepare)
        async with Ticker() as ticker, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fiberback.with_portal_run_sync(stream, engine)) for _ in range(4)
            ]
        assert [task.result() for task in tasks] == [600] * 4
        assert ticker.ticks
        await fiberback.with_portal_run_sync(engine.dispose)

    aio.run(main)


def test_events(aio, url):
    """Hooks are sync code like any other: they may use the database."""
    seen = []

    def main():
        engine = create_engine(url)

        @event.listens_for(engine, "connect")
        def connected(connection, record):
            cursor = connection.cursor()
            cursor.execute("SELECT 41 + 1")
            seen.append(cursor.fetchone()[0])
            cursor.close()

        Base.metadata.create_all(engine)
        with Session(engine) as session:

            @event.listens_for(session, "before_flush")
            def before_flush(session, context, instances):
                with session.no_autoflush:
                    seen.append(session.scalar(select(func.count()).select_from(User)))

            @event.listens_for(session, "after_commit")
            def after_commit(session):
                with Session(engine) as other:
                    seen.append(other.scalar(select(func.count()).select_from(User)))

            session.add(User(name="new"))
            session.commit()
        engine.dispose()

    run(aio, main)
    assert seen == [42, 0, 42, 1]


def test_tasks_overlap(aio, url):
    """All are in the middle of their transactions at the same time."""
    inside = most = 0

    def request(engine, n):
        nonlocal inside, most
        with Session(engine) as session:
            user = session.get(User, n % USERS + 1)
            inside += 1
            most = max(most, inside)
            fiberback.await_(barrier.wait())
            total = sum(order.total for order in user.orders)
            inside -= 1
        return total

    async def main():
        nonlocal barrier
        barrier = asyncio.Barrier(12)
        engine = create_engine(url, pool_size=12)
        await fiberback.with_portal_run_sync(fill, engine)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fiberback.with_portal_run_sync(request, engine, n))
                for n in range(12)
            ]
        assert [task.result() for task in tasks] == [11 * (n % USERS) for n in range(12)]
        assert most == 12 and engine.pool.checkedout() == 0
        await fiberback.with_portal_run_sync(engine.dispose)

    barrier = None
    aio.run(main)


def test_an_exhausted_pool_waits_without_blocking(aio, url):
    def request(engine):
        with engine.connect() as connection:
            fiberback.await_(asyncio.sleep(0.005))
            return connection.scalar(text("SELECT 7"))

    def times_out(engine):
        with engine.connect(), pytest.raises(sa_exc.TimeoutError, match="limit of size 1"):
            engine.connect()

    async def main():
        engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=20)
        async with Ticker() as ticker, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fiberback.with_portal_run_sync(request, engine)) for _ in range(8)
            ]
        assert [task.result() for task in tasks] == [7] * 8
        assert ticker.ticks >= 8
        await fiberback.with_portal_run_sync(engine.dispose)
        engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.5)
        async with Ticker() as ticker:
            await fiberback.with_portal_run_sync(times_out, engine)
        assert ticker.ticks >= 5
        await fiberback.with_portal_run_sync(engine.dispose)

    aio.run(main)


@pytest.mark.parametrize("pool", ["NullPool", "StaticPool", "AsyncAdaptedQueuePool"])
def test_first_connections_at_the_same_time(aio, url, pool):
    """SQLAlchemy guards the very first connect by a lock, which must not be a thread's."""

    def request(engine, n):
        with engine.connect() as connection:
            return connection.scalar(select(sqlalchemy.literal(n)))

    async def main():
        engine = create_engine(url, poolclass=getattr(sqlalchemy.pool, pool))
        count = 1 if pool == "StaticPool" else 8
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fiberback.with_portal_run_sync(request, engine, n))
                for n in range(count)
            ]
        assert [task.result() for task in tasks] == list(range(count))
        await fiberback.with_portal_run_sync(engine.dispose)

    aio.run(main)


def test_a_pool_that_would_block_the_loop_is_refused(url):
    with pytest.raises(sa_exc.ArgumentError, match="QueuePool cannot be used with asyncio"):
        create_engine(url, poolclass=sqlalchemy.pool.QueuePool)


def test_a_connection_that_is_dropped_is_closed_at_once(aio, url):
    """As the garbage collector closes it, nothing waits: it may be at work anywhere."""
    waits = []

    def main():
        engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=10)
        connection = engine.raw_connection()
        fairy = weakref.ref(connection)
        loop = asyncio.get_running_loop()
        loop.call_soon(waits.append, "the loop went on")
        with pytest.warns(sa_exc.SAWarning, match="garbage collector") as caught:
            del connection
            gc.collect()
        assert fairy() is None and caught and not waits
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()

    run(aio, main)


@pytest.fixture(params=["asyncio", "eager"] if sys.version_info >= (3, 12) else ["asyncio"])
def stock(request):
    """The loops on which `await_` needs no portal."""
    return make_backend(request.param)


def test_without_a_portal(stock, url):
    """Sync code that is just called, in tasks of a loop that knows nothing of fiberback."""

    def request(engine, n):
        with Session(engine) as session:
            user = session.get(User, n % USERS + 1)
            session.execute(text("SELECT 1"))
            return repr(user)

    async def task(engine, n):
        return request(engine, n)

    async def main():
        engine = create_engine(url, pool_size=4)
        fill(engine)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(task(engine, n)) for n in range(12)]
        assert [task.result() for task in tasks] == [
            f"<user {n % USERS}: [{n % USERS}, {10 * (n % USERS)}]>" for n in range(12)
        ]
        engine.dispose()
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session:
            user = (await session.scalars(select(User).order_by(User.id))).first()
            assert repr(user) == "<user 0: [0, 0]>"
        await engine.dispose()

    stock.run(main)


def test_in_worker_threads(stock, url):
    """They wait for the loop that they work for, and share its connections."""

    def request(engine, n):
        with Session(engine) as session:
            return repr(session.get(User, n % USERS + 1))

    async def main():
        engine = create_engine(url, pool_size=3)
        await fiberback.with_portal_run_sync(fill, engine)
        answers = await asyncio.gather(
            *(asyncio.to_thread(request, engine, n) for n in range(6)),
            *(fiberback.with_portal_run_sync(request, engine, n) for n in range(6)),
        )
        assert answers[:6] == answers[6:]
        with pytest.raises(KeyError):
            await asyncio.to_thread(invalidated, engine)
        assert engine.pool.checkedout() == 0
        await fiberback.with_portal_run_sync(engine.dispose)

    def invalidated(engine):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            connection.invalidate()
            raise KeyError

    stock.run(main)


def test_in_a_plain_script(url):
    """No loop runs: the thread's own does."""
    engine = create_engine(url)
    fill(engine)
    with Session(engine) as session:
        assert repr(session.get(User, 3)) == "<user 2: [2, 20]>"
        session.connection().invalidate()
    with Session(engine) as session:
        assert repr(session.get(User, 4)) == "<user 3: [3, 30]>"
    engine.dispose()
    fiberback.close_thread_runner()


# ---- AsyncSession -----------------------------------------------------------------------------------


def test_attributes_of_an_async_sessions_objects_load_where_they_are_touched(aio, url):
    async def main():
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(User(name="user 0", orders=[Order(total=1), Order(total=2)]))
            await session.commit()
            user = (await session.scalars(select(User))).one()
            assert repr(user) == "<user 0: [1, 2]>"
            await session.commit()
            assert user.name == "user 0"  # it was expired

            def describe(session):
                return repr(session.get(User, 1))

            assert await session.run_sync(describe) == "<user 0: [1, 2]>"
            session.expire_all()
            async for row in await session.stream_scalars(select(User)):
                assert len(row.orders) == 2
        await engine.dispose()

    aio.run(fiberback.with_portal_run, main)


def test_async_sessions_need_no_portal(aio, url):
    """What SQLAlchemy runs by itself has one of its own, also the task that `__aexit__` starts."""

    async def request(engine, n):
        async with AsyncSession(engine) as session:
            user = await session.get(User, n % USERS + 1, options=[selectinload(User.orders)])
            return [order.total for order in user.orders]

    async def main():
        engine = create_async_engine(url, pool_size=3)
        await fiberback.with_portal_run_sync(fill, engine.sync_engine)
        answers = await asyncio.gather(*(request(engine, n) for n in range(12)))
        assert answers == [[n % USERS, 10 * (n % USERS)] for n in range(12)]
        assert not fiberback.has_portal()
        await engine.dispose()

    aio.run(main)


def test_context_variables_and_the_current_task_are_those_of_the_caller(aio):
    import contextvars

    from sqlalchemy.util import await_only, greenlet_spawn

    variable = contextvars.ContextVar("variable", default=0)

    async def main():
        async def ready():
            return variable.get()

        def sync(task):
            assert asyncio.current_task() is task
            assert fiberback.has_portal()
            variable.set(variable.get() + 1)
            assert await_only(asyncio.sleep(0, "slept")) == "slept"
            assert asyncio.current_task() is task
            return await_only(ready())

        assert [await greenlet_spawn(sync, asyncio.current_task()) for _ in range(3)] == [1, 2, 3]
        assert variable.get() == 3

        def fails():
            try:
                await_only(asyncio.sleep(0))
                raise KeyError("inner")
            finally:
                await_only(asyncio.sleep(0))

        with pytest.raises(KeyError, match="inner"):
            await greenlet_spawn(fails)

        def only_ready():
            return await_only(ready())

        assert await greenlet_spawn(only_ready, _require_await=True) == 3
        with pytest.raises(sa_exc.AwaitRequired):
            await greenlet_spawn(len, "", _require_await=True)

    aio.run(main)


def test_a_spawned_call_is_cancelled_where_it_waits(aio):
    from sqlalchemy.util import await_only, greenlet_spawn

    log = []

    async def main():
        def sync():
            try:
                await_only(asyncio.sleep(60))
            except asyncio.CancelledError:
                log.append("cancelled")
                await_only(asyncio.sleep(0))
                log.append("cleaned up")
                raise

        task = asyncio.create_task(greenlet_spawn(sync))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        def times_out():
            try:
                await_only(asyncio.wait_for(asyncio.sleep(60), 0.01))
            except TimeoutError:
                pass
            raise KeyError("later")

        with pytest.raises(KeyError) as raised:
            await greenlet_spawn(times_out)
        assert raised.value.__context__ is None

        spawned = greenlet_spawn(await_only, asyncio.sleep(60))
        spawned.send(None)
        spawned.close()  # GeneratorExit

    aio.run(main)
    assert log == ["cancelled", "cleaned up"]


# ---- cancellation ---------------------------------------------------------------------------------


def test_five_hundred_cancelled_tasks_leave_a_sane_pool(aio, url, request):
    """Cancelled at random points. Nothing half done is committed, and the pool serves afterwards."""
    cancel_five_hundred(aio, url, request, fiberback.with_portal_run_sync)


def test_five_hundred_cancelled_tasks_without_portals(url, request):
    # Not with eager tasks: their first step is on the stack of who creates them, and so is the wait.
    async def just_call(sync_fn, *args):
        return sync_fn(*args)

    cancel_five_hundred(make_backend("asyncio"), url, request, just_call)


def cancel_five_hundred(aio, url, request, start):
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    request.addfinalizer(lambda: logging.getLogger("sqlalchemy.pool").setLevel(logging.NOTSET))
    sqlite = "sqlite" in url
    dice = random.Random(f"{aio.name} {url.partition(':')[0]}")
    cancelled = committed = locked = 0
    pairs = []

    def work(engine, n):
        nonlocal committed
        # Transaction n inserts two rows. No other one may ever see or keep a single one.
        with Session(engine, autoflush=False) as session:
            assert session.scalar(select(func.count()).where(Note.text == f"{n}")) == 0
            session.add(Note(text=f"{n}"))
            session.flush()
            if sqlite:
                fiberback.await_(asyncio.sleep(0.001))
            else:
                session.execute(text("SELECT pg_sleep(0.001)"))
            with session.begin_nested():
                session.add(Note(text=f"{n}"))
            assert session.scalar(select(func.count()).where(Note.text == f"{n}")) == 2
            session.commit()
            committed += 1

    def check(engine):
        with Session(engine) as session:
            per_pair = select(func.count()).select_from(Note).group_by(Note.text)
            return session.scalars(per_pair).all()

    async def main():
        nonlocal cancelled, locked
        # SQLite's worker threads cannot be interrupted: those that wait for its lock give up soon.
        settings = {"connect_args": {"timeout": 0.05}} if sqlite else {}
        engine = create_engine(url, pool_size=3, max_overflow=2, **settings)
        await fiberback.with_portal_run_sync(Base.metadata.create_all, engine)
        number = 0
        while cancelled < 500:
            tasks = []
            for _ in range(10):
                number += 1
                tasks.append(asyncio.create_task(start(work, engine, number)))
                delay = dice.choice((0, 0.001, 0.005, 0.02, 0.05)) * dice.random()
                asyncio.get_running_loop().call_later(delay, tasks[-1].cancel)
            for task in tasks:
                try:
                    await task
                except asyncio.CancelledError:
                    cancelled += 1
                except sa_exc.OperationalError as error:
                    if not sqlite or "locked" not in str(error):
                        raise
                    locked += 1
            del tasks, task
        assert engine.pool.checkedout() == 0
        assert engine.pool.overflow() <= 0
        # And now everything that was asked for.
        async with asyncio.TaskGroup() as group:
            served = [group.create_task(start(check, engine)) for _ in range(20)]
        pairs.extend(served[0].result())
        assert all(task.result() == served[0].result() for task in served)
        assert engine.pool.checkedout() == 0
        await fiberback.with_portal_run_sync(engine.dispose)

    aio.run(main)
    assert set(pairs) <= {2}
    # A task that is cancelled while it waits for COMMIT cannot know whether that took place.
    assert len(pairs) >= committed
    if not sqlite:
        database = request.getfixturevalue("database")
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database.name}'"
        for _ in range(200):
            gc.collect()  # a psycopg connection that was cancelled in `connect` ends as garbage
            if database.cluster.sql(query) == ["0"]:
                break
        else:
            pytest.fail("connections are left open")


# ---- install and uninstall ------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path):
    return create_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")


def connects(engine):
    def connect():
        with engine.connect() as connection:
            return connection.scalar(text("SELECT 1")) == 1

    async def main():
        try:
            return await fiberback.with_portal_run_sync(connect)
        finally:
            await fiberback.with_portal_run_sync(engine.dispose)

    try:
        return asyncio.run(main())
    except sa_exc.MissingGreenlet:
        return False


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_install_and_uninstall(engine):
    install, uninstall = fiberback.sqlalchemy.install, fiberback.sqlalchemy.uninstall
    import_or_skip("greenlet")
    assert connects(engine)  # by the fixture
    uninstall()  # blocks stand for themselves
    assert connects(engine)
    fiberback.sqlalchemy._state.blocks -= 1  # take the fixture's block away for this test
    fiberback.sqlalchemy._apply()
    try:
        assert not connects(engine)
        install()
        install()
        assert connects(engine)
        with install():
            assert connects(engine)
        assert connects(engine)  # it was installed before
        uninstall()
        assert not connects(engine)
        uninstall()
        with install(), install():
            assert connects(engine)
            uninstall()
            assert connects(engine)
        assert not connects(engine)
        with pytest.raises(KeyError), install():
            raise KeyError
        assert not connects(engine)
    finally:
        fiberback.sqlalchemy._state.blocks += 1
        fiberback.sqlalchemy._apply()
    assert connects(engine)


ORDERS = {
    "first": "",
    "after sqlalchemy": "import sqlalchemy.orm",
    "after its asyncio": "import sqlalchemy.dialects.sqlite.aiosqlite",
    "after all": "import sqlalchemy.ext.asyncio, sqlalchemy.connectors.asyncio",
}

WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None  # as if it were not installed
try:
    {before}
except ImportError:  # SQLAlchemy 2.0's asyncio needs it
    pass
import asyncio, fiberback, fiberback.sqlalchemy as fs
fs.install()
import sqlalchemy
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

def sync():
    engine = create_engine("sqlite+aiosqlite://")
    with Session(engine) as session:
        assert session.scalar(text("SELECT 1")) == 1
    engine.dispose()

async def main():
    await fiberback.with_portal_run_sync(sync)
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        assert (await session.execute(text("SELECT 2"))).scalar() == 2
    await engine.dispose()

asyncio.run(main())
assert sys.modules["greenlet"] is None
fs.uninstall()
try:
    asyncio.run(main())
except (ImportError, ValueError) as error:
    assert "greenlet" in str(error), error
else:
    raise AssertionError("still at work")
fs.install()
asyncio.run(main())
print("done")
"""


@pytest.mark.parametrize("before", ORDERS.values(), ids=ORDERS)
def test_the_greenlet_package_is_not_needed(before):
    script = textwrap.dedent(WITHOUT_GREENLET).format(before=before or "pass")
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", script],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_without_sqlalchemy_it_says_what_to_install():
    script = """
import sys
sys.modules["sqlalchemy"] = None
import fiberback.sqlalchemy
fiberback.sqlalchemy.uninstall()
try:
    fiberback.sqlalchemy.install()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install fiberback[sqlalchemy]" in done.stdout, done.stderr


# ---- the example ------------------------------------------------------------------------------------


def test_the_example_on_postgresql(database):
    for name in ("asyncpg", "psycopg"):
        import_or_skip(name)
    example = pathlib.Path(__file__).parents[3] / "examples" / "orm.py"
    done = subprocess.run(
        [sys.executable, str(example), database.dsn], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "10 connections to postgresql" in done.stdout
    assert "the same answers each time: True" in done.stdout
    assert database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == ["0"]
