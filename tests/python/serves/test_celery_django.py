"""Celery's Django fix-ups on fiberback's pool: each task has connections of its own, which end with it."""

# ruff: noqa: E402

from __future__ import annotations

import pytest
from support import import_or_skip, only_fiberback

import_or_skip("celery")
import_or_skip("redis")
import_or_skip("django")
import_or_skip("psycopg")

from celery_worker import client, running, until

pytestmark = [only_fiberback, pytest.mark.slow, pytest.mark.time_limit(300)]
COUNT = 20


def send(app, task, *args):
    return app.send_task(f"celery_django.{task}", args)


def values(results):
    return [result.get(timeout=60) for result in results]


@pytest.mark.parametrize("max_age", [0, 600])
def test_connections_are_the_tasks(redis_server, database, tmp_path, max_age):
    database.sql("CREATE TABLE noted (n integer PRIMARY KEY)")

    def connections():
        (count,) = database.sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(count)

    environ = {
        "CELERY_TEST_BROKER": redis_server.url(0),
        "CELERY_TEST_RESULTS": redis_server.url(1),
        "CELERY_TEST_POSTGRES": database.cluster.host,
        "CELERY_TEST_DATABASE": database.name,
        "CELERY_TEST_MAX_AGE": str(max_age),
        "DJANGO_SETTINGS_MODULE": "celery_django",
    }
    with (
        client(environ) as app,
        running(tmp_path / "log", "-c", "50", environ=environ, app="celery_django") as worker,
    ):
        found = values([send(app, "writes", "all", COUNT, n) for n in range(COUNT)])
        assert len({before for before, _, _ in found}) == COUNT
        assert [after for _, after, _ in found] == [before for before, _, _ in found]
        assert [visible for _, _, visible in found] == [1] * COUNT
        until(lambda: connections() == 0, worker)

        for n in range(COUNT, 5 * COUNT):  # one after the other: nothing piles up
            assert send(app, "writes", f"alone {n}", 1, n).get(timeout=60)[2] == n + 1
        until(lambda: connections() == 0, worker)

        with pytest.raises(LookupError):
            send(app, "fails_in_a_transaction", -1).get(timeout=60)
        assert values([send(app, "writes_in_a_thread", n) for n in (-3, -2)]) == [-3, -2]
        assert database.sql("SELECT n FROM noted WHERE n < 0 ORDER BY n") == ["-3", "-2"]
        until(lambda: connections() == 0, worker)

        value, thread = send(app, "blocks_in_a_thread").get(timeout=60)
        assert value == 3 and thread.startswith("fiberback.celery_")
        with pytest.raises(Exception, match=r"\[fiberback:django-blocks\]"):
            send(app, "blocks_on_the_loop").get(timeout=60)
        assert worker.end() == 0, worker.said()
