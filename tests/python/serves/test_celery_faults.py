"""Celery's workers on fiberback's pool that are killed, lose their broker, or are shut down in the middle of tasks."""

# ruff: noqa: E402

from __future__ import annotations

import collections
import signal
import time

import pytest
from support import import_or_skip, only_fiberback

celery = import_or_skip("celery")
import_or_skip("redis")

from celery_worker import client, running, send, until

pytestmark = [only_fiberback, pytest.mark.slow]


@pytest.fixture
def environ(redis_server):
    import kombu.pools
    import redis

    kombu.pools.reset()  # their connections are those to a server that a test before has stopped
    with redis.Redis(unix_socket_path=redis_server.socket) as connection:
        connection.flushall()
    return {"CELERY_TEST_BROKER": redis_server.url(0), "CELERY_TEST_RESULTS": redis_server.url(1)}


def lines(path):
    """How often each `begin N` and `end N` was written."""
    return collections.Counter(path.read_text().splitlines() if path.exists() else [])


@pytest.mark.time_limit(400)
def test_a_worker_that_is_killed_with_acks_late(environ, tmp_path):
    """Each of 500 tasks ends: what had not been acknowledged is delivered anew, and what had been is not."""
    notes = tmp_path / "notes"
    late = {**environ, "CELERY_TEST_ACKS_LATE": "1", "CELERY_TEST_VISIBILITY": "3"}
    with client(environ) as app:
        results = [send(app, "note", str(notes), str(n), 0.2) for n in range(500)]
        with running(tmp_path / "first", "-c", "60", environ=late) as worker:
            until(lambda: lines(notes).total() > 400, worker)
            worker.end(signal.SIGKILL)
        finished = {each.id for each in results if each.state == "SUCCESS"}
        assert 0 < len(finished) < 500
        with running(tmp_path / "second", "-c", "500", environ=late) as worker:
            for result in results:
                assert result.get(timeout=200) is None, worker.said()
            assert worker.end() == 0
    ends = lines(notes)
    assert {f"end {n}" for n in range(500)} <= ends.keys()
    # Redis delivers what was unacknowledged once more when the worker is gone; prefork's would be run again, too.
    again = sum(count > 1 for name, count in ends.items() if name.startswith("begin "))
    assert 0 < again < 300


@pytest.mark.time_limit(300)
def test_without_acks_late_what_had_begun_is_lost(environ, tmp_path):
    notes = tmp_path / "notes"
    with client(environ) as app:
        results = [send(app, "note", str(notes), str(n), 60) for n in range(10)]
        with running(tmp_path / "first", "-c", "50", environ=environ) as worker:
            until(lambda: lines(notes).total() == 10, worker)
            # The acknowledgements are with the broker when the worker answers.
            assert app.control.ping(timeout=60, limit=1)
            worker.end(signal.SIGKILL)
        fast = {**environ, "CELERY_TEST_VISIBILITY": "1"}
        with running(tmp_path / "second", "-c", "50", environ=fast) as worker:
            assert send(app, "add", 1, 2).get(timeout=60) == 3
            assert lines(notes) == {f"begin {n}": 1 for n in range(10)}
            assert {result.state for result in results} == {"PENDING"}


@pytest.mark.time_limit(300)
def test_the_broker_restarts_under_load(environ, redis_server, tmp_path):
    """Tasks that run go on while there is none, and their results are there afterwards.

    All have been acknowledged: where messages have not, kombu 5.7's `restore_unacked` has ended the worker by an
    AttributeError, in the consumer's thread, while Redis was away, as it does with prefork (docs/celery.md).
    """
    notes = tmp_path / "notes"
    with client(environ) as app:
        results = [send(app, "note", str(notes), str(n), 4.0) for n in range(40)]
        with running(tmp_path / "log", "-c", "100", environ=environ) as worker:
            until(lambda: lines(notes).total() == 40, worker)
            assert app.control.ping(timeout=60, limit=1)
            redis_server.stop()
            until(lambda: lines(notes).total() == 80, worker)
            redis_server.start()
            for result in results:
                assert result.get(timeout=100) is None, worker.said()
            assert send(app, "add", 1, 2).get(timeout=60) == 3, worker.said()
            assert worker.end() == 0, worker.said()
    assert set(lines(notes).values()) == {1}


@pytest.mark.time_limit(200)
def test_a_warm_shutdown_waits_for_what_has_begun(environ, tmp_path):
    notes = tmp_path / "notes"
    with client(environ) as app:
        results = [send(app, "note", str(notes), str(n), 1.5) for n in range(12)]
        with running(tmp_path / "first", "-c", "5", environ=environ) as worker:
            until(lambda: lines(notes).total() == 5, worker)
            assert worker.end() == 0, worker.said()
        assert sum(name.startswith("end") for name in lines(notes)) == 5
        # The others had been fetched, and were given back.
        with running(tmp_path / "second", "-c", "50", environ=environ) as worker:
            assert [result.get(timeout=60) for result in results] == [None] * 12
            assert worker.end() == 0, worker.said()
    assert set(lines(notes).values()) == {1}


@pytest.mark.time_limit(200)
def test_a_warm_shutdown_acknowledges_what_ends_meanwhile(environ, redis_server, tmp_path):
    """Others still run, and may do so until the worker is killed."""
    import redis
    from celery.concurrency import prefork

    if not hasattr(prefork, "_run_ready_callbacks"):
        pytest.skip(f"Celery {celery.__version__} acknowledges when its pool has ended")
    notes, goes_on = tmp_path / "notes", tmp_path / "goes on"
    late = {**environ, "CELERY_TEST_ACKS_LATE": "1"}
    with (
        redis.Redis(unix_socket_path=redis_server.socket) as broker,
        client(environ) as app,
        running(tmp_path / "log", "-c", "5", environ=late) as worker,
    ):
        last = send(app, "waits_for_file", str(goes_on))
        first = send(app, "note", str(notes), "first", 3.0)
        until(lambda: lines(notes).total() == 1 and broker.hlen("unacked") == 2, worker)
        worker.process.send_signal(signal.SIGTERM)
        assert first.get(timeout=60) is None
        until(lambda: broker.hlen("unacked") == 1, worker)
        goes_on.touch()
        assert last.get(timeout=60) is None
        assert worker.process.wait(60) == 0, worker.said()


@pytest.mark.time_limit(200)
def test_a_cold_shutdown_cancels(environ, tmp_path):
    notes = tmp_path / "notes"
    late = {**environ, "CELERY_TEST_ACKS_LATE": "1"}
    with client(environ) as app:
        results = [send(app, "note", str(notes), str(n), 3600) for n in range(5)]
        with running(tmp_path / "first", "-c", "5", environ=late) as worker:
            until(lambda: lines(notes).total() == 5, worker)
            worker.end(signal.SIGQUIT)
        assert lines(notes) == {f"begin {n}": 1 for n in range(5)}
        # They were not acknowledged, and the broker has them back.
        with running(tmp_path / "second", "-c", "5", environ=late) as worker:
            until(lambda: lines(notes).total() == 10, worker)
            assert lines(notes) == {f"begin {n}": 2 for n in range(5)}
            assert not any(result.ready() for result in results)
            worker.end(signal.SIGQUIT)


@pytest.mark.time_limit(200)
@pytest.mark.parametrize(
    ("task", "says"),
    [("blocks_the_loop", "celery_tasks.py"), ("blocks_a_thread", "blocks a thread")],
)
def test_a_cold_shutdown_ends_although_code_blocks(environ, tmp_path, task, says):
    with client(environ) as app, running(tmp_path / "log", environ=environ) as worker:
        send(app, task, 3600)
        worker.until(says)  # who blocks the loop is named
        worker.end(signal.SIGQUIT)
        assert "[fiberback:celery-left]" in worker.said()


@pytest.mark.time_limit(200)
def test_a_cold_shutdown_in_the_middle_of_a_warm_one(environ, tmp_path):
    with client(environ) as app, running(tmp_path / "log", environ=environ) as worker:
        send(app, "blocks_the_loop", 3600)
        worker.until("celery_tasks.py")
        worker.process.send_signal(signal.SIGTERM)
        worker.until("Warm shutdown")
        worker.end(signal.SIGQUIT)
        assert "[fiberback:celery-left]" in worker.said()


@pytest.mark.time_limit(200)
def test_many_publish_while_there_is_no_broker(environ, redis_server, tmp_path):
    """More than kombu has connections for: those that wait for one do not hold up the others, which have them all."""
    goes_on = tmp_path / "goes on"
    with client(environ) as app, running(tmp_path / "log", "-c", "50", environ=environ) as worker:
        results = [send(app, "publishes", str(goes_on)) for _ in range(30)]
        until(lambda: worker.said().count(" received") == 30, worker)
        assert app.control.ping(timeout=60, limit=1)
        redis_server.stop()
        goes_on.touch()
        until(lambda: worker.said().count("publishes now") == 30, worker)
        redis_server.start()
        assert {result.get(timeout=100) for result in results} <= {"could", "could not"}
        assert worker.end() == 0, worker.said()


@pytest.mark.time_limit(200)
def test_a_revoked_task_that_waits_in_the_pool_does_not_begin(environ, tmp_path):
    notes, goes_on = tmp_path / "notes", tmp_path / "goes on"
    with client(environ) as app:
        with running(tmp_path / "log", "-c", "2", environ=environ) as worker:
            first = [send(app, "waits_for_file", str(goes_on)) for _ in range(2)]
            later = [send(app, "note", str(notes), str(n), 0.0) for n in range(4)]
            until(lambda: worker.said().count(" received") == 6, worker)
            app.control.revoke([each.id for each in later[:2]])
            expires = send(app, "note", str(notes), "expired", 0.0, expires=0.5)
            until(lambda: worker.said().count(" received") == 7, worker)
            time.sleep(0.6)
            # What is said to the worker comes in its order.
            assert app.control.ping(timeout=60, limit=1)
            goes_on.touch()
            assert [each.get(timeout=60) for each in first] == [None] * 2
            assert [each.get(timeout=60) for each in later[2:]] == [None] * 2
            for each in (*later[:2], expires):
                with pytest.raises(celery.exceptions.TaskRevokedError):
                    each.get(timeout=60)
            assert worker.end() == 0, worker.said()
    assert {name.split()[1] for name in lines(notes)} == {"2", "3"}


@pytest.mark.time_limit(200)
def test_a_broker_that_only_blocks(tmp_path):
    """Celery's filesystem broker has no event loop for the worker; results are in SQLite."""
    import_or_skip("sqlalchemy")
    folder = tmp_path / "broker"
    folder.mkdir()
    environ = {
        "CELERY_TEST_BROKER": "filesystem://",
        "CELERY_TEST_FOLDER": str(folder),
        "CELERY_TEST_RESULTS": f"db+sqlite:///{tmp_path}/results.db",
    }
    with client(environ) as app:
        app.conf.broker_transport_options = {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder),
        }
        with running(tmp_path / "log", "-c", "50", environ=environ) as worker:
            results = [send(app, "waits_for_others", "all", 20) for _ in range(20)]
            assert len({result.get(timeout=60) for result in results}) == 1
            assert send(app, "adds_by_others", 2).get(timeout=60) == 3
            assert worker.end() == 0, worker.said()


@pytest.mark.time_limit(600)
def test_memory_stays(environ, tmp_path):
    with client(environ) as app, running(tmp_path / "log", "-c", "100", environ=environ):

        def after(count):
            with app.pool.acquire(block=True) as connection:
                producer = app.amqp.Producer(connection)
                for _ in range(count):
                    send(app, "nothing", producer=producer, ignore_result=True)
            return send(app, "memory").get(timeout=300)

        after(1000)
        settled = after(1000)
        assert after(2000) - settled < 6 << 20
