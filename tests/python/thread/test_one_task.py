"""One task and one context for all that a thread, or a callback, waits for.

Each test runs in every place where sync code has no task of its own: without a loop, in the threads of
asyncio, AnyIO, Trio and of ours, and in callbacks.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import weakref

import pytest
from places import PLACES, TRIO, anyio_thread, needs, only_main_is_left
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="default")


@pytest.fixture(params=PLACES)
def place(request, fb):
    needs(request.param)
    yield PLACES[request.param]
    fb.close_thread_runner()


@pytest.fixture(params=[*PLACES, *TRIO])
def any_place(request, fb):
    needs(request.param)
    yield {**PLACES, **TRIO}[request.param]
    fb.close_thread_runner()


async def current():
    await asyncio.sleep(0)
    return asyncio.current_task()


def test_one_task(fb, place):
    def work():
        tasks = {fb.await_(current()) for _ in range(3)}
        # Also after one has failed, and in what sync code below the awaited awaits.
        with pytest.raises(KeyError):
            fb.await_(fails())
        tasks.add(fb.await_(current()))
        tasks.add(fb.await_(nested()))
        return len(tasks)

    async def fails():
        await asyncio.sleep(0)
        raise KeyError

    async def nested():
        return fb.await_(current())

    assert place(work) == 1


def test_a_timeout_across_waits(fb, place):
    async def make():
        return asyncio.timeout(0.05)

    def work():
        with fb.async_context(fb.await_(make())):
            fb.await_(asyncio.sleep(0))
            fb.await_(asyncio.sleep(30))

    with pytest.raises(TimeoutError):
        place(work)


def test_a_task_group_across_waits(fb, place):
    async def child(seconds, error=None):
        await asyncio.sleep(seconds)
        if error:
            raise error
        return seconds

    async def start(group, *args):
        return group.create_task(child(*args))

    def work():
        with fb.async_context(asyncio.TaskGroup()) as group:
            tasks = [fb.await_(start(group, 0.001)) for _ in range(3)]
        assert [task.result() for task in tasks] == [0.001] * 3
        with pytest.raises(ExceptionGroup) as caught:
            with fb.async_context(asyncio.TaskGroup()) as group:
                fb.await_(start(group, 0.001, KeyError("child")))
                fb.await_(asyncio.sleep(30))
        assert isinstance(caught.value.exceptions[0], KeyError)
        return fb.await_(child(0.001))

    assert place(work) == 0.001


def test_cancel_scopes_and_task_groups_of_anyio(fb, any_place):
    anyio = import_or_skip("anyio")
    log = []

    async def enter():
        scope = anyio.move_on_after(0.05)
        return scope.__enter__(), scope

    async def leave(scope, error):
        return scope.__exit__(type(error), error, error.__traceback__)

    async def child():
        log.append("child")

    async def sleep(seconds):
        await anyio.sleep(seconds)

    def work():
        with fb.async_context(fb.await_(make_group())) as group:
            fb.await_(start(group))
            fb.await_(sleep(0.01))
        _, scope = fb.await_(enter())
        try:
            fb.await_(sleep(30))
        except BaseException as error:
            assert fb.await_(leave(scope, error))
        fb.await_(sleep(0.001))
        return scope.cancelled_caught

    async def make_group():
        return anyio.create_task_group()

    async def start(group):
        group.start_soon(child)

    assert any_place(work)
    assert log == ["child"]


def test_tokens_and_variables(fb, any_place):
    async def set_to(value):
        return variable.set(value)

    async def reset(token):
        variable.reset(token)

    async def get():
        return variable.get()

    def work():
        before = variable.get()
        # Of one wait in another, of code that waits in a wait, and the other way around.
        token = fb.await_(set_to("awaited"))
        assert (variable.get(), fb.await_(get())) == ("awaited",) * 2
        fb.await_(reset(token))
        assert (variable.get(), fb.await_(get())) == (before,) * 2
        token = variable.set("sync")
        assert fb.await_(get()) == "sync"
        fb.await_(reset(token))
        token = fb.await_(set_to("awaited again"))
        variable.reset(token)
        return variable.get(), fb.await_(get())

    variable.set("outer")
    try:
        before = any_place(variable.get)
        assert any_place(work) == (before,) * 2
        assert contextvars.Context().run(any_place, functools.partial(work)) == ("default",) * 2
        assert variable.get() == "outer"
    finally:
        variable.set("default")


def test_a_variable_that_was_unset_is_unset(fb, place):
    fresh = contextvars.ContextVar("fresh")

    async def reset(token):
        fresh.reset(token)

    def work():
        fb.await_(reset(fresh.set(1)))
        return fresh.get("unset")

    assert place(work) == "unset"


def test_contexts_inside_contexts(fb, place):
    """In `Context.run` it is that context, and the task is the same."""

    async def change():
        await asyncio.sleep(0)
        token = variable.set("inside")
        return asyncio.current_task(), token

    def inside():
        task, token = fb.await_(change())
        assert variable.get() == "inside"
        variable.reset(token)
        return task

    def work():
        tasks = {contextvars.Context().run(inside), contextvars.copy_context().run(inside)}
        return len(tasks | {inside()})

    assert place(work) == 1


def test_one_wait_that_is_cancelled_does_not_end_the_next(fb, place):
    async def cancels_itself():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            raise

    def work():
        for _ in range(3):
            with pytest.raises(asyncio.CancelledError):
                fb.await_(cancels_itself())
            assert fb.await_(asyncio.sleep(0, "next")) == "next"
        return "done"

    assert place(work) == "done"


def test_nothing_is_left(fb, place):
    """Neither the task, once the work is over, nor what was awaited in it."""

    class Thing:
        pass

    async def make():
        thing = Thing()
        things.append(weakref.ref(thing))
        await asyncio.sleep(0)
        return asyncio.current_task(), thing

    def work():
        task, thing = fb.await_(make())
        del thing
        gc.collect()
        assert things[0]() is None
        return weakref.ref(task)

    things = []
    task = place(work)
    if place is PLACES["without a loop"]:
        fb.close_thread_runner()
    gc.collect()
    assert task() is None or task().done()


async def ready():
    return None


@pytest.mark.parametrize("name", ["without a loop", "to_thread", "anyio.to_thread", "call_soon"])
def test_nothing_grows(fb, name):
    needs(name)

    def work():
        for _ in range(1000):
            fb.await_(ready())
        gc.collect()
        before = count()
        for _ in range(20_000):
            fb.await_(ready())
        gc.collect()
        return count() - before

    def count():
        return sys.getallocatedblocks()

    assert PLACES[name](work) < 500
    fb.close_thread_runner()


def test_threads_do_not_share_a_task(fb):
    import_or_skip("anyio")

    async def main():
        ways = [asyncio.to_thread, anyio_thread, anyio_thread, asyncio.to_thread]
        tasks = await asyncio.gather(*(way(lambda: fb.await_(current())) for way in ways))
        again = await asyncio.gather(*(way(lambda: fb.await_(current())) for way in ways))
        await only_main_is_left()
        return len({*tasks, *again})

    assert asyncio.run(main()) == 8


# Cancellation from outside.


@pytest.mark.parametrize("abandon", [False, True])
def test_the_scope_around_an_anyio_thread(fb, abandon):
    anyio = import_or_skip("anyio")
    log = []
    ended = threading.Event()

    def work():
        try:
            log.append(fb.await_(ready()))
            try:
                fb.await_(anyio.sleep(30))
            except asyncio.CancelledError:
                log.append("cancelled")
                raise
        finally:
            ended.set()

    async def main():
        with anyio.move_on_after(0.1) as scope:
            await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)
        assert scope.cancelled_caught
        await asyncio.to_thread(ended.wait, 10)
        # The thread's next call is nobody's but its own.
        for _ in range(3):
            assert await anyio.to_thread.run_sync(lambda: fb.await_(asyncio.sleep(0, 7))) == 7
        await only_main_is_left()

    asyncio.run(main())
    assert log == [None, "cancelled"]


def test_all_tasks_are_cancelled_while_a_thread_works(fb):
    """As `asyncio.run` does at its end. Nobody waits for the thread, which is told."""
    log = []
    go_on, ended = threading.Event(), threading.Event()

    def work(loop):
        with fb.parent_loop(loop):
            fb.await_(ready())
            waiting.set()
            go_on.wait(10)
            try:
                fb.await_(asyncio.sleep(0))
            except (asyncio.CancelledError, RuntimeError) as error:
                log.append(type(error))
        ended.set()

    async def main():
        loop = asyncio.get_running_loop()
        threading.Thread(target=work, args=[loop]).start()
        await asyncio.to_thread(waiting.wait, 10)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(tasks) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        go_on.set()
        await asyncio.to_thread(ended.wait, 10)

    waiting = threading.Event()
    asyncio.run(main())
    assert log == [asyncio.CancelledError]


def test_a_cancelled_wait_does_not_hold_up_the_end_of_the_loop(fb):
    """The thread is cancelled in the middle of a wait, takes its time, and has not left its block."""
    go_on, waiting = threading.Event(), threading.Event()

    async def forever():
        waiting.set()
        await asyncio.sleep(30)

    def work(loop):
        with fb.parent_loop(loop):
            try:
                fb.await_(forever())
            except asyncio.CancelledError:
                go_on.wait(60)

    async def main():
        thread.append(threading.Thread(target=work, args=[asyncio.get_running_loop()]))
        thread[0].start()
        while not waiting.is_set():
            await asyncio.sleep(0.001)

    thread = []
    asyncio.run(main())
    assert thread[0].is_alive()
    go_on.set()
    thread[0].join()


def test_an_engine_opened_by_one_wait_and_used_by_the_next(fb, place):
    import_or_skip("aiosqlite")
    import_or_skip("greenlet")
    sqlalchemy = import_or_skip("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    async def begin(engine):
        connection = await engine.connect()
        return connection, await connection.begin()

    async def run(connection, statement):
        return (await connection.execute(sqlalchemy.text(statement))).all()

    async def end(engine, connection, transaction):
        await transaction.commit()
        await connection.close()
        await engine.dispose()

    def work():
        engine = create_async_engine("sqlite+aiosqlite://")
        connection, transaction = fb.await_(begin(engine))
        rows = [fb.await_(run(connection, f"SELECT {number}"))[0][0] for number in range(5)]
        fb.await_(end(engine, connection, transaction))
        return rows

    assert place(work) == list(range(5))
