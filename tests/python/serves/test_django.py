"""fiberback.django: Django's sync ORM in async code, on PostgreSQL.

test_django_suite.py runs Django's own tests; here is what Django cannot test: many tasks, ASGI
requests, cancellation, and where connections begin and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time

import pytest
from asgi_request import request
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]


@pytest.fixture(scope="session")  # Django's settings are the process's
def _configured(postgres):
    import_or_skip("django")
    import_or_skip("psycopg")
    import django_project

    database = postgres.create_database()
    django_project.configure(postgres.host, database.name)
    from django.core.management import call_command
    from django.db import connection, connections

    call_command("migrate", verbosity=0)  # where no loop runs
    with connection.schema_editor() as editor:
        editor.create_model(django_project.Item)
        editor.create_model(django_project.Line)
    connection.close()
    with connections["lite"].schema_editor() as editor:
        editor.create_model(django_project.Item)
        editor.create_model(django_project.Line)
    connections["lite"].close()
    django_project.database = database
    return django_project


@pytest.fixture
def project(_configured):
    project = _configured
    project.database.sql("TRUNCATE shop_item, shop_line RESTART IDENTITY")
    project.threads.clear()
    yield project
    from django.db import connections

    connections.close_all()


def backends(project):
    """How many connections the server has, those of open pools left out."""
    return int(
        project.database.sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )[0]
    )


async def until_no_backends(project, but=0):
    async with asyncio.timeout(10):
        while backends(project) > but:
            await asyncio.sleep(0.02)


def gather(fb, calls):
    return asyncio.gather(*(fb.with_portal_run_sync(*call) for call in calls))


# The ORM in tasks


def test_the_sync_orm_in_a_task(fb, aio, project):
    Item, Line = project.Item, project.Line

    async def main():
        from django.db import IntegrityError, models, transaction

        await fb.ensure_portal()
        book = Item.objects.create(name="book", stock=3)
        Item.objects.bulk_create(Item(name=f"i{n}", stock=n) for n in range(2500))
        assert Item.objects.filter(stock__gt=2490).count() == 9
        assert Item.objects.aggregate(models.Sum("stock"))["stock__sum"] == 3 + 2500 * 2499 // 2
        Line.objects.create(item=book, count=2)
        line = Line.objects.get()
        assert line.item == book  # a lazy load
        assert [entry.count for entry in book.lines.all()] == [2]
        (found,) = Item.objects.filter(lines__count=2).prefetch_related("lines")
        assert len(found.lines.all()) == 1
        with pytest.raises(Item.DoesNotExist):
            Item.objects.get(name="nothing")
        with pytest.raises(IntegrityError), transaction.atomic():
            Item.objects.create(name="book")
        Item.objects.filter(pk=book.pk).update(stock=models.F("stock") + 1)
        book.refresh_from_db()
        assert book.stock == 4
        assert Item.objects.filter(name__startswith="i").delete()[0] == 2500
        assert Item.objects.raw("SELECT * FROM shop_item")[0].name == "book"

    aio.run(main)


def test_atomic_savepoints_and_on_commit(fb, aio, project):
    Item = project.Item

    def work():
        from django.db import connection, transaction

        seen = []
        with transaction.atomic():
            Item.objects.create(name="a")
            transaction.on_commit(lambda: seen.append(Item.objects.count()))
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                Item.objects.create(name="b")
                transaction.on_commit(lambda: seen.append("never"))
                raise ZeroDivisionError
            point = transaction.savepoint()
            Item.objects.create(name="c")
            transaction.savepoint_rollback(point)
            assert connection.in_atomic_block and seen == []
        assert seen == [1]
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="d")
            raise ZeroDivisionError
        with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
            with contextlib.suppress(Exception), transaction.atomic(savepoint=False):
                Item.objects.create(name="a")
            Item.objects.count()
        assert [item.name for item in Item.objects.all()] == ["a"]

    async def main():
        await fb.with_portal_run_sync(work)

    aio.run(main)


def test_each_task_has_its_own_connection_and_transaction(fb, project):
    async def main():
        from django.db import connection, connections, transaction

        async def child():
            assert not connection.in_atomic_block
            return id(connections["default"]), project.Item.objects.count()

        with transaction.atomic():
            project.Item.objects.create(name="uncommitted")
            mine = id(connections["default"])
            ((one, n), (two, m)) = await asyncio.gather(child(), child())
            assert len({mine, one, two}) == 3 and n == m == 0
            assert connection.in_atomic_block and project.Item.objects.count() == 1
        assert (await asyncio.create_task(child()))[1] == 1
        assert connections.all(initialized_only=True) == [connections["default"]]
        await until_no_backends(project, but=1)
        connections.close_all()
        await until_no_backends(project)

    fb.run(main())


def test_select_for_update_waits_without_stopping_the_loop(fb, aio, project):
    Item = project.Item

    async def main():
        from django.db import transaction

        def sell():
            with transaction.atomic():
                item = Item.objects.select_for_update().get(name="book")
                fb.await_(asyncio.sleep(0.002))  # the others want it, too
                item.stock -= 1
                item.save()

        await fb.with_portal_run_sync(Item.objects.create, name="book", stock=100)
        ticks = 0

        async def ticker():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.ensure_future(ticker())
        await gather(fb, [(sell,)] * 20)
        ticking.cancel()
        assert ticks > 10
        item = await fb.with_portal_run_sync(Item.objects.get, name="book")
        assert item.stock == 80

    aio.run(main)


def test_server_side_cursors_of_many_tasks(fb, project):
    Item = project.Item

    def read(n):
        from django.db import transaction

        with transaction.atomic() if n % 2 else contextlib.nullcontext():
            names = [item.stock for item in Item.objects.order_by("stock").iterator(chunk_size=50)]
        return names == list(range(500))

    async def main():
        Item.objects.bulk_create(Item(name=str(n), stock=n) for n in range(500))
        assert all(await gather(fb, [(read, n) for n in range(12)]))
        iterator = Item.objects.iterator(chunk_size=10)
        next(iterator)
        iterator.close()

    fb.run(main())


def test_threads_keep_connections_of_their_own(fb, project):
    async def main():
        from asgiref.sync import sync_to_async
        from django.db import connections, transaction

        def count():
            assert threading.current_thread() is not threading.main_thread()
            try:
                return project.Item.objects.count()
            finally:
                connections.close_all()

        with transaction.atomic():
            project.Item.objects.create(name="uncommitted")
            counts = await asyncio.gather(
                asyncio.to_thread(count), sync_to_async(count)(), asyncio.to_thread(count)
            )
        assert counts == [0, 0, 0]

    fb.run(main())


def test_waits_without_a_portal_or_is_refused_where_it_would_block(aio, project):
    from django.core.exceptions import SynchronousOnlyOperation

    async def main():
        import fiberback

        if aio.name == "uvloop":  # which cannot be entered again
            with pytest.raises(SynchronousOnlyOperation, match="fiberback.django.PortalMiddleware"):
                project.Item.objects.count()
        else:
            assert project.Item.objects.count() == 0
        assert await fiberback.with_portal_run_sync(project.Item.objects.count) == 0
        await fiberback.ensure_portal()
        assert project.Item.objects.count() == 0

    aio.run(main)


def test_a_blocking_backend_beside_ours_is_still_refused(fb, project, tmp_path):
    from django.core.exceptions import SynchronousOnlyOperation
    from django.db.backends.sqlite3.base import DatabaseWrapper

    async def main():
        from django.db import connection, connections

        settings = {**connections["default"].settings_dict, "NAME": str(tmp_path / "db")}
        other = DatabaseWrapper({**settings, "ENGINE": "django.db.backends.sqlite3"}, "other")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            with pytest.raises(SynchronousOnlyOperation):
                other.cursor()

    fb.run(main())


def test_migrations_and_test_databases_in_a_task(fb, project):
    def work():
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", "auth", "zero", verbosity=0)
        assert "auth_user" not in connection.introspection.table_names()
        call_command("migrate", verbosity=0)
        assert "auth_user" in connection.introspection.table_names()
        call_command("check", databases=["default"])
        name = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, serialize=False)
        try:
            assert connection.settings_dict["NAME"] == f"test_{name}"
            assert "auth_user" in connection.introspection.table_names()
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)

    async def main():
        await fb.with_portal_run_sync(work)

    fb.run(main())


# Requests


@pytest.mark.parametrize("using", ["default", "pooled", "aged"])
def test_fifty_asgi_requests_overlap_on_one_thread(aio, project, using):
    """Under a loop that knows nothing of us, as an ASGI server's."""
    from fiberback.django import get_asgi_application

    application = get_asgi_application()
    loaded_pools = threading.active_count()

    async def main():
        from django.db import connections

        begin = time.monotonic()
        paths = [f"/slow/?name=n{n}&using={using}" for n in range(50)]
        answers = await asyncio.gather(*(request(application, path) for path in paths))
        taken = time.monotonic() - begin
        for status, headers, body in answers:
            assert status == 200, body
            assert headers["x-sync-middleware"] == "yes"
            assert json.loads(body)["threads"] == loaded_pools
        if using == "pooled":
            pool = await in_portal(lambda: connections["pooled"].pool)
            async with asyncio.timeout(10):
                while pool.get_stats()["pool_available"] != pool.get_stats()["pool_size"]:
                    await asyncio.sleep(0.01)
            assert len({json.loads(body)["pid"] for _, _, body in answers}) <= 8
            await in_portal(connections["pooled"].close_pool)
        await until_no_backends(project)
        return taken

    async def in_portal(fn):
        import fiberback

        return await fiberback.with_portal_run_sync(fn)

    assert aio.run(main) < 50 * 0.1 * 0.9
    assert project.threads == {threading.get_ident()}
    assert threading.active_count() == loaded_pools
    assert project.database.sql("SELECT count(*) FROM shop_item") == ["50"]


def test_sync_views_async_orm_children_streams_and_errors(project):
    from fiberback.django import get_asgi_application

    application = get_asgi_application()
    project.database.sql("INSERT INTO shop_item (name, stock) VALUES ('a', 1), ('b', 1), ('c', 1)")
    threads = threading.active_count()

    async def main():
        status, _, body = await request(application, "/sync/")
        assert (status, json.loads(body)) == (200, {"count": 3, "threads": threads})
        status, _, body = await request(application, "/children/")
        assert (status, json.loads(body)) == (200, {"counts": [0, 0]})
        status, _, body = await request(application, "/async_orm/")
        assert (status, json.loads(body)) == (200, {"counts": [1, 1], "threads": threads})
        status, _, body = await request(application, "/stream/")
        assert (status, body) == (200, b"a,b,c,")
        status, _, body = await request(application, "/nowhere/")
        assert status == 404
        status, _, body = await request(application, "/boom/")
        assert status == 500
        await until_no_backends(project)

    asyncio.run(main())
    assert project.database.sql("SELECT count(*) FROM shop_item") == ["3"]
    assert project.threads == {threading.get_ident()}


def test_a_client_that_goes_away_cancels_the_view_and_its_query(project):
    from fiberback.django import get_asgi_application

    application = get_asgi_application()

    async def main():
        await asyncio.gather(
            *(request(application, f"/slow/?name=n{n}", disconnect_after=0.04) for n in range(20))
        )
        await until_no_backends(project)
        status, _, _ = await request(application, "/slow/?name=last")
        assert status == 200

    asyncio.run(main())
    names = project.database.sql("SELECT name FROM shop_item")
    assert "last" in names and len(names) < 21


def test_djangos_own_application_with_the_middleware(aio, project):
    from django.core.asgi import get_asgi_application
    from django.test import override_settings

    middleware = ["fiberback.django.PortalMiddleware", "django_project.both_middleware"]
    with override_settings(MIDDLEWARE=middleware):
        application = get_asgi_application()

    async def main():
        begin = time.monotonic()
        paths = [f"/slow/?name=n{n}" for n in range(50)]
        answers = await asyncio.gather(*(request(application, path) for path in paths))
        assert time.monotonic() - begin < 50 * 0.1 * 0.9
        assert {status for status, _, _ in answers} == {200}
        await until_no_backends(project)

    aio.run(main)
    assert project.threads == {threading.get_ident()}  # the views'


def test_async_client(fb, aio, project):
    from django.test import AsyncClient, override_settings

    async def one(n):
        response = await AsyncClient().get(f"/slow/?name=n{n}")
        return response.status_code

    async def main():
        begin = time.monotonic()
        calls = [fb.with_portal_run(one, n) for n in range(50)]
        assert await asyncio.gather(*calls) == [200] * 50
        assert time.monotonic() - begin < 50 * 0.1 * 0.9
        await until_no_backends(project)

    with override_settings(MIDDLEWARE=["django_project.both_middleware"]):
        aio.run(main)
    assert project.threads == {threading.get_ident()}


def test_request_signals_close_the_tasks_connection(fb, project):
    async def main():
        from django.core import signals
        from django.db import close_old_connections, connection, transaction

        project.Item.objects.count()
        assert connection.connection is not None
        signals.request_started.send(sender=None)
        signals.request_finished.send(sender=None)
        assert connection.connection is None
        with transaction.atomic():
            project.Item.objects.count()
            close_old_connections()  # not in a transaction
            assert connection.connection is not None
        close_old_connections()
        assert connection.connection is None
        await until_no_backends(project)

    fb.run(main())


# Cancellation


@pytest.mark.parametrize("using", ["default", "pooled"])
def test_500_cancels_at_random_points(fb, project, using):
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    Item, Line = project.Item, project.Line

    def work(n):
        from django.db import connections, transaction

        assert not connections[using].in_atomic_block, seed
        assert connections[using].get_autocommit(), seed
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors")
            assert cursor.fetchone() == (0,), seed
        with transaction.atomic(using):
            item = Item.objects.using(using).create(name=str(n))
            with contextlib.suppress(ZeroDivisionError), transaction.atomic(using):
                Item.objects.using(using).create(name=f"never {n}")
                raise ZeroDivisionError
            Line.objects.using(using).create(item=item, count=n)
        rows = list(Item.objects.using(using).order_by("pk").iterator(chunk_size=5))
        assert item in rows, seed
        connections[using].close()
        return n

    async def main():
        from django.db import InterfaceError, OperationalError, connections

        loop = asyncio.get_running_loop()
        numbers = iter(range(1 << 30))
        finished = cancelled = 0
        while cancelled < 500:
            tasks = [
                asyncio.create_task(fb.with_portal_run_sync(work, next(numbers))) for _ in range(12)
            ]
            for task in tasks[1:]:  # one is not, for contrast, however busy the machine is
                loop.call_later(rng.expovariate(1 / 0.08), task.cancel)
                if rng.random() < 0.2:
                    loop.call_later(rng.expovariate(1 / 0.08), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for task, result in zip(tasks, results, strict=True):
                if isinstance(result, int):
                    finished += 1
                else:
                    # Cleaning up after a second cancellation meets a closed connection.
                    closed = isinstance(result, (OperationalError, InterfaceError))
                    closed = closed and task.cancelling()
                    assert closed or isinstance(result, asyncio.CancelledError), (seed, result)
                    cancelled += 1
        assert finished, "all were cancelled: the test has no contrast"
        async with asyncio.timeout(30):
            await gather(fb, [(work, next(numbers)) for _ in range(40)])
        assert Item.objects.filter(name__startswith="never").count() == 0, seed
        assert Item.objects.filter(lines=None).count() == 0, seed
        connections.close_all()
        if using == "pooled":
            pool = connections["pooled"].pool
            async with asyncio.timeout(20):
                while pool.get_stats()["pool_available"] != pool.get_stats()["pool_size"]:
                    await asyncio.sleep(0.01)
            assert pool.get_stats()["pool_size"] <= 8
            connections["pooled"].close_pool()
        await until_no_backends(project)

    fb.run(main())


# Several databases


def test_a_database_that_blocks_beside_one_that_waits(fb, aio, project):
    import fiberback.django

    Item = project.Item
    fiberback.django.in_thread(Item.objects.using("lite").all().delete)  # no loop: the plain call

    async def main():
        application = fiberback.django.get_asgi_application()
        paths = [f"/two/?name=n{n}" for n in range(5)]
        answers = await asyncio.gather(*(request(application, path) for path in paths))
        loop_thread, threads, counts = threading.get_ident(), set(), set()
        for status, _, body in answers:
            assert status == 200, body
            answer = json.loads(body)
            count, thread, again = answer["found"]
            assert thread == again != loop_thread  # a task's own
            threads.add(thread)
            counts.add(count)
            assert len(answer["refused"]) == 2
            assert all("fiberback.django.in_thread" in text for text in answer["refused"])
        assert counts == {1, 2, 3, 4, 5} and len(threads) > 1
        assert await fb.with_portal_run_sync(Item.objects.count) == 5

    aio.run(main)
    assert Item.objects.using("lite").count() == 5


def test_transactions_and_errors_in_the_tasks_thread(fb, aio, project):
    from django.db import IntegrityError, transaction
    from fiberback.django import in_thread

    Item = project.Item
    lite = Item.objects.using("lite")
    lite.all().delete()

    def fails():
        with transaction.atomic("lite"):
            lite.create(name="a")
            lite.create(name="a")

    def work():
        with transaction.atomic():
            Item.objects.create(name="kept out")
            with pytest.raises(IntegrityError):
                in_thread(fails)
            assert in_thread(lite.count) == 0
            assert in_thread(lambda: fb.await_(asyncio.sleep(0.001, 3))) == 3
            transaction.set_rollback(True)
        assert Item.objects.count() == 0
        in_thread(lite.create, name="b")

    async def main():
        before = threading.active_count()
        if aio.name == "uvloop":  # where it cannot wait, it has not run in the thread either
            with pytest.raises(RuntimeError, match="fiberback:loop-no-portal"):
                in_thread(lite.create, name="refused")
        await asyncio.gather(*(fb.with_portal_run_sync(work) for _ in range(1)))
        await asyncio.create_task(fb.with_portal_run_sync(in_thread, lite.count))
        async with asyncio.timeout(10):
            while threading.active_count() > before:
                await asyncio.sleep(0.01)

    aio.run(main)
    assert [item.name for item in lite.all()] == ["b"]
