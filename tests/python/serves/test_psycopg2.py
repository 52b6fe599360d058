"""`fiberback.psycopg2`: unmodified psycopg2 in the tasks of one thread."""

from __future__ import annotations

import threading

import fiberback
import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

psycopg2 = import_or_skip("psycopg2")
extensions = import_or_skip("psycopg2.extensions")


@pytest.fixture(autouse=True)
def installed():
    from fiberback import psycopg2 as ours

    with ours.install():
        yield
    assert extensions.get_wait_callback() is None


def query(dsn, statement, *parameters):
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        found = cursor.fetchall()
    connection.close()
    return found


def test_tasks_of_one_thread_wait_for_each_other(backend, database):
    """Half of them hold a lock of the server's until all of the others ask for it."""
    dsn, count = database.dsn, 20
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"

    def ask():
        return query(dsn, "SELECT pg_advisory_lock_shared(1), 2")

    def hold():
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(1)")
            held.append(1)
            while True:
                cursor.execute(waiting)
                if cursor.fetchone()[0] == count:
                    break
        connection.close()

    held, found = [], []

    async def main():
        async def one():
            while not held:
                await backend.sleep(0)
            found.append(await fiberback.with_portal_run_sync(ask))

        async with backend.group() as group:
            group.spawn(fiberback.with_portal_run_sync, hold)
            for _ in range(count):
                group.spawn(one)

    backend.run(main)
    assert found == [[("", 2)]] * count


def test_cancelling_a_query_closes_its_connection(backend, database):
    connections = []

    def sleep():
        connection = psycopg2.connect(database.dsn)
        connections.append(connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1000)")

    async def main():
        async with backend.group() as group:
            handle = group.spawn(fiberback.with_portal_run_sync, sleep)
            while not connections:
                await backend.sleep(0)
            await backend.sleep(0.001)
            handle.cancel()
        assert connections[0].closed
        return await fiberback.with_portal_run_sync(query, database.dsn, "SELECT %s + 1", 2)

    assert backend.run(main) == [(3,)]


def test_errors_are_the_database_s(backend, database):
    def check():
        with pytest.raises(psycopg2.errors.UndefinedTable):
            query(database.dsn, "SELECT * FROM no_such_table")
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect("postgresql://nobody@127.0.0.1:1/")

    async def main():
        await fiberback.with_portal_run_sync(check)

    backend.run(main)


def test_where_no_loop_runs(database):
    found = []
    thread = threading.Thread(target=lambda: found.append(query(database.dsn, "SELECT 1")))
    thread.start()
    thread.join()
    assert found == [query(database.dsn, "SELECT 1")] == [[(1,)]]


def test_another_s_callback_comes_back():
    from fiberback import psycopg2 as ours

    with ours.install():  # it was in force before
        pass
    assert extensions.get_wait_callback() is ours.wait
    ours.uninstall()
    extensions.set_wait_callback(others := lambda connection: None)
    with ours.install():
        assert extensions.get_wait_callback() is ours.wait
    assert extensions.get_wait_callback() is others
    extensions.set_wait_callback(None)
