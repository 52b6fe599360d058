"""`TaskGroup`, `gather` and `map`, in every place where sync code may wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import random
import sys
import threading
import warnings

import fiberback
import pytest
from fiberback._loop.library import current_library
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


def without_loop(fn):
    return fn()


def in_a_thread_without_loop(fn):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: (fn(), fiberback.close_thread_runner())[0]).result()


def parked(fn):
    async def main():
        return fn()

    return asyncio.run(main())


def on_portal(fn):
    return asyncio.run(fiberback.with_portal_run_sync(fn))


def on_uvloop(fn):
    loop = import_or_skip("uvloop").new_event_loop()
    try:
        return loop.run_until_complete(fiberback.with_portal_run_sync(fn))
    finally:
        loop.close()


def in_to_thread(fn):
    async def main():
        return await asyncio.to_thread(fn)

    return fiberback.run(main())


def in_anyios_thread(fn):
    anyio = import_or_skip("anyio")

    async def main():
        return await anyio.to_thread.run_sync(fn)

    return asyncio.run(main())


def on_trio(fn):
    return import_or_skip("trio").run(fiberback.with_portal_run_sync, fn)


def in_trios_thread(fn):
    trio = import_or_skip("trio")
    return trio.run(trio.to_thread.run_sync, fn)


PLACES = [
    without_loop,
    in_a_thread_without_loop,
    parked,
    on_portal,
    on_uvloop,
    in_to_thread,
    in_anyios_thread,
    on_trio,
    in_trios_thread,
]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def place(request):
    return request.param


async def pause(seconds=0.0):
    if current_library() == "trio":
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def double(number, *, seconds=0.0):
    await pause(seconds)
    return number * 2


def double_in_sync(number):
    return fiberback.await_(double(number))


async def fail(error, seconds=0.0):
    await pause(seconds)
    raise error


async def fail_when_cancelled(error):
    try:
        await pause(60)
    finally:
        raise error


class Journal:
    """What long tasks did: begun, and ended how."""

    def __init__(self):
        self.begun, self.ended = [], []

    async def long(self, name="long"):
        self.begun.append(name)
        try:
            await pause(60)
        finally:
            self.ended.append(name)


# --- TaskGroup -------------------------------------------------------------------------------------


def test_tasks_of_sync_and_async_functions(place):
    def body():
        with fiberback.TaskGroup() as group:
            first = group.start(double, 1, seconds=0.01)
            second = group.start(double_in_sync, 2)
            third = group.start(lambda: double(3))
            assert first.result() == 2
        assert (first.done(), second.done(), third.done()) == (True, True, True)
        return first.result(), second.result(), third.result()

    assert place(body) == (2, 4, 6)


def test_tasks_overlap(place):
    """Each waits for the other; one after the other, they would wait for ever."""

    def body():
        here, there = [], []

        async def meet(mine, other):
            mine.append(True)
            while not other:
                await pause()
            return "met"

        return fiberback.gather(lambda: meet(here, there), lambda: meet(there, here))

    assert place(body) == ["met", "met"]


def test_a_failure_cancels_the_others_and_the_block(place):
    def body():
        journal = Journal()
        went_on = []
        with pytest.raises(ExceptionGroup) as info, fiberback.TaskGroup() as group:
            group.start(journal.long)
            fiberback.await_(pause(0.01))
            failed = group.start(fail, ValueError("this one"))
            fiberback.await_(pause(60))
            went_on.append(True)
        assert [repr(error) for error in info.value.exceptions] == ["ValueError('this one')"]
        assert journal.begun == journal.ended == ["long"]
        assert not went_on
        with pytest.raises(ValueError, match="this one"):
            failed.result()

    place(body)


def test_all_failures_are_told(place):
    def body():
        with pytest.raises(ExceptionGroup) as info, fiberback.TaskGroup() as group:
            group.start(fail_when_cancelled, KeyError())
            group.start(fail, ValueError(), 0.01)
        assert {type(error) for error in info.value.exceptions} == {ValueError, KeyError}

    place(body)


def test_a_block_that_fails_cancels_its_tasks(place):
    def body():
        journal = Journal()
        with pytest.raises(ExceptionGroup) as info, fiberback.TaskGroup() as group:
            group.start(journal.long)
            fiberback.await_(pause(0.01))
            raise LookupError("the block's")
        assert [repr(error) for error in info.value.exceptions] == ['LookupError("the block\'s")']
        assert journal.begun == journal.ended == ["long"]

    place(body)


def test_one_task_is_cancelled(place):
    def body():
        journal = Journal()
        with fiberback.TaskGroup() as group:
            one = group.start(journal.long)
            other = group.start(double, 4)
            fiberback.await_(pause(0.01))
            assert one.cancel()
        assert journal.ended == ["long"]
        assert (one.cancel(), other.cancel()) == (False, False)
        assert other.result() == 8
        with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)) as info:
            one.result()
        # An error that no `except Exception` takes would end the run of Trio, which did not cancel it.
        trios = place in (on_trio, in_trios_thread)
        assert info.type is (concurrent.futures.CancelledError if trios else asyncio.CancelledError)

    place(body)


def test_groups_within_groups(place):
    def count(depth):
        if depth == 0:
            return fiberback.await_(double(1)) // 2
        with fiberback.TaskGroup() as group:
            below = [group.start(count, depth - 1) for _ in range(3)]
        return sum(handle.result() for handle in below)

    assert place(lambda: count(4)) == 81


def test_contexts_are_those_of_the_caller_copied(place):
    def body():
        def seen_and_set(value):
            before = variable.get()
            variable.set(value)
            return before

        variable.set("the caller's")
        with fiberback.TaskGroup() as group:
            first = group.start(seen_and_set, "the first's")
            variable.set("later")
            second = group.start(seen_and_set, "the second's")
        return first.result(), second.result(), variable.get()

    found = contextvars.copy_context().run(place, body)
    assert found == ("the caller's", "later", "later")


def test_a_task_leaves_nothing_behind():
    """What a group holds of a task ends with that."""

    def body():
        with fiberback.TaskGroup() as group:
            for _ in range(2000):
                group.start(double, 1)
                fiberback.await_(pause())
            assert len(group._tasks._running) < 10

    on_portal(body)


def test_a_thousand_tasks(place):
    assert place(lambda: fiberback.map(double, range(1000))) == [2 * n for n in range(1000)]


@pytest.mark.parametrize("inner", [asyncio.run, fiberback.run])
def test_the_caller_is_cancelled(inner):
    """The tasks are cancelled and have ended, then the cancellation goes on."""

    async def main():
        journal = Journal()

        def body():
            with fiberback.TaskGroup() as group:
                group.start(journal.long, "one")
                group.start(journal.long, "two")

        async def caller():
            await fiberback.with_portal_run_sync(body)

        task = asyncio.create_task(caller())
        while len(journal.begun) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(journal.begun) == sorted(journal.ended) == ["one", "two"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    inner(main())


def test_a_timeout_around_the_caller():
    async def main():
        journal = Journal()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await fiberback.with_portal_run_sync(fiberback.gather, journal.long, journal.long)
        assert journal.begun == journal.ended == ["long", "long"]

    asyncio.run(main())


def test_a_scope_of_trios_around_the_caller():
    trio = import_or_skip("trio")

    async def main():
        journal = Journal()
        with trio.move_on_after(0.02) as scope:
            await fiberback.with_portal_run_sync(fiberback.gather, journal.long, journal.long)
        assert scope.cancelled_caught
        assert journal.begun == journal.ended == ["long", "long"]

    trio.run(main)


def test_the_caller_in_a_thread_is_cancelled():
    """Its task gives up; the group in the thread is told at its next wait, and waits for its tasks."""

    async def main():
        journal = Journal()
        came_out = []
        left = threading.Event()

        def body():
            try:
                fiberback.gather(journal.long, journal.long)
            except BaseException as error:
                came_out.append(type(error))
                raise
            finally:
                left.set()

        task = asyncio.create_task(fiberback.to_thread(body))
        while len(journal.begun) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not left.is_set():
            await asyncio.sleep(0)
        assert journal.begun == journal.ended == ["long", "long"]
        assert came_out == [asyncio.CancelledError]

    asyncio.run(main())


def test_a_group_whose_end_may_not_wait_cancels_its_tasks():
    async def main():
        journal = Journal()

        def body():
            group = fiberback.TaskGroup()
            group.__enter__()
            group.start(journal.long)
            fiberback.await_(pause(0.01))
            with fiberback.no_await("the end"):
                group.__exit__(None, None, None)

        with pytest.raises(RuntimeError, match="no_await"):
            await fiberback.with_portal_run_sync(body)
        while not journal.ended:
            await asyncio.sleep(0)
        assert journal.begun == journal.ended == ["long"]

    asyncio.run(main())


def test_misuse(place):
    def body():
        group = fiberback.TaskGroup()
        with pytest.raises(RuntimeError) as info:
            group.start(double, 1)
        says(info.value, "group-not-entered", "with fiberback.TaskGroup() as group:")
        with group:
            with pytest.raises(RuntimeError) as info:
                group.__enter__()
            says(info.value, "group-entered", "with fiberback.TaskGroup() as group:")
        with pytest.raises(RuntimeError):
            group.start(double, 1)
        for make in (lambda: None, lambda: double(1), lambda: 42):
            with fiberback.TaskGroup() as group, pytest.raises(TypeError) as refused:
                group.start(make())
            says(refused.value, "group-what", "group.start(fetch, url)")
            with pytest.raises(TypeError) as refused:
                fiberback.map(make(), [1, 2])
            says(refused.value, "group-what", "fiberback.map(fetch, urls)")
        for limit in (0, -1):
            with pytest.raises(ValueError, match="lets no task run") as bad:
                fiberback.TaskGroup(limit=limit)
            says(bad.value, "group-limit", "limit=None")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(body)
        gc.collect()


# --- gather and map ---------------------------------------------------------------------------------


def test_results_are_in_order(place):
    def body():
        return fiberback.gather(
            double(1, seconds=0.02), lambda: double(2, seconds=0.01), lambda: double_in_sync(3)
        )

    assert place(body) == [2, 4, 6]
    assert place(fiberback.gather) == []
    assert place(lambda: fiberback.map(double_in_sync, range(5))) == [0, 2, 4, 6, 8]


def test_limit(place):
    def body(limit):
        running, most = 0, 0

        async def work(number):
            nonlocal running, most
            running += 1
            most = max(most, running)
            while most < limit:
                await pause()
            await pause(0.001 * (number % 3))
            running -= 1
            return number

        assert fiberback.map(work, range(20), limit=limit) == list(range(20))
        assert fiberback.gather(*(work(n) for n in range(20)), limit=limit) == list(range(20))
        return most

    assert place(lambda: body(3)) == 3
    assert place(lambda: body(1)) == 1


def test_items_are_taken_as_there_is_room(place):
    def body():
        ahead = []
        taken = ended = 0

        def items():
            nonlocal taken
            for number in range(30):
                taken += 1
                ahead.append(taken - ended)
                yield fiberback.await_(double(number))

        async def work(number):
            nonlocal ended
            await pause()
            ended += 1
            return number

        assert fiberback.map(work, items(), limit=2) == [2 * n for n in range(30)]
        return max(ahead)

    assert place(body) <= 4


@pytest.mark.parametrize("what", ["function", "awaitable", "sync function", "items"])
def test_the_first_failure_comes_out_itself(place, what):
    def body():
        journal = Journal()
        error = ValueError("first")
        error.__cause__ = cause = OSError("why")

        def items():
            yield journal.long
            fiberback.await_(pause(0.01))
            raise error

        with pytest.raises(ValueError) as info:
            if what == "function":
                fiberback.gather(journal.long, lambda: fail(error, 0.01))
            elif what == "awaitable":
                fiberback.gather(journal.long, fail(error, 0.01))
            elif what == "sync function":
                fiberback.gather(journal.long, lambda: fiberback.await_(fail(error, 0.01)))
            else:
                fiberback.map(lambda fn: fn(), items())
        assert info.value is error
        assert (error.__cause__, error.__context__) == (cause, None)
        # The group has cancelled the block, and taken that back.
        assert fiberback.await_(double(1)) == 2
        assert journal.begun == journal.ended == ["long"]

    place(body)


def test_what_a_group_has_taken_back_does_not_come(place):
    """A group cancels the task around it, and takes that back: whether that waits for the group's end, or
    does something else, or is between two waits."""

    def body():
        for _ in range(3):
            for failures in (1, 3):
                for seconds in (0, 0.001):
                    with pytest.raises(ValueError):
                        fiberback.gather(*(fail(ValueError(), seconds) for _ in range(failures)))
                    assert fiberback.await_(double(1)) == 2
        with pytest.raises(ValueError):
            fiberback.gather(lambda: fail(ValueError()), lambda: fail_when_cancelled(KeyError()))
        assert fiberback.gather(double(1), double(2)) == [2, 4]

    place(body)


def test_what_fails_while_it_is_cancelled_is_in_the_notes():
    def body():
        with pytest.raises(ValueError, match="first") as info:
            fiberback.gather(
                lambda: fail_when_cancelled(KeyError("on the way out")),
                lambda: fail(ValueError("first"), 0.01),
            )
        assert info.value.__notes__ == ["Another task failed meanwhile: KeyError('on the way out')"]

    on_portal(body)


def test_exceptions_as_results(place):
    def body():
        return fiberback.gather(
            fail(ValueError("one")), double(2), lambda: {}["no"], return_exceptions=True
        )

    one, two, three = place(body)
    assert (repr(one), two, type(three)) == ("ValueError('one')", 4, KeyError)


def test_a_future_that_was_cancelled():
    async def main():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            fiberback.gather(future, double(2))
        kinds = [type(each) for each in fiberback.gather(future, double(2), return_exceptions=True)]
        assert kinds == [asyncio.CancelledError, int]
        assert not asyncio.current_task().cancelling()

    asyncio.run(main())


def test_what_is_not_begun_is_closed(place):
    """No warning about coroutines that were never awaited."""

    def body():
        with pytest.raises(TypeError) as info:
            fiberback.gather(double(1), 2)
        says(info.value, "gather-what", "fiberback.map(fetch, urls)")
        with pytest.raises(ValueError) as failed:
            fiberback.gather(fail(ValueError()), *(double(n) for n in range(5)), limit=1)
        assert not hasattr(failed.value, "__notes__")
        with pytest.raises(ValueError):
            fiberback.gather(double(1), limit=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(body)
        gc.collect()


def test_where_nothing_may_wait():
    async def main():
        with fiberback.no_await("here"), pytest.raises(RuntimeError, match="no_await"):
            fiberback.gather(double(1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()


def test_the_builtin_function_stays():
    names = {}
    exec("from fiberback import *", names)
    assert "gather" in names and "map" not in names


def test_other_libraries():
    """Neither asyncio nor Trio."""
    sniffio = import_or_skip("sniffio")

    def body():
        with pytest.raises(RuntimeError) as info:
            fiberback.gather(double)
        says(info.value, "group-library", "that library's own function")

    portal = fiberback.with_portal_run_sync(body)
    sniffio.thread_local.name = "another"
    try:
        with pytest.raises(StopIteration):
            portal.send(None)
    finally:
        sniffio.thread_local.name = None


SEED = int(os.environ.get("FIBERBACK_SEED", random.randrange(2**32)))


@pytest.mark.parametrize("number", range(20))
def test_random_groups_leave_nothing_running(number):
    """Failures, cancellations and pauses at random points: whatever comes out, all has ended."""
    seed = f"{SEED}.{number}"
    print(f"FIBERBACK_SEED={SEED}, number {number}", file=sys.stderr)
    dice = random.Random(seed)
    alive = set()

    def node(depth):
        me = object()
        alive.add(me)
        try:
            for _ in range(dice.randrange(3)):
                fiberback.await_(asyncio.sleep(dice.choice([0, 0, 0.001])))
            if depth and dice.random() < 0.7:
                with fiberback.TaskGroup(limit=dice.choice([None, None, 1, 2])) as group:
                    handles = [group.start(node, depth - 1) for _ in range(dice.randrange(1, 5))]
                    if dice.random() < 0.3:
                        fiberback.await_(asyncio.sleep(0))
                        dice.choice(handles).cancel()
                    if dice.random() < 0.1:
                        raise LookupError
            if dice.random() < 0.05:
                raise ValueError
        finally:
            alive.discard(me)

    async def main():
        task = asyncio.create_task(fiberback.with_portal_run_sync(node, 4))
        if dice.random() < 0.5:
            await asyncio.sleep(dice.choice([0, 0.001, 0.003]))
            task.cancel()
        await asyncio.wait([task])
        assert not alive
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if not task.cancelled() and task.exception() is not None:
            wrong = (ValueError, LookupError)
            assert isinstance(task.exception(), wrong) or task.exception().split(wrong)[1] is None

    asyncio.run(main())
