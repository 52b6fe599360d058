"""What the worker's options and settings have the pool do: autoscaling and prefetching."""

# ruff: noqa: E402

from __future__ import annotations

import pytest
from support import import_or_skip, only_fiberback

celery = import_or_skip("celery")
import_or_skip("redis")

from celery.app.defaults import NAMESPACES, flatten
from celery_worker import client, running, send, until

pytestmark = [only_fiberback, pytest.mark.slow, pytest.mark.time_limit(200)]


@pytest.fixture
def environ(redis_server):
    import redis

    with redis.Redis(unix_socket_path=redis_server.socket) as connection:
        connection.flushall()
    return {"CELERY_TEST_BROKER": redis_server.url(0), "CELERY_TEST_RESULTS": redis_server.url(1)}


def test_autoscaling(environ, tmp_path):
    """Ten wait for each other where two may begin, until the pool has grown. Idle, it shrinks again."""
    soon = {**environ, "AUTOSCALE_KEEPALIVE": "1"}
    with (
        client(environ) as app,
        running(tmp_path / "log", "--autoscale=10,2", environ=soon) as worker,
    ):

        def size():
            (stats,) = app.control.inspect(timeout=60, limit=1).stats().values()
            return stats["pool"]["max-concurrency"]

        assert size() == 2
        results = [send(app, "waits_for_others", "all", 10) for _ in range(10)]
        assert len({result.get(timeout=60) for result in results}) == 1
        until(lambda: size() == 2, worker)
        assert worker.end() == 0, worker.said()


@pytest.mark.parametrize(
    ("prefetch", "option", "fetched"),
    [("2", "--hostname=one@%h", 6), ("4", "--disable-prefetch", 3)],
)
def test_prefetching(environ, redis_server, tmp_path, prefetch, option, fetched):
    """Three may begin. With late acknowledgement that many times the multiplier are the worker's, or three if nothing is to
    be fetched ahead; the broker keeps the others for other workers."""
    import redis

    if option == "--disable-prefetch" and "worker_disable_prefetch" not in dict(
        flatten(NAMESPACES)
    ):
        pytest.skip(f"Celery {celery.__version__} has no {option}")
    late = {**environ, "CELERY_TEST_ACKS_LATE": "1", "CELERY_TEST_PREFETCH": prefetch}
    goes_on = tmp_path / "goes on"
    with (
        redis.Redis(unix_socket_path=redis_server.socket) as broker,
        client(environ) as app,
    ):
        results = [send(app, "waits_for_file", str(goes_on)) for _ in range(10)]
        with running(tmp_path / "log", "-c", "3", option, environ=late) as worker:
            until(lambda: broker.hlen("unacked") == fetched, worker)
            for _ in range(3):
                assert app.control.ping(timeout=60, limit=1)
            assert (broker.hlen("unacked"), broker.llen("celery")) == (fetched, 10 - fetched)
            goes_on.touch()
            assert [result.get(timeout=60) for result in results] == [None] * 10
            assert worker.end() == 0, worker.said()
