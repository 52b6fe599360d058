"""Celery's tasks on fiberback's pool: one worker with Redis, and what its users expect of a pool."""

# ruff: noqa: E402

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from support import import_or_skip, only_fiberback

celery = import_or_skip("celery")
import_or_skip("redis")

from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery_worker import client, running, send, until

pytestmark = [only_fiberback, pytest.mark.sampled]


@pytest.fixture(scope="module")
def environ(redis_server):
    return {"CELERY_TEST_BROKER": redis_server.url(0), "CELERY_TEST_RESULTS": redis_server.url(1)}


@pytest.fixture(scope="module")
def worker(environ, tmp_path_factory):
    log = tmp_path_factory.mktemp("celery") / "log"
    with running(log, "-c", "50", environ=environ) as worker:
        yield worker
        assert worker.end() == 0, worker.said()
        for mistake in ("in callback", "of a task's request", "never awaited", "never retrieved"):
            assert mistake not in worker.said(), worker.said()


@pytest.fixture(scope="module")
def app(environ, worker):
    with client(environ) as app:
        yield app


def outcome(result):
    return result.get(timeout=60)


def error(result):
    with pytest.raises(Exception) as raised:
        outcome(result)
    return raised.value


@pytest.mark.parametrize("task", ["waits_for_others", "awaits_others", "blocks_for_others"])
def test_tasks_overlap(app, task):
    """Each waits until all have come. Those that wait do so in one thread, those that block have their own."""
    results = [send(app, task, task, 20) for _ in range(20)]
    threads = {outcome(result) for result in results}
    assert len(threads) == (20 if task == "blocks_for_others" else 1)


def test_each_has_its_own_current_task_and_children_have_their_parents(app):
    results = [send(app, "who", "who", 5) for _ in range(5)]
    for result in results:
        # The task, its two children, a thread, and what `task_prerun` was told and saw.
        assert outcome(result) == [result.id] * 6


def test_get_in_a_task_suspends_it(app):
    """All of them wait for others, on the same loop."""
    assert [outcome(send(app, "adds_by_others", 3)) for _ in range(2)] == [6, 6]


def test_a_task_called_as_a_function_is_one(app):
    assert outcome(send(app, "calls_another")) == [3, 7]


def test_chains_groups_chords_and_maps(app):
    def add(*args):
        return app.signature("celery_tasks.add", args)

    total = app.signature("celery_tasks.total")
    assert outcome(chain(add(1, 2), add(3), add(4), app=app).apply_async()) == 10
    assert outcome(group([add(n, n) for n in range(4)], app=app).apply_async()) == [0, 2, 4, 6]
    assert outcome(chord([add(n, n) for n in range(4)], app=app)(total)) == 12
    starmap = app.signature(
        "celery.starmap", kwargs={"task": add().clone(), "it": [(1, 2), (3, 4)]}
    )
    assert outcome(starmap.apply_async()) == [3, 7]


def test_retries_and_errors_of_what_is_awaited(app):
    assert outcome(send(app, "fails_at_first")) == 2
    raised = error(send(app, "raises"))
    assert isinstance(raised, LookupError) and raised.args == ("nothing there",)


def test_a_soft_limit_is_raised_where_the_task_waits(app):
    assert outcome(send(app, "has_a_soft_limit", "soft 1", True)) == "cleaned up 0"
    assert isinstance(error(send(app, "has_a_soft_limit", "soft 2", False)), SoftTimeLimitExceeded)
    assert outcome(send(app, "awaits_with_a_soft_limit", "soft 3")) == "SoftTimeLimitExceeded"
    assert isinstance(error(send(app, "thread_has_a_soft_limit", "soft 4")), SoftTimeLimitExceeded)


def test_a_hard_limit_ends_the_task(app):
    assert isinstance(error(send(app, "has_a_limit", "hard")), TimeLimitExceeded)
    assert outcome(send(app, "how_it_ended", "hard")) == [2, "CancelledError"]


@pytest.mark.parametrize("task", ["goes_on_until_ended", "swallows"])
def test_revoke_terminates(app, worker, task):
    result = send(app, task, task)
    until(lambda: outcome(send(app, "how_it_ended", task))[0], worker)
    active = app.control.inspect(timeout=60, limit=1).active()
    # Others may have their results, and not be off the worker's books yet.
    assert result.id in [each["id"] for tasks in active.values() for each in tasks]
    result.revoke(terminate=True)
    assert isinstance(error(result), TaskRevokedError)
    until(lambda: outcome(send(app, "how_it_ended", task))[1], worker)
    # What it goes on to return is not its outcome.
    assert outcome(send(app, "add", 1, 2)) == 3
    assert app.AsyncResult(result.id).state == "REVOKED"


def test_what_exits_has_lost_the_worker_but_has_not(app):
    assert re.match(r"SystemExit\(3", str(error(send(app, "exits"))))
    assert outcome(send(app, "add", 1, 2)) == 3


def signals_of(app, worker, result):
    """All that was sent, up to the last of them: results are there before that."""
    found = []

    def is_over():
        found[:] = map(tuple, outcome(send(app, "signals_of", result.id)))
        return any(name == "postrun" for name, *_ in found)

    until(is_over, worker)
    return found


@pytest.mark.parametrize("task", ["waits_for_others", "awaits_others", "blocks_for_others"])
def test_signals_are_sent_in_the_context_of_their_task(app, worker, task):
    """As Sentry and OpenTelemetry need it: what one receiver sets in a context variable the later ones see, and no
    receiver for another task, though those run in the same thread."""
    results = [send(app, task, f"signals {task}", 5) for _ in range(5)]
    for result in results:
        outcome(result)
    for result in results:
        me = result.id, f"celery_tasks.{task}"
        assert signals_of(app, worker, result) == [
            ("prerun", *me, None),
            ("success", *me, result.id),
            ("postrun", *me, result.id),
        ]


def test_what_a_receiver_sets_the_task_sees(app):
    results = [send(app, "sees_what_was_set", "variables", 5) for _ in range(5)]
    for result in results:
        assert outcome(result) == [result.id] * 3


def test_signals_of_failures_and_retries(app, worker):
    def names(result):
        return [name for name, *_ in signals_of(app, worker, result)]

    failing, again = send(app, "raises"), send(app, "fails_at_first")
    error(failing)
    assert names(failing) == ["prerun", "failure", "postrun"]
    assert outcome(again) == 2
    until(lambda: names(again).count("postrun") == 3, worker)
    once = ["prerun", "retry", "postrun"]
    assert names(again) == [*once, *once, "prerun", "success", "postrun"]


def test_the_signal_of_a_revoked_task(app, worker):
    result = send(app, "goes_on_until_ended", "signal")
    until(lambda: outcome(send(app, "how_it_ended", "signal"))[0], worker)
    result.revoke(terminate=True)
    assert isinstance(error(result), TaskRevokedError)
    names = [name for name, *_ in signals_of(app, worker, result)]
    assert names[0] == "prerun" and sorted(names[1:]) == ["postrun", "revoked"]


def test_a_countdown(app, worker):
    """One is there in time, one waits for an hour, and the worker says so."""
    begin = time.time()
    soon = send(app, "now", countdown=0.5)
    later = send(app, "now", countdown=3600)

    def scheduled():
        (tasks,) = app.control.inspect(timeout=60, limit=1).scheduled().values()
        return [each["request"]["id"] for each in tasks]

    until(lambda: later.id in scheduled(), worker)
    assert outcome(soon) > begin + 0.4
    assert soon.id not in scheduled() and later.state == "PENDING"


def test_a_rate_limit(app, worker):
    """The second within the hour has come to the worker, and does not begin."""
    first, second = send(app, "once_an_hour"), send(app, "once_an_hour")
    assert outcome(first) is None
    until(lambda: f"once_an_hour[{second.id}] received" in worker.said(), worker)
    assert outcome(send(app, "add", 1, 2)) == 3
    assert outcome(send(app, "signals_of", second.id)) == []
    assert outcome(send(app, "signals_of", first.id))


def test_events(app, worker):
    """What monitors such as Flower listen to."""
    wanted = {}
    kinds = {}

    def heard(event):
        if not wanted:  # the first heartbeat: events arrive from now on
            wanted[send(app, "waits_for_others", "events", 1).id] = "received started succeeded"
            wanted[send(app, "raises").id] = "received started failed"
            # A retry is published, and may arrive, before the event that tells of it.
            again = "received started retried " * 2 + "received started succeeded"
            wanted[send(app, "fails_at_first").id] = again
            revoked = send(app, "waits_for_others", "nobody else", 2)
            revoked.revoke(terminate=True)
            wanted[revoked.id] = None
        if event.get("uuid") in wanted:
            kinds.setdefault(event["uuid"], []).append(event["type"].removeprefix("task-"))
        ends = [each[-1] for each in kinds.values()]
        if sum(each in ("succeeded", "failed", "revoked") for each in ends) == len(wanted):
            receiver.should_stop = True

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard})
        receiver.capture(timeout=60, wakeup=True)
    for task, expected in wanted.items():
        if expected is None:
            assert kinds[task][-1] == "revoked"
        else:
            assert sorted(kinds[task]) == sorted(expected.split())
            assert kinds[task][-1] == expected.split()[-1]


def test_the_pool_grows_and_shrinks(app, worker):
    def size():
        (stats,) = app.control.inspect(timeout=60, limit=1).stats().values()
        return stats["pool"]["max-concurrency"]

    app.control.pool_grow(3, reply=True, timeout=60, limit=1)
    assert size() == 53
    app.control.pool_shrink(3, reply=True, timeout=60, limit=1)
    assert size() == 50


def test_inspect_tells_of_the_pool(app, worker):
    def pool():
        (stats,) = app.control.inspect(timeout=60, limit=1).stats().values()
        return stats["pool"]

    assert pool()["implementation"] == "fiberback.celery:Pool"
    assert pool()["max-concurrency"] == 50
    until(lambda: pool()["running"] == 0, worker)  # a result is there before its task is over


def test_who_blocks_the_loop_is_named(app, worker):
    outcome(send(app, "blocks_the_loop"))
    worker.until("blocks_the_loop")
    until(lambda: re.search(r"block.*celery_tasks\.py", worker.said(), re.S), worker)


def test_locals_for_threads_are_refused():
    program = """
from celery._state import _task_stack
from fiberback.celery._locals import keep_in_contexts
keep_in_contexts(_task_stack)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "USE_FAST_LOCALS": "1"},
        capture_output=True,
        text=True,
    )
    assert "ImproperlyConfigured" in done.stderr and "[fiberback:celery-fast-locals]" in done.stderr


def test_a_revoked_task_that_cannot_be_stored_as_such_holds_no_slot():
    program = """
import threading
from celery import Celery
from celery.worker import state
from fiberback.celery import Pool

class Request:
    id, expires = "a task's id", None
    def accepted(self, pid, time): pass
    def revoked(self): raise ConnectionError("no results are stored")

state.revoked.add(Request.id)
pool = Pool(1, app=Celery(set_as_current=False))
pool.start()
done = threading.Event()
job = pool.apply_async(print, accept_callback=Request().accepted)
pool.apply_async(done.set)
assert done.wait(60)
pool.close()
pool.stop()
print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr
    assert "ConnectionError: no results are stored" in done.stderr
