"""fiberback.dbapi: sync database code on psycopg's and aiosqlite's async connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sqlite3
import threading
import time
import warnings

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]


@pytest.fixture
def psycopg():
    import_or_skip("psycopg")
    from fiberback.dbapi import psycopg

    return psycopg


@pytest.fixture
def psycopg_pool():
    import_or_skip("psycopg_pool")
    from fiberback.dbapi import psycopg_pool

    return psycopg_pool


@pytest.fixture
def aiosqlite():
    import_or_skip("aiosqlite")
    from fiberback.dbapi import aiosqlite

    return aiosqlite


@pytest.fixture
def run(fb, aio):
    """Runs a sync function in a task with a portal, on each of asyncio's loops."""

    def call(fn, *args):
        return aio.run(fb.with_portal_run_sync, fn, *args)

    return call


async def gather(fb, calls):
    """Sync functions, each in a task of its own."""
    return await asyncio.gather(*(fb.with_portal_run_sync(*call) for call in calls))


# PEP 249, for both


def test_psycopg_module_has_what_pep_249_asks_for(psycopg):
    import psycopg as driver

    assert psycopg.apilevel == "2.0" and psycopg.paramstyle == "pyformat"
    assert psycopg.threadsafety == 2
    for name in ["Warning", "Error", "InterfaceError", "DatabaseError", "DataError"]:
        assert getattr(psycopg, name) is getattr(driver, name)
        assert getattr(psycopg.Connection, name) is getattr(driver, name)
    for name in ["OperationalError", "IntegrityError", "InternalError", "ProgrammingError"]:
        assert getattr(psycopg, name) is getattr(driver, name)
    assert psycopg.Date(2026, 1, 2).isoformat() == "2026-01-02"
    assert psycopg.Binary(b"x") is not None
    # What is not ours is psycopg's.
    assert psycopg.sql is driver.sql and psycopg.rows is driver.rows
    assert psycopg.types is driver.types and psycopg.adapters is driver.adapters
    assert issubclass(psycopg.Connection, driver.Connection)


def test_aiosqlite_module_has_what_pep_249_asks_for(aiosqlite):
    assert aiosqlite.apilevel == "2.0" and aiosqlite.paramstyle == "qmark"
    names = ["Warning", "Error", "InterfaceError", "DatabaseError", "DataError"]
    names += ["OperationalError", "IntegrityError", "InternalError", "ProgrammingError"]
    names += ["NotSupportedError", "Date", "Time", "Timestamp", "DateFromTicks", "Binary", "Row"]
    names += ["PARSE_DECLTYPES", "register_adapter", "sqlite_version"]
    for name in names:
        assert getattr(aiosqlite, name) is getattr(sqlite3, name)
    for name in ["STRING", "BINARY", "NUMBER", "DATETIME", "ROWID", "connect", "threadsafety"]:
        assert hasattr(aiosqlite, name)


def dbapi_tour(module, connect, mark):
    """The same calls on any DB-API 2.0 module."""
    conn = connect()
    cur = conn.cursor()
    cur.execute("CREATE TABLE booze (name varchar(20), price int)")
    conn.commit()
    assert cur.description is None
    cur.execute(f"INSERT INTO booze VALUES ({mark}, {mark})", ("Cooper's", 3))
    assert cur.rowcount == 1
    cur.executemany(f"INSERT INTO booze VALUES ({mark}, {mark})", [("VB", 2), ("Boags", 5)])
    assert cur.rowcount == 2
    cur.execute("SELECT name, price FROM booze ORDER BY name")
    assert [column[0] for column in cur.description] == ["name", "price"]
    assert cur.fetchone() == ("Boags", 5)
    assert cur.fetchmany(1) == [("Cooper's", 3)]
    assert cur.fetchall() == [("VB", 2)]
    assert cur.fetchone() is None and cur.fetchall() == [] and cur.fetchmany(5) == []
    cur.arraysize = 2
    cur.execute("SELECT price FROM booze ORDER BY price")
    assert cur.fetchmany() == [(2,), (3,)]
    cur.execute("SELECT price FROM booze ORDER BY price")
    assert [price for (price,) in cur] == [2, 3, 5]
    cur.setinputsizes([25])
    cur.setoutputsize(1000, 0)
    conn.rollback()
    cur.execute("SELECT count(*) FROM booze")
    assert cur.fetchone() == (0,)
    conn.rollback()
    with pytest.raises(module.DatabaseError):
        cur.execute("SELECT nothing FROM nowhere")
    conn.rollback()
    with conn:
        conn.execute("INSERT INTO booze VALUES ('VB', 1)")
    if module.__name__.endswith("psycopg"):  # whose `with` closes; sqlite3's does not
        conn = connect()
    with pytest.raises(ZeroDivisionError), conn:
        conn.execute("INSERT INTO booze VALUES ('Boags', 1)")
        raise ZeroDivisionError
    if module.__name__.endswith("psycopg"):
        conn = connect()
    assert conn.execute("SELECT name FROM booze").fetchall() == [("VB",)]
    cur = conn.cursor()
    cur.close()
    with pytest.raises(module.Error):
        cur.execute("SELECT 1")
    conn.close()
    with pytest.raises(module.Error):
        conn.cursor().execute("SELECT 1")
    with pytest.raises(module.Error):
        conn.commit()
    conn.close()


def test_psycopg_tour(run, psycopg, database):
    run(dbapi_tour, psycopg, lambda: psycopg.connect(database.dsn), "%s")


def test_psycopg_tour_without_a_loop(psycopg, database):
    dbapi_tour(psycopg, lambda: psycopg.connect(database.dsn), "%s")


def test_psycopg_tour_in_a_thread_beside_a_loop(fb, psycopg, database):
    async def main():
        await asyncio.to_thread(dbapi_tour, psycopg, lambda: psycopg.connect(database.dsn), "%s")

    fb.run(main())


def test_aiosqlite_tour(run, aiosqlite, tmp_path):
    run(dbapi_tour, aiosqlite, lambda: aiosqlite.connect(tmp_path / "db"), "?")


def test_aiosqlite_tour_without_a_loop(aiosqlite, tmp_path):
    dbapi_tour(aiosqlite, lambda: aiosqlite.connect(tmp_path / "db"), "?")


def test_aiosqlite_tour_in_a_thread_beside_a_loop(fb, aiosqlite, tmp_path):
    async def main():
        await asyncio.to_thread(
            dbapi_tour, aiosqlite, lambda: aiosqlite.connect(tmp_path / "db"), "?"
        )

    fb.run(main())


# psycopg


def test_psycopg_beyond_dbapi(run, psycopg, database):
    import psycopg.types.range as _  # noqa: F401
    from psycopg.rows import dict_row
    from psycopg.types import TypeInfo

    notices = []

    def work():
        with psycopg.connect(
            database.dsn, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
        ) as conn:
            assert isinstance(conn.cursor(), psycopg.ClientCursor)
            conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
            conn.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
            assert conn.execute("SELECT 1 AS one").fetchone() == {"one": 1}
            with conn.transaction() as outer:
                conn.execute("CREATE TABLE t (n int)")
                with contextlib.suppress(ZeroDivisionError), conn.transaction():
                    conn.execute("INSERT INTO t VALUES (1)")
                    raise ZeroDivisionError
                conn.execute("INSERT INTO t VALUES (2)")
                with conn.transaction():
                    conn.execute("INSERT INTO t VALUES (3)")
                    raise psycopg.Rollback
            assert outer.status.value == "committed"
            with conn.cursor() as cur:
                with cur.copy("COPY t FROM STDIN") as copy:
                    for n in range(10, 5000):
                        copy.write_row((n,))
                assert cur.rowcount == 4990
                with cur.copy("COPY (SELECT n FROM t ORDER BY n) TO STDOUT") as copy:
                    rows = list(copy.rows())
                assert rows[:2] == [("2",), ("10",)] and len(rows) == 4991
            with conn.cursor("named", scrollable=True) as cur:
                cur.itersize = 500
                cur.execute("SELECT n FROM t ORDER BY n")
                assert cur.fetchone() == {"n": 2}
                cur.scroll(10)
                assert cur.fetchone() == {"n": 20}
                assert len(list(cur)) == 4991 - 12
            plain = psycopg.Cursor(conn)
            with conn.pipeline():
                first = psycopg.Cursor(conn).execute("SELECT 1 AS x")
                second = psycopg.Cursor(conn).execute("SELECT 2 AS x")
            assert (first.fetchone(), second.fetchone()) == ({"x": 1}, {"x": 2})
            assert sum(row["n"] for row in plain.stream("SELECT n FROM t WHERE n < 12")) == 23
            assert TypeInfo.fetch(conn, "date").name == "date"
            plain.executemany("SELECT %s::int AS n", [(1,), (2,)], returning=True)
            assert plain.fetchone() == {"n": 1} and plain.nextset()
            assert plain.fetchone() == {"n": 2} and not plain.nextset()
            conn.commit()
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            shown = conn.execute("SHOW transaction_isolation").fetchone()
            assert shown == {"transaction_isolation": "serializable"}
            conn.rollback()
            conn.autocommit = True
            conn.execute("LISTEN ch")
            conn.execute("NOTIFY ch, 'payload'")
            assert [n.payload for n in conn.notifies(timeout=5, stop_after=1)] == ["payload"]
            assert list(conn.notifies(timeout=0.01)) == []
            assert conn.info.server_version > 90000
            assert psycopg.sql.SQL("{}").format("a'b").as_string(conn) == "'a''b'"
        assert conn.closed

    run(work)
    assert notices == ["hello"]


def test_psycopg_two_phase_commit(run, psycopg, database):
    def work():
        with contextlib.closing(psycopg.connect(database.dsn)) as conn:
            conn.execute("CREATE TABLE t (n int)")
            conn.commit()
            conn.tpc_begin(conn.xid(1, "gtrid", "bqual"))
            conn.execute("INSERT INTO t VALUES (1)")
            conn.tpc_prepare()
        with psycopg.connect(database.dsn) as conn:
            (xid,) = (xid for xid in conn.tpc_recover() if xid.database == database.name)
            conn.tpc_commit(xid)
            assert conn.tpc_recover() == []
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (1,)

    run(work)


def test_psycopg_errors_are_the_drivers(run, psycopg, database):
    from psycopg import errors

    def work():
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.dsn.replace(database.name, "no_such_database"))
        with psycopg.connect(database.dsn) as conn:
            with pytest.raises(errors.UndefinedTable) as caught:
                conn.execute("SELECT * FROM nowhere")
            assert caught.value.diag.sqlstate == "42P01"
            conn.rollback()
            with pytest.raises(psycopg.ProgrammingError):
                conn.cursor().fetchone()

    run(work)


def test_fifty_sleeps_take_the_time_of_a_few(fb, aio, psycopg, database):
    def work():
        assert threading.get_ident() == main_thread
        with psycopg.connect(database.dsn) as conn:
            conn.execute("SELECT pg_sleep(0.1)")

    async def main():
        begin = time.monotonic()
        await gather(fb, [(work,)] * 50)
        return time.monotonic() - begin

    main_thread = threading.get_ident()
    threads = threading.active_count()
    assert aio.run(main) < 50 * 0.1 * 0.9  # one after the other they could not
    assert threading.active_count() == threads


def test_tasks_share_a_connection_by_turns(fb, aio, psycopg, database):
    def query(conn, n):
        return conn.execute("SELECT %s::int, pg_sleep(0.002)", (n,)).fetchone()[0]

    async def main():
        conn = await fb.with_portal_run_sync(psycopg.connect, database.dsn)
        assert await gather(fb, [(query, conn, n) for n in range(20)]) == list(range(20))
        await fb.with_portal_run_sync(conn.close)

    aio.run(main)


def test_threads_and_tasks_share_a_connection(fb, psycopg, database):
    def query(n):
        return conn.execute("SELECT %s::int, pg_sleep(0.002)", (n,)).fetchone()[0]

    async def main():
        calls = [fb.with_portal_run_sync(query, n) for n in range(10)]
        calls += [asyncio.to_thread(query, n) for n in range(10, 20)]
        return await asyncio.gather(*calls)

    conn = psycopg.connect(database.dsn)  # made where no loop runs
    notices = []
    conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    assert fb.run(main()) == list(range(20))

    async def notice():
        conn.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")

    fb.run(notice())
    assert notices == ["hello"]
    conn.close()


def test_a_task_without_a_portal_parks_or_is_told_what_to_type(fb, aio, psycopg, database):
    """uvloop cannot be entered again; the connection stays usable."""
    conn = psycopg.connect(database.dsn)
    holder = psycopg.connect(database.dsn)
    holder.execute("SELECT pg_advisory_lock(1)")

    async def main():
        async def let_go():
            await asyncio.sleep(0.01)
            await fb.with_portal_run_sync(holder.execute, "SELECT pg_advisory_unlock(1)")

        task = asyncio.create_task(let_go())
        try:
            return conn.execute("SELECT 1, pg_advisory_lock(1)").fetchone()[0]
        except RuntimeError as error:
            return str(error)
        finally:
            await task

    told = aio.run(main)
    if aio.name == "uvloop":
        assert "portal" in told
    else:
        assert told == 1
    conn.rollback()
    assert conn.execute("SELECT 2").fetchone() == (2,)
    conn.close()
    holder.close()


def test_trio_is_refused(psycopg, database):
    trio = import_or_skip("trio")
    conn = psycopg.connect(database.dsn)

    async def main():
        with pytest.raises(RuntimeError, match="to_thread"):
            conn.execute("SELECT 1")
        return await trio.to_thread.run_sync(lambda: conn.execute("SELECT 1").fetchone())

    assert trio.run(main) == (1,)
    conn.close()


def test_cancelled_query_is_cancelled_on_the_server(fb, aio, psycopg, database):
    def slow(conn):
        conn.execute("SELECT pg_sleep(60)")

    async def main():
        conn = await fb.with_portal_run_sync(psycopg.connect, database.dsn)
        task = asyncio.ensure_future(fb.with_portal_run_sync(slow, conn))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert conn.info.transaction_status.name == "INERROR"

        def after():
            conn.rollback()
            (busy,) = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
                " AND state = 'active' AND pid <> pg_backend_pid()"
            ).fetchone()
            assert busy == 0
            conn.close()

        await fb.with_portal_run_sync(after)

    aio.run(main)


def test_timeout_and_cancel_safe(fb, psycopg, database):
    def slow(conn):
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(60)")
        conn.rollback()
        return conn.execute("SELECT 1").fetchone()

    async def main():
        conn = psycopg.connect(database.dsn)
        task = asyncio.create_task(fb.with_portal_run_sync(slow, conn))
        await asyncio.sleep(0.1)
        conn.cancel_safe(timeout=5)
        assert await task == (1,)
        task = asyncio.create_task(fb.with_portal_run_sync(slow, conn))
        await asyncio.sleep(0.1)
        conn.cancel()
        assert await task == (1,)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                conn.execute("SELECT pg_sleep(60)")
        conn.close()

    fb.run(main())


def test_500_cancels_at_random_points(fb, psycopg, psycopg_pool, database):
    """Connections of cancelled work are never handed out dirty, and none is lost."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    database.sql("CREATE TABLE done (n int); CREATE TABLE undone (n int)")

    def work(pool, n):
        with pool.connection() as conn:
            assert conn.info.transaction_status.name == "IDLE", seed
            assert conn.execute("SELECT count(*) FROM pg_cursors").fetchone() == (0,), seed
            conn.commit()
            assert conn.execute("SELECT current_setting('app.user', true)").fetchone()[0] in (
                None,
                "",
            ), seed
            conn.execute(
                "SELECT set_config('app.user', %s, true)", (str(n),)
            )  # for the transaction
            with conn.transaction():
                conn.execute("INSERT INTO done VALUES (%s)", (n,))
                with contextlib.suppress(ZeroDivisionError), conn.transaction():
                    conn.execute("INSERT INTO undone VALUES (%s)", (n,))
                    raise ZeroDivisionError
            with conn.cursor() as cur:
                with cur.copy("COPY (SELECT generate_series(1, 200)) TO STDOUT") as copy:
                    for _ in copy:
                        pass
            with conn.cursor("c") as cur:
                cur.execute("SELECT generate_series(1, 20)")
                assert len(cur.fetchall()) == 20
            conn.commit()
            conn.autocommit = True  # in which server-side cursors outlive transactions
            try:
                with conn.cursor("held", withhold=True) as cur:
                    cur.execute("SELECT generate_series(1, 20)")
                    assert len(cur.fetchmany(5)) == 5
                conn.execute("SELECT pg_sleep(0.001)")
            finally:
                if not conn.closed and conn.info.transaction_status.name == "IDLE":
                    conn.autocommit = False
        return n

    async def main():
        pool = psycopg_pool.ConnectionPool(database.dsn, min_size=2, max_size=6)
        finished, cancelled = [], 0
        while cancelled < 500:
            tasks = [asyncio.create_task(fb.with_portal_run_sync(work, pool, n)) for n in range(12)]
            for task in tasks[
                1:
            ]:  # one is not cancelled, for contrast, however busy the machine is
                asyncio.get_running_loop().call_later(rng.expovariate(1 / 0.02), task.cancel)
                if rng.random() < 0.2:  # and once more while it cleans up
                    asyncio.get_running_loop().call_later(rng.expovariate(1 / 0.02), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for task, result in zip(tasks, results, strict=True):
                if isinstance(result, int):
                    finished.append(result)
                else:
                    # Cleaning up after a second cancellation meets a closed connection.
                    closed = isinstance(result, psycopg.OperationalError) and task.cancelling()
                    assert closed or isinstance(result, asyncio.CancelledError), (seed, result)
                    cancelled += 1
        assert finished, "all were cancelled: the test has no contrast"
        # All connections come back, and all of them serve.
        async with asyncio.timeout(60):
            results = await gather(fb, [(work, pool, n) for n in range(60)])
        assert results == list(range(60)), seed
        async with asyncio.timeout(60):
            while pool.get_stats()["pool_available"] != pool.get_stats()["pool_size"]:
                await asyncio.sleep(0.01)
        assert pool.get_stats()["pool_size"] <= 6 and pool.get_stats()["requests_waiting"] == 0
        pool.close()
        return len(finished)

    fb.run(main())
    assert database.sql("SELECT count(*) FROM undone") == ["0"]
    states = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    deadline = time.monotonic() + 10
    while database.sql(f"{states} AND pid <> pg_backend_pid()") != ["0"]:
        assert time.monotonic() < deadline, seed
        time.sleep(0.05)


def test_cancelled_copy_that_was_beginning_does_not_leave_a_busy_connection(fb, psycopg, database):
    rng = random.Random(7)

    def work(conn):
        with conn.cursor() as cur:
            with cur.copy("COPY (SELECT generate_series(1, 50)) TO STDOUT") as copy:
                for _ in copy:
                    pass

    async def main():
        for _ in range(60):
            conn = psycopg.connect(database.dsn)
            task = asyncio.create_task(fb.with_portal_run_sync(work, conn))
            await asyncio.sleep(rng.uniform(0, 0.004))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert conn.closed or conn.info.transaction_status.name != "ACTIVE"
            if not conn.closed:
                conn.rollback()
                assert conn.execute("SELECT 1").fetchone() == (1,)
            conn.close()

    fb.run(main())


def test_unclosed_connection_warns_once(fb, psycopg, database):
    async def main():
        psycopg.connect(database.dsn)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fb.run(main())
        gc.collect()
    assert [w.category for w in caught if "still open" in str(w.message)] == [ResourceWarning]


# psycopg_pool


def test_pool_callbacks_are_sync_and_settings_last(fb, aio, psycopg, psycopg_pool, database):
    from psycopg.rows import dict_row

    seen = []

    def configure(conn):
        conn.execute("SET application_name = 'configured'")
        conn.commit()
        seen.append("configure")

    def reset(conn):
        assert conn.row_factory is dict_row
        seen.append("reset")

    def work(pool):
        with pool.connection() as conn:
            assert isinstance(conn, psycopg.Connection)
            return conn.execute("SHOW application_name").fetchone()["application_name"]

    async def main():
        pool = psycopg_pool.ConnectionPool(
            database.dsn,
            kwargs={"row_factory": dict_row},
            min_size=1,
            max_size=1,
            configure=configure,
            check=psycopg_pool.ConnectionPool.check_connection,
            reset=reset,
        )
        assert await gather(fb, [(work, pool)] * 3) == ["configured"] * 3
        await fb.with_portal_run_sync(pool.close)

    aio.run(main)
    assert seen[0] == "configure" and seen.count("configure") == 1 and seen.count("reset") >= 2


def test_pool_replaces_what_comes_back_broken_or_dirty(fb, psycopg, psycopg_pool, database):
    async def main():
        with psycopg_pool.ConnectionPool(database.dsn, min_size=1, max_size=1) as pool:
            conn = pool.getconn()
            pid = conn.info.backend_pid
            conn.execute("CREATE TABLE never (n int)")
            pool.putconn(conn)
            conn = pool.getconn()
            assert conn.info.backend_pid == pid
            assert conn.info.transaction_status.name == "IDLE"
            with pytest.raises(psycopg.errors.UndefinedTable):
                conn.execute("SELECT * FROM never")
            conn.close()
            pool.putconn(conn)
            with pool.connection(timeout=10) as conn:
                assert conn.info.backend_pid != pid
                with pytest.raises(psycopg_pool.PoolTimeout):
                    pool.getconn(timeout=0.05)
        with pytest.raises(psycopg_pool.PoolClosed):
            pool.getconn()

    fb.run(main())


def test_a_loop_ends_with_a_pool_open_and_at_work(psycopg_pool, aio, fb, database):
    def work(pool):
        pool.open()
        with contextlib.suppress(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=random.uniform(0, 0.02))

    async def main():
        pool = psycopg_pool.ConnectionPool(database.dsn, min_size=4, max_size=8)
        await fb.with_portal_run_sync(work, pool)

    for _ in range(8):
        aio.run(main)


def test_pool_needs_a_loop(psycopg_pool, database):
    with pytest.raises(RuntimeError, match="psycopg_pool.ConnectionPool"):
        psycopg_pool.ConnectionPool(database.dsn).getconn()


def test_pool_takes_connections_back_from_a_callback_and_another_thread(fb, psycopg_pool, database):
    async def main():
        loop = asyncio.get_running_loop()
        with psycopg_pool.ConnectionPool(database.dsn, min_size=1, max_size=1) as pool:
            loop.call_soon(pool.putconn, pool.getconn())
            conn = pool.getconn(timeout=10)
            await asyncio.to_thread(pool.putconn, conn)
            pool.putconn(pool.getconn(timeout=10))

    fb.run(main())


# aiosqlite


def test_aiosqlite_closed_in_a_callback_when_the_loop_is_about_to_close(
    fb, aiosqlite, tmp_path, monkeypatch
):
    """The connection's thread does it, and has nobody to answer to any more."""
    unhandled = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)

    async def main():
        connection = aiosqlite.connect(tmp_path / "db")
        connection.execute("create table if not exists t (n)")
        asyncio.current_task().add_done_callback(lambda _: connection.close())
        return connection

    before = set(threading.enumerate())
    for run in (fb.run, asyncio.run) * 10:
        connection = run(main())
        for thread in set(threading.enumerate()) - before:
            if "connection" in thread.name:
                thread.join()
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("select 1")
    assert unhandled == []


def test_aiosqlite_is_sqlite3_in_all_but_type(run, aiosqlite, tmp_path):
    def work():
        with contextlib.closing(
            aiosqlite.connect(tmp_path / "db", timeout=3, detect_types=sqlite3.PARSE_DECLTYPES)
        ) as conn:
            conn.row_factory = aiosqlite.Row
            cur = conn.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n int, d date)")
            cur.execute("INSERT INTO t (n) VALUES (?) RETURNING id", (7,))
            assert cur.fetchone()["id"] == 1
            assert conn.execute("INSERT INTO t (n) VALUES (8)").lastrowid == 2
            assert conn.in_transaction and conn.total_changes == 2
            conn.executemany("INSERT INTO t (n) VALUES (?)", ((n,) for n in range(1000)))
            conn.commit()
            assert not conn.in_transaction
            cur = conn.execute("SELECT id, n FROM t ORDER BY id")
            assert cur.fetchone()["n"] == 7
            assert len(cur.fetchmany(500)) == 500 and len(list(cur)) == 501
            conn.create_function("double", 1, lambda n: 2 * n)
            assert conn.execute("SELECT double(21) AS x").fetchone()["x"] == 42
            conn.create_collation("backwards", lambda a, b: (a < b) - (a > b))
            rows = conn.execute("SELECT 'a' AS x UNION SELECT 'b' ORDER BY x COLLATE backwards")
            assert [row["x"] for row in rows] == ["b", "a"]
            assert any("CREATE TABLE" in line for line in conn.iterdump())
            conn.executescript("CREATE TABLE b (x); INSERT INTO b VALUES (zeroblob(4));")
            with conn.blobopen("b", "x", 1) as blob:
                blob.write(b"data")
                assert len(blob) == 4 and blob[0:2] == b"da"
            copy = aiosqlite.connect(":memory:")
            conn.backup(copy)
            assert copy.execute("SELECT count(*) FROM t").fetchone() == (1002,)
            copy.close()
            assert conn.isolation_level == ""
            conn.isolation_level = None
            conn.execute("BEGIN IMMEDIATE")
            assert conn.in_transaction
            with pytest.raises(aiosqlite.OperationalError):
                conn.execute("BEGIN")
            conn.rollback()
            # An error behind good rows comes after them (but one: sqlite3 looks a row ahead).
            conn.create_function("bad", 1, lambda n: 1 // (3 - n))
            cur = conn.execute("SELECT bad(n) FROM (SELECT 1 AS n UNION SELECT 2 UNION SELECT 3)")
            assert tuple(cur.fetchone()) == (0,)
            with pytest.raises(aiosqlite.OperationalError):
                cur.fetchone()

    run(work)


def test_aiosqlite_tasks_overlap_and_serve_one_connection(fb, aio, aiosqlite):
    def query(conn, n):
        return conn.execute("SELECT ?", (n,)).fetchone()[0]

    async def main():
        conn = await fb.with_portal_run_sync(aiosqlite.connect, ":memory:")
        results = await gather(fb, [(query, conn, n) for n in range(50)])
        await fb.with_portal_run_sync(conn.close)
        return results

    assert aio.run(main) == list(range(50))


def test_aiosqlite_cancel_interrupts_the_statement(fb, aio, aiosqlite, tmp_path):
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"

    def slow(conn):
        with conn:
            conn.execute("INSERT INTO t VALUES (1)")
            conn.execute(endless)

    async def main():
        connect = fb.with_portal_run_sync
        conn = await connect(aiosqlite.connect, tmp_path / "db")
        await connect(conn.execute, "CREATE TABLE t (n int)")
        for _ in range(3):
            task = asyncio.ensure_future(fb.with_portal_run_sync(slow, conn))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not conn.in_transaction
        rows = await connect(conn.execute, "SELECT count(*) FROM t")
        assert await connect(rows.fetchone) == (0,)
        await connect(conn.close)

    aio.run(main)


def test_aiosqlite_500_cancels_at_random_points(fb, aiosqlite, tmp_path):
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)

    def work(conn, n):
        try:
            conn.execute("BEGIN")
            conn.execute("INSERT INTO t VALUES (?)", (n,))
            conn.execute("INSERT INTO u VALUES (?)", (n,))
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.rollback()
            raise
        return n

    async def main():
        conn = aiosqlite.connect(tmp_path / "db", isolation_level=None)
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("CREATE TABLE t (n int)")
        conn.execute("CREATE TABLE u (n int)")
        cancelled = 0
        while cancelled < 500:
            task = asyncio.create_task(fb.with_portal_run_sync(work, conn, cancelled))
            asyncio.get_running_loop().call_later(rng.expovariate(1 / 0.001), task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            assert not conn.in_transaction, seed
        assert work(conn, -1) == -1
        differ = "SELECT count(*) FROM t LEFT JOIN u USING (n) WHERE u.n IS NULL"
        assert conn.execute(differ).fetchone() == (0,), seed
        conn.close()

    fb.run(main())


# Locks


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_locks_exclude_tasks_and_threads(fb, kind):
    from fiberback.dbapi import _locks

    lock = getattr(_locks, kind)()
    inside = []

    def work(pause):
        for _ in range(20):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                pause()
                inside.pop()

    def wait():
        fb.await_(asyncio.sleep(0.0005))

    async def main():
        calls = [fb.with_portal_run_sync(work, wait) for _ in range(5)]
        calls += [asyncio.to_thread(work, lambda: time.sleep(0.0005)) for _ in range(3)]
        async with asyncio.timeout(60):
            await asyncio.gather(*calls)

    fb.run(main())
    assert not lock.locked()


def test_lock_survives_cancelled_waiters(fb):
    from fiberback.dbapi._locks import Lock

    lock = Lock()
    rng = random.Random(3)
    taken = []

    def work(n):
        with lock:
            fb.await_(asyncio.sleep(0.0002))
            taken.append(n)

    async def main():
        for _ in range(30):
            tasks = [asyncio.create_task(fb.with_portal_run_sync(work, n)) for n in range(10)]
            for task in tasks[1::2]:
                asyncio.get_running_loop().call_later(rng.uniform(0, 0.003), task.cancel)
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks, return_exceptions=True)
            assert not lock.locked()
            assert lock.acquire(timeout=5)
            assert not lock.acquire(timeout=0.001) and not lock.acquire(blocking=False)
            lock.release()

    fb.run(main())
    assert {0, 2, 4, 6, 8} <= set(taken)


def test_rlock_belongs_to_a_task_and_condition_wakes_it(fb):
    from fiberback.dbapi._locks import Condition, RLock

    lock = RLock()
    ready = Condition(lock)
    items = []

    def consume():
        with lock, ready:
            while not items:
                assert ready.wait(timeout=10)
            return items.pop()

    def produce(n):
        with ready:
            items.append(n)
            ready.notify()

    async def main():
        consumers = [asyncio.create_task(fb.with_portal_run_sync(consume)) for _ in range(4)]
        await asyncio.sleep(0.01)
        consumers[0].cancel()
        await asyncio.gather(consumers[0], return_exceptions=True)
        assert consumers[0].cancelled()
        for n in range(2):
            await fb.with_portal_run_sync(produce, n)
        await asyncio.to_thread(produce, 2)
        async with asyncio.timeout(30):
            assert sorted(await asyncio.gather(*consumers[1:])) == [0, 1, 2]

        def expired():
            with ready:
                return ready.wait(timeout=0.01)

        assert await fb.with_portal_run_sync(expired) is False
        with pytest.raises(RuntimeError):
            lock.release()

    fb.run(main())
