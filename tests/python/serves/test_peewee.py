"""fiberback.peewee: Peewee's ordinary sync API in tasks, on PostgreSQL and SQLite.

Peewee's sdist has no test-suite, so these are what its users do: models, relations, transactions,
savepoints, pools, and many tasks at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import random
import threading
import time

import pytest
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]


class Kit:
    """A database, and models on it."""

    def __init__(self, db):
        import peewee

        self.db = db
        self.postgres = isinstance(db, peewee.PostgresqlDatabase)

        class Base(peewee.Model):
            class Meta:
                database = db

        class User(Base):
            name = peewee.CharField(unique=True)
            score = peewee.IntegerField(default=0)

        class Post(Base):
            author = peewee.ForeignKeyField(User, backref="posts", on_delete="CASCADE")
            text = peewee.TextField()
            at = peewee.DateTimeField(default=datetime.datetime(2026, 1, 2, 3, 4, 5))

        self.User, self.Post = User, Post

    def sleep(self, seconds):
        if self.postgres:
            self.db.execute_sql("SELECT pg_sleep(%s)", (seconds,))


@pytest.fixture(params=["postgres", "postgres pool", "sqlite", "sqlite pool"])
def kit(request, tmp_path):
    import_or_skip("peewee")
    if request.param.startswith("postgres"):
        import_or_skip("psycopg")
        database = request.getfixturevalue("database")
    else:
        import_or_skip("aiosqlite")
    from fiberback import peewee as fp

    pooled = {"max_connections": 6, "timeout": 20} if "pool" in request.param else {}
    kinds = {
        "postgres": fp.PostgresqlDatabase,
        "postgres pool": fp.PooledPostgresqlDatabase,
        "sqlite": fp.SqliteDatabase,
        "sqlite pool": fp.PooledSqliteDatabase,
    }
    if request.param.startswith("postgres"):
        db = kinds[request.param](
            database.name, user="postgres", host=database.cluster.host, **pooled
        )
    else:
        pragmas = {"foreign_keys": 1, "journal_mode": "wal", "synchronous": "off"}
        db = (
            kinds[request.param](str(tmp_path / "db"), pragmas=pragmas, timeout=20)
            if not pooled
            else kinds[request.param](str(tmp_path / "db"), pragmas=pragmas, **pooled)
        )
    return Kit(db)


@pytest.fixture
def run(fb, kit):
    """Runs a sync function of the kit in a task, with tables and without connections afterwards."""

    def call(fn, loop_factory=None):
        async def main():
            def setup():
                with kit.db.connection_context():
                    kit.db.create_tables([kit.User, kit.Post])

            def teardown():
                if hasattr(kit.db, "close_all"):
                    kit.db.close_all()
                elif not kit.db.is_closed():
                    kit.db.close()

            setup()
            try:
                result = fn(kit)
                return await result if asyncio.iscoroutine(result) else result
            finally:
                await fb.with_portal_run_sync(teardown)

        return fb.run(main(), loop_factory=loop_factory)

    return call


def gather(calls):
    async def one(fn, *args):
        return fn(*args)

    return asyncio.gather(*(one(*call) for call in calls))


def test_create_query_update_delete(run):
    def work(kit):
        User = kit.User
        ann = User.create(name="ann", score=1)
        User.insert_many([{"name": f"u{n}", "score": n} for n in range(10)]).execute()
        assert User.select().count() == 11
        assert User.get(User.name == "ann").id == ann.id
        assert User.get_or_none(User.name == "zoe") is None
        assert User.update(score=User.score + 1).where(User.score > 4).execute() == 5
        assert [u.score for u in User.select().order_by(User.score.desc()).limit(2)] == [10, 9]
        ann.score = 50
        assert ann.save() == 1
        assert User.get_by_id(ann.id).score == 50
        assert ann.delete_instance() == 1
        assert User.delete().where(User.score < 3).execute() == 3

    run(work)


def test_get_or_create_and_upsert(run):
    def work(kit):
        User = kit.User
        one, made = User.get_or_create(name="ann", defaults={"score": 3})
        two, again = User.get_or_create(name="ann")
        assert made and not again and one == two and two.score == 3
        (
            User.insert(name="ann", score=9)
            .on_conflict(conflict_target=[User.name], update={User.score: 9})
            .execute()
        )
        assert User.get().score == 9
        User.insert(name="ann").on_conflict_ignore().execute()
        assert User.select().count() == 1

    run(work)


def test_relations_lazy_and_prefetched(run):
    def work(kit):
        import peewee

        for name in "abc":
            user = kit.User.create(name=name)
            for n in range(2):
                kit.Post.create(author=user, text=f"{name}{n}")
        post = kit.Post.get(kit.Post.text == "b1")
        assert post.author.name == "b"  # a lazy load
        assert [p.text for p in post.author.posts.order_by(kit.Post.text)] == ["b0", "b1"]
        assert post.at == datetime.datetime(2026, 1, 2, 3, 4, 5)
        users = peewee.prefetch(kit.User.select().order_by(kit.User.name), kit.Post.select())
        assert [len(u.posts) for u in users] == [2, 2, 2]
        joined = kit.Post.select(kit.Post, kit.User).join(kit.User).where(kit.User.name == "c")
        assert {p.author.name for p in joined} == {"c"}
        kit.User.get(name="a").delete_instance(recursive=True)
        assert kit.Post.select().count() == 4

    run(work)


def test_aggregates_tuples_dicts_and_raw(run):
    def work(kit):
        import peewee

        fn = peewee.fn
        User = kit.User
        User.insert_many([{"name": str(n), "score": n % 3} for n in range(9)]).execute()
        query = (
            User.select(User.score, fn.COUNT(User.id).alias("n"))
            .group_by(User.score)
            .order_by(User.score)
        )
        assert list(query.tuples()) == [(0, 3), (1, 3), (2, 3)]
        assert list(query.dicts())[1] == {"score": 1, "n": 3}
        assert User.select(fn.MAX(User.score)).scalar() == 2
        param = kit.db.param
        assert [u.name for u in User.raw(f'SELECT * FROM "user" WHERE name = {param}', "4")] == [
            "4"
        ]
        assert len(list(User.select().iterator())) == 9

    run(work)


def test_integrity_error_is_peewees(run):
    def work(kit):
        import peewee

        kit.User.create(name="ann")
        with pytest.raises(peewee.IntegrityError):
            kit.User.create(name="ann")
        with pytest.raises(peewee.IntegrityError):
            kit.Post.create(author=4711, text="")
            if not kit.postgres:
                kit.db.execute_sql("PRAGMA foreign_key_check")
        assert kit.User.select().count() == 1

    run(work)


def test_atomic_commits_and_rolls_back(run):
    def work(kit):
        with kit.db.atomic():
            kit.User.create(name="kept")
        with pytest.raises(ZeroDivisionError), kit.db.atomic():
            kit.User.create(name="lost")
            raise ZeroDivisionError
        with kit.db.atomic() as txn:
            kit.User.create(name="lost, too")
            txn.rollback()
        assert [u.name for u in kit.User.select()] == ["kept"]
        assert not kit.db.in_transaction()

    run(work)


def test_savepoints_nest(run):
    def work(kit):
        with kit.db.atomic():
            kit.User.create(name="a")
            with pytest.raises(ZeroDivisionError), kit.db.atomic():
                kit.User.create(name="b")
                with kit.db.atomic():
                    kit.User.create(name="c")
                raise ZeroDivisionError
            with kit.db.atomic() as savepoint:
                kit.User.create(name="d")
                savepoint.rollback()
                kit.User.create(name="e")
            assert kit.db.transaction_depth() == 1
        assert sorted(u.name for u in kit.User.select()) == ["a", "e"]

    run(work)


def test_manual_commit_and_sessions(run):
    def work(kit):
        kit.db.connect(reuse_if_open=True)
        with kit.db.manual_commit():
            kit.db.begin()
            kit.User.create(name="a")
            kit.db.rollback()
            kit.db.begin()
            kit.User.create(name="b")
            kit.db.commit()
        kit.db.session_start()
        kit.User.create(name="c")
        kit.db.session_rollback()
        assert [u.name for u in kit.User.select()] == ["b"]

    run(work)


def test_decorators_and_connection_context(run):
    def work(kit):
        @kit.db.atomic()
        def create(name):
            return kit.User.create(name=name)

        @kit.db.connection_context()
        def count():
            return kit.User.select().count()

        kit.db.close()
        with kit.db:
            create("a")
        assert kit.db.is_closed()
        assert count() == 1
        assert kit.db.is_closed()
        assert kit.db.connect() is True
        assert kit.db.connect(reuse_if_open=True) is False
        import peewee

        with pytest.raises(peewee.OperationalError):
            kit.db.connect()
        assert kit.db.close() is True and kit.db.close() is False

    run(work)


def test_introspection_and_migration(run):
    def work(kit):
        import peewee
        from playhouse import migrate
        from playhouse.reflection import generate_models

        assert {"user", "post"} <= set(kit.db.get_tables())
        assert {c.name for c in kit.db.get_columns("user")} == {"id", "name", "score"}
        (key,) = kit.db.get_foreign_keys("post")
        assert (key.column, key.dest_table) == ("author_id", "user")
        kind = migrate.PostgresqlMigrator if kit.postgres else migrate.SqliteMigrator
        migrator = kind(kit.db)
        migrate.migrate(migrator.add_column("user", "age", peewee.IntegerField(null=True)))
        models = generate_models(kit.db)
        models["user"].create(name="x", score=1, age=3)
        assert models["user"].get().age == 3

    run(work)


def test_each_task_has_its_own_connection_and_transaction(run):
    async def work(kit):
        seen = set()
        first, others = asyncio.Event(), asyncio.Event()

        async def one():
            kit.db.connect(reuse_if_open=True)
            with kit.db.atomic() if kit.postgres else contextlib.nullcontext():
                seen.add(id(kit.db.connection()))
                depth = kit.db.transaction_depth()
                first.set()
                await others.wait()
                assert kit.db.transaction_depth() == depth
            return kit.db.connection()

        async def child():
            await first.wait()
            assert not kit.db.in_transaction()
            kit.db.connect(reuse_if_open=True)
            seen.add(id(kit.db.connection()))
            others.set()
            return kit.db.connection()

        held = await asyncio.gather(one(), child())
        assert len(seen) == 2
        return held

    run(work)


def test_children_do_not_see_the_parents_transaction(run):
    async def work(kit):
        if not kit.postgres:
            return  # an open write transaction locks the whole of SQLite

        async def child():
            return kit.User.select().count()

        with kit.db.atomic():
            kit.User.create(name="uncommitted")
            assert kit.User.select().count() == 1
            assert await asyncio.create_task(child()) == 0
        assert await asyncio.create_task(child()) == 1

    run(work)


def test_many_tasks_at_once(run):
    async def work(kit):
        def one(n):
            with kit.db.atomic("IMMEDIATE") if not kit.postgres else kit.db.atomic():
                user = kit.User.create(name=f"u{n}")
                kit.Post.create(author=user, text="x")
                kit.sleep(0.01)
            return user.posts.count()

        assert await gather([(one, n) for n in range(40)]) == [1] * 40
        assert kit.User.select().count() == 40

    run(work)


def test_queries_overlap(run):
    async def work(kit):
        if not kit.postgres:
            return
        begin = time.monotonic()
        await gather([(kit.sleep, 0.2)] * 12)
        assert time.monotonic() - begin < 12 * 0.2 * 0.8

    run(work)


def test_on_uvloop(run):
    uvloop = import_or_skip("uvloop")

    async def work(kit):
        def one(n):
            return kit.User.create(name=f"u{n}").id

        assert len(set(await gather([(one, n) for n in range(12)]))) == 12

    run(work, loop_factory=uvloop.new_event_loop)


def connections_of(kit, database):
    return int(
        database.sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )[0]
    )


def test_what_a_task_leaves_open_is_closed_or_given_back(run, request):
    async def work(kit):
        def leave():
            kit.db.connect(reuse_if_open=True)
            kit.User.select().count()

        for _ in range(5):
            await gather([(leave,)] * 5)
        await asyncio.sleep(0.05)
        if hasattr(kit.db, "_in_use"):
            await gather([(leave,)])
            async with asyncio.timeout(10):
                while kit.db._in_use:
                    await asyncio.sleep(0.01)
            assert 1 <= len(kit.db._connections) <= 6
        elif kit.postgres:
            database = request.getfixturevalue("database")
            deadline = time.monotonic() + 10
            while connections_of(kit, database):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    run(work)


def test_a_task_that_ends_in_a_transaction_loses_it(run):
    async def work(kit):
        def leave(n):
            kit.db.connect(reuse_if_open=True)
            kit.db.begin() if kit.postgres else kit.db.begin("IMMEDIATE")
            kit.User.create(name=f"never{n}")

        for n in range(3):
            await gather([(leave, n)])
            await asyncio.sleep(0.02)

        def count():
            return kit.User.select().count()

        async with asyncio.timeout(20):
            assert await gather([(count,)] * 8) == [0] * 8

    run(work)


def test_cancelled_tasks_leave_nothing_behind(run):
    rng = random.Random(11)

    async def work(kit):
        def one(n):
            with kit.db.atomic("IMMEDIATE") if not kit.postgres else kit.db.atomic():
                user = kit.User.create(name=f"{n}")
                kit.Post.create(author=user, text="x")
                kit.sleep(0.001)
            return True

        async def task(n):
            return one(n)

        cancelled = finished = 0
        for round_ in itertools.count():
            tasks = [asyncio.create_task(task(f"{round_}.{n}")) for n in range(8)]
            for each in tasks:
                asyncio.get_running_loop().call_later(rng.expovariate(1 / 0.03), each.cancel)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, asyncio.CancelledError):
                    cancelled += 1
                else:
                    assert result is True, repr(result)
                    finished += 1
            if round_ >= 24 and cancelled > 20:  # the faster the machine, the fewer
                break
        assert kit.User.select().count() == kit.Post.select().count() >= finished
        async with asyncio.timeout(30):
            assert all(await gather([(one, f"after{n}") for n in range(12)]))
        assert not kit.db.in_transaction()

    run(work)


def test_pool_limits_and_waits(run):
    async def work(kit):
        if not hasattr(kit.db, "_in_use"):
            return
        from playhouse.pool import MaxConnectionsExceeded

        kit.db.close()
        most = 0

        def use():
            nonlocal most
            with kit.db.connection_context():
                most = max(most, len(kit.db._in_use))
                kit.User.select().count()
                kit.sleep(0.01)

        async with asyncio.timeout(60):
            await gather([(use,)] * 30)
        assert 2 <= most <= 6
        kit.db._wait_timeout = 0.05
        release = asyncio.Event()

        async def hold():
            with kit.db.connection_context():
                await release.wait()

        holders = [asyncio.create_task(hold()) for _ in range(6)]
        await asyncio.sleep(0.3)
        with pytest.raises(MaxConnectionsExceeded):
            kit.db.connect()
        release.set()
        await asyncio.gather(*holders)
        kit.db._wait_timeout = 10
        kit.db.connect()
        kit.db.manual_close()
        assert kit.db.is_closed() and not kit.db._in_use
        kit.db.close_idle()
        assert kit.db._connections == []

    run(work)


def test_functions_in_sqlite_and_server_side_cursors_in_postgres(run):
    def work(kit):
        import peewee

        if kit.postgres:
            kit.User.insert_many([{"name": str(n)} for n in range(3000)]).execute()
            from playhouse.postgres_ext import ServerSide

            with kit.db.atomic():
                assert sum(1 for _ in ServerSide(kit.User.select())) == 3000
            return

        if hasattr(kit.db, "close_idle"):
            kit.db.close_idle()  # Peewee registers functions on connections that come

        @kit.db.func("double")
        def double(n):
            return 2 * n

        @kit.db.aggregate("product")
        class Product:
            def __init__(self):
                self.value = 1

            def step(self, n):
                self.value *= n

            def finalize(self):
                return self.value

        kit.User.insert_many([{"name": str(n), "score": n} for n in range(1, 5)]).execute()
        assert kit.User.select(peewee.fn.double(21)).limit(1).scalar() == 42
        assert kit.User.select(peewee.fn.product(kit.User.score)).scalar() == 24

    run(work)


def test_threads_without_a_loop_block_as_peewee_does(kit):
    kit.db.create_tables([kit.User, kit.Post])
    names = []

    def thread(n):
        kind = () if kit.postgres else ("IMMEDIATE",)
        with kit.db.connection_context(), kit.db.atomic(*kind):
            names.append(kit.User.create(name=f"t{n}").name)

    threads = [threading.Thread(target=thread, args=(n,)) for n in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert kit.User.select().count() == 5 == len(names)
    if hasattr(kit.db, "close_all"):
        kit.db.close_all()
    kit.db.close()


def test_loop_and_threads_together(run, fb):
    async def work(kit):
        if not kit.postgres:
            return

        def one(n):
            with kit.db.connection_context(), kit.db.atomic():
                kit.User.create(name=f"x{n}")

        async with asyncio.timeout(60):
            await asyncio.gather(
                *(asyncio.to_thread(one, n) for n in range(5)),
                gather([(one, n) for n in range(5, 20)]),
            )
        assert kit.User.select().count() == 20

    run(work)
