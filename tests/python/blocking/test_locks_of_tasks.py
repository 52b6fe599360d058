"""Locks, and what stands on them, between the tasks of one thread and with other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import queue
import signal
import threading
import time

import fiberback
import pytest
from saying import says
from servers import together
from support import only_fiberback

pytestmark = only_fiberback

CONDITION_FROM_BEFORE = threading.Condition()
EVENT_FROM_BEFORE = threading.Event()
QUEUE_FROM_BEFORE = queue.Queue(1)


@pytest.fixture(autouse=True)
def in_force():
    with fiberback.blocking.install():
        yield


@pytest.mark.parametrize("make", [lambda: threading.Lock(), lambda: threading.RLock()])
def test_one_at_a_time(backend, make):
    lock, inside, most = make(), [], []

    def work():
        with lock:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0)
            time.sleep(0)
            inside.pop()

    together(backend, *[work] * 20)
    assert most == [1] * 20
    assert lock.acquire(False)
    lock.release()


def test_a_reentrant_lock_is_its_task_s(backend):
    lock = threading.RLock()
    entered = []

    def first():
        with lock, lock:
            entered.append("first")
            while "tried" not in entered:
                time.sleep(0)
            assert lock._is_owned() and lock._recursion_count() == 2
        assert not lock._is_owned()

    def second():
        while not entered:
            time.sleep(0)
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.0001)
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        entered.append("tried")
        with lock:
            entered.append("second")

    together(backend, first, second)
    assert entered == ["first", "tried", "second"]


def test_timeouts(backend):
    def check():
        lock = threading.Lock()
        assert lock.acquire() and lock.locked()
        assert not lock.acquire(timeout=0.001)
        assert not lock.acquire(timeout=0)
        assert not lock.acquire(False)
        for given, error in (((True, -2), ValueError), ((False, 1), ValueError)):
            with pytest.raises(error):
                lock.acquire(*given)
        with pytest.raises(OverflowError):
            lock.acquire(timeout=threading.TIMEOUT_MAX + 1)
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()
        assert not threading.Event().wait(0.001)
        condition = threading.Condition()
        with condition:
            assert not condition.wait(0.001)
            assert condition.wait_for(lambda: True)
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=0.001)
        with pytest.raises(queue.Empty):
            queue.SimpleQueue().get(timeout=0.001)
        assert not threading.Semaphore(0).acquire(timeout=0.001)
        with pytest.raises(TimeoutError):
            concurrent.futures.Future().result(0.001)

    together(backend, check)


@pytest.mark.parametrize("make", [lambda: threading.Lock(), lambda: threading.RLock()])
def test_with_other_threads(backend, make):
    """Each side has it for a while, and gets it again."""
    lock, inside, rounds = make(), [], 50

    def work():
        for _ in range(rounds):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]

    def run_threads():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    together(backend, run_threads, work, work, work)
    assert inside == []


def test_events_and_conditions_wake_from_either_side(backend):
    for event, condition in (
        (threading.Event(), threading.Condition()),
        (EVENT_FROM_BEFORE, CONDITION_FROM_BEFORE),
    ):
        event.clear()
        items = []

        def wait():
            assert event.wait(60)
            with condition:
                assert condition.wait_for(lambda: items, 60)
                return items.pop()

        def set_off():
            time.sleep(0.001)
            event.set()
            for number in range(3):
                with condition:
                    items.append(number)
                    condition.notify()
                time.sleep(0.001)

        def in_thread():
            thread = threading.Thread(target=set_off)
            thread.start()
            thread.join()

        for other in (set_off, in_thread):
            event.clear()
            assert sorted(together(backend, wait, wait, wait, other)[:-1]) == [0, 1, 2]


@pytest.mark.parametrize(
    "make", [lambda: queue.Queue(2), lambda: queue.SimpleQueue(), lambda: QUEUE_FROM_BEFORE]
)
def test_queues(backend, make):
    items = make()

    def put():
        for number in range(30):
            items.put(number)

    def get():
        return [items.get() for _ in range(10)]

    def put_in_thread():
        thread = threading.Thread(target=put)
        thread.start()
        thread.join()

    for other in (put, put_in_thread):
        found = together(backend, get, get, get, other)[:-1]
        assert sorted(sum(found, [])) == list(range(30))


def test_barriers_and_semaphores(backend):
    barrier, semaphore, inside = threading.Barrier(5), threading.BoundedSemaphore(2), []

    def work():
        barrier.wait()
        with semaphore:
            inside.append(1)
            assert len(inside) <= 2
            time.sleep(0)
            inside.pop()

    together(backend, *[work] * 5)


def test_futures(backend):
    def work():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(pow, n, 2) for n in range(5)]
            done, left = concurrent.futures.wait(futures)
            assert len(done) == 5 and not left
            assert sorted(each.result() for each in concurrent.futures.as_completed(futures)) == [
                each.result() for each in futures
            ]
            return list(pool.map(abs, [-1, -2]))

    assert together(backend, work, work, work) == [[1, 2]] * 3


def test_an_executor_is_given_work_at_one_go(backend):
    """It holds a lock in C that all executors share: if a task were suspended there, the next one would block."""
    from concurrent.futures.thread import _global_shutdown_lock

    pool, is_held, seen, done = concurrent.futures.ThreadPoolExecutor(1), threading.Event(), [], []

    def hold():
        with pool._idle_semaphore._cond:
            is_held.set()
            time.sleep(0.02)

    def submit():
        thread = threading.Thread(target=hold)
        thread.start()
        is_held.wait()
        found = pool.submit(abs, -1).result()
        thread.join()
        done.append(1)
        return found

    def look():
        while not done:
            seen.append(_global_shutdown_lock.acquire(timeout=5))
            if seen[-1]:
                _global_shutdown_lock.release()
            time.sleep(0)

    with pool:
        assert together(backend, submit, look)[0] == 1
    assert all(seen)


def test_a_thread_that_is_joined(backend):
    def work():
        event = threading.Event()
        thread = threading.Thread(target=event.wait)
        thread.start()
        thread.join(0.001)
        assert thread.is_alive()
        event.set()
        thread.join()
        assert not thread.is_alive()
        with pytest.raises(RuntimeError):
            threading.Thread().join()
        with pytest.raises(RuntimeError):
            threading.current_thread().join()

    together(backend, *[work] * 3)


def test_cancelled_while_it_waits(backend):
    """For a lock; and in a condition, which has its lock again then, however long that takes."""

    async def main():
        lock, condition, ended = threading.Lock(), threading.Condition(), []

        def acquire():
            try:
                lock.acquire()
            except backend.Cancelled:
                ended.append("lock")
                raise

        def wait():
            with condition:
                try:
                    condition.wait()
                except backend.Cancelled:
                    assert condition._is_owned()
                    ended.append("condition")
                    raise

        def hold():
            with condition:
                time.sleep(0.002)
                ended.append("held")

        lock.acquire()
        async with backend.group() as group:
            handles = [
                group.spawn(fiberback.with_portal_run_sync, each) for each in (acquire, wait)
            ]
            await backend.sleep(0.001)
            group.spawn(fiberback.with_portal_run_sync, hold)
            await backend.sleep(0.0005)
            for handle in handles:
                handle.cancel()
        lock.release()
        assert lock.acquire(False)
        with condition:
            pass
        return ended

    ended = backend.run(main)
    assert sorted(ended) == ["condition", "held", "lock"]
    assert ended.index("held") < ended.index("condition")


@pytest.mark.parametrize("make", [lambda: threading.Lock(), lambda: threading.RLock()])
def test_cancelled_while_a_condition_regains_its_lock(backend, make):
    async def main():
        condition, found = threading.Condition(make()), []

        def wait():
            with condition:
                try:
                    condition.wait()
                finally:
                    found.append(condition._is_owned())

        def hold():
            with condition:
                condition.notify()
                found.append("held")
                while "let go" not in found:
                    time.sleep(0)

        async with backend.group() as group:
            handle = group.spawn(fiberback.with_portal_run_sync, wait)
            while not condition._waiters:
                await backend.sleep(0)
            group.spawn(fiberback.with_portal_run_sync, hold)
            while "held" not in found:
                await backend.sleep(0)
            for _ in range(5):
                await backend.sleep(0)
            handle.cancel()
            for _ in range(5):
                await backend.sleep(0)
            found.append("let go")
        return found, condition.acquire(False)

    assert backend.run(main) == (["held", "let go", True], True)


def test_a_reentrant_lock_that_is_held_around_a_loop(backend):
    """The thread has it, and so have the tasks that it runs meanwhile."""
    lock = threading.RLock()

    def check():
        assert lock.acquire(timeout=0.001)
        lock.release()

    with lock:
        together(backend, check, check)
        assert lock._is_owned() and lock._recursion_count() == 1


def test_the_handler_of_a_signal_wakes_a_task(backend):
    """The loop waits then, and is not about to look what is to be done."""
    event, waiting, late = threading.Event(), threading.Event(), []
    main_thread = threading.get_ident()

    def wait():
        waiting.set()
        event.wait()

    def send():
        waiting.wait()
        time.sleep(0.02)
        signal.pthread_kill(main_thread, signal.SIGUSR2)

    def too_late():
        late.append(1)
        event.set()

    before = signal.signal(signal.SIGUSR2, lambda *_: event.set())
    thread, timer = threading.Thread(target=send), threading.Timer(30, too_late)
    try:
        thread.start()
        timer.start()
        together(backend, wait)
    finally:
        timer.cancel()
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert not late


def test_who_has_gone_with_a_loop_is_passed_over():
    from fiberback._blocking.waiter import here

    async def waiter():
        return here()

    loop = asyncio.new_event_loop()
    gone = loop.run_until_complete(waiter())
    loop.close()

    async def main():
        lock, items = threading.Lock(), queue.SimpleQueue()
        lock.acquire()
        lock._waiting.append(gone)
        items._waiting.append(gone)
        tasks = [
            asyncio.create_task(fiberback.with_portal_run_sync(each))
            for each in (lock.acquire, items.get)
        ]
        while len(lock._waiting) + len(items._waiting) < 4:
            await asyncio.sleep(0)
        lock.release()
        items.put("item")
        return [await asyncio.wait_for(each, 30) for each in tasks]

    assert asyncio.run(main()) == [True, "item"]


def test_one_that_is_woken_and_cancelled_wakes_the_next(backend):
    async def main():
        lock, got = threading.Lock(), []

        def acquire(name):
            with lock:
                got.append(name)

        await fiberback.with_portal_run_sync(lock.acquire)
        async with backend.group() as group:
            first = group.spawn(fiberback.with_portal_run_sync, acquire, "first")
            await backend.sleep(0.001)
            group.spawn(fiberback.with_portal_run_sync, acquire, "second")
            await backend.sleep(0.001)
            lock.release()
            first.cancel()
        return got

    assert "second" in backend.run(main)


def test_circles_are_named():
    """Of locks alone, and of a lock and a task."""

    def both(one, other):
        with one:
            time.sleep(0.001)
            with other:
                return "done"

    def for_task(lock, task):
        with lock:
            time.sleep(0.001)
            return fiberback.await_(task())

    async def main():
        async def go(*functions):
            tasks = [
                asyncio.create_task(fiberback.with_portal_run_sync(*each)) for each in functions
            ]
            return tasks, await asyncio.gather(*tasks, return_exceptions=True)

        one, other = threading.Lock(), threading.RLock()
        _, found = await go((both, one, other), (both, other, one))
        errors = [each for each in found if each != "done"]
        says(errors[0], "wait-cycle")
        assert len(errors) == 1

        waiter = None

        def last():
            return waiter

        def wait_for_lock():
            with one:
                return "done"

        holder = asyncio.create_task(fiberback.with_portal_run_sync(for_task, one, last))
        waiter = asyncio.create_task(fiberback.with_portal_run_sync(wait_for_lock))
        found = await asyncio.gather(holder, waiter, return_exceptions=True)
        says(found[0], "wait-cycle")
        assert found[1] == "done"

        def some_time():
            with other:
                time.sleep(0.001)
                return one.acquire(timeout=0.001)

        _, found = await go((both, one, other), (some_time,))
        assert found == ["done", False]

    asyncio.run(main())


def test_circles_of_locks_are_named_on_every_loop(backend):
    """Three tasks, each of which has what the next one wants."""
    locks = [threading.Lock(), threading.RLock(), threading.Lock()]
    ended = []

    def both(first):
        begun.append(1)
        with locks[first]:
            while len(begun) < 3:
                time.sleep(0)
            try:
                with locks[(first + 1) % 3]:
                    ended.append("done")
            except RuntimeError as error:
                ended.append(error)

    begun = []
    together(backend, *(lambda n=n: both(n) for n in range(3)))
    assert len(ended) == 3 and ended.count("done") == 2
    says(ended[0], "wait-cycle")
    assert str(ended[0]).count(" waits for ") == 3
    assert "in test_circles_of_locks_are_named_on_every_loop.<locals>.both()" in str(ended[0])


def test_types():
    for lock, kind in ((threading.Lock(), threading.Lock), (threading.RLock(), threading.RLock)):
        assert isinstance(lock, kind) and "unlocked" in repr(lock)
        with lock:
            assert " locked" in repr(lock) or "<locked" in repr(lock)
        with pytest.raises(TypeError):
            pickle.dumps(lock)
    assert isinstance(CONDITION_FROM_BEFORE._lock, threading.RLock)
    assert isinstance(queue.SimpleQueue(), queue.SimpleQueue)


def test_locks_outlive_the_hooks(backend):
    lock = threading.Lock()
    fiberback.blocking.uninstall()
    with lock:
        assert not lock.acquire(timeout=0.001)

    def check():
        with lock:
            return lock.locked()

    assert together(backend, check) == [True]
