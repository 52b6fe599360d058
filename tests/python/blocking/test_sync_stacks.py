"""The sync stacks of SQLAlchemy and Django on sync drivers, unmodified, in tasks and async views of one thread.

One has a row until all others ask for it, which only it can give them: who blocked there would block all.
"""

from __future__ import annotations

import pathlib
import time

import fiberback
import pytest
from servers import together
from support import import_or_skip, only_fiberback, printed_by

pytestmark = [only_fiberback, pytest.mark.sampled]

COUNT = 10


@pytest.fixture(params=["psycopg2", "PyMySQL"])
def driver(request):
    """Its name, what Django's script and SQLAlchemy want to know of the server; the hooks are in force."""
    if request.param == "psycopg2":
        import_or_skip("psycopg2")
        from fiberback import psycopg2

        database = request.getfixturevalue("database")
        with psycopg2.install():
            where = [database.cluster.host, database.name]
            yield "psycopg2", where, database.url("psycopg2")
    else:
        import_or_skip("pymysql")
        socket = request.getfixturevalue("mariadb_socket")
        url = f"mysql+pymysql://root@/test_stacks?unix_socket={socket}"
        yield "PyMySQL", [socket], url


def test_sqlalchemy(backend, driver):
    sqlalchemy = import_or_skip("sqlalchemy")
    from sqlalchemy import orm

    name, where, url = driver
    if name == "PyMySQL":
        import pymysql

        with pymysql.connect(unix_socket=where[0], user="root") as connection:
            connection.query("CREATE DATABASE IF NOT EXISTS test_stacks")
    held, asked = [], []
    base = orm.declarative_base()

    class Item(base):
        __tablename__ = "items"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        name = sqlalchemy.Column(sqlalchemy.String(100))

    with fiberback.blocking.install():
        engine = sqlalchemy.create_engine(url, pool_size=4, max_overflow=COUNT)
        base.metadata.drop_all(engine)
        base.metadata.create_all(engine)
        with orm.Session(engine) as session, session.begin():
            session.add(Item(id=1, name=""))

        def row(session):
            query = sqlalchemy.select(Item).with_for_update()
            return session.scalars(query).one()

        def hold():
            with orm.Session(engine) as session, session.begin():
                item = row(session)
                held.append(1)
                while len(asked) < COUNT:
                    time.sleep(0)
                for _ in range(20):
                    time.sleep(0)
                item.name += "h"

        def add():
            while not held:
                time.sleep(0)
            with orm.Session(engine) as session, session.begin():
                asked.append(1)
                row(session).name += "a"

        together(backend, hold, *[add] * COUNT)
        with orm.Session(engine) as session:
            assert row(session).name == "h" + "a" * COUNT
        engine.dispose()


@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_django(driver):
    import_or_skip("django")
    name, where, _ = driver
    script = pathlib.Path(__file__).with_name("django_over_hooks.py")
    assert printed_by(script, name, *where, timeout=150).strip() == "h" + "a" * COUNT
