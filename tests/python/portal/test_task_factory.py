"""asyncio: task factories, `run`, and children that inherit their parent's portal."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import warnings

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

var: contextvars.ContextVar = contextvars.ContextVar("var", default=None)

LOOPS = ["asyncio", "uvloop"]


@pytest.fixture(params=LOOPS)
def loop_factory(request):
    if request.param == "uvloop":
        return import_or_skip("uvloop").new_event_loop
    return None


def awaiting(fb, value=None, log=None):
    assert fb.has_portal()
    fb.await_(asyncio.sleep(0))
    if log is not None:
        log.append(value)
    return value


async def child(fb, value=None):
    return awaiting(fb, value)


def test_run_gives_every_task_a_portal(fb, loop_factory):
    async def main():
        awaiting(fb)
        results = await asyncio.gather(*(child(fb, n) for n in range(5)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(fb, n)) for n in range(5)]
        tasks.append(asyncio.ensure_future(child(fb, 5)))
        await asyncio.wait_for(child(fb), 5)
        done, _ = await asyncio.wait([asyncio.create_task(child(fb, 6))])
        for step in asyncio.as_completed([child(fb, 7)]):
            assert await step == 7
        return results + [await t for t in tasks] + [t.result() for t in done]

    expected = [0, 1, 2, 3, 4] * 2 + [5, 6]
    assert fb.run(main(), loop_factory=loop_factory) == expected


def test_run_is_asyncio_run_otherwise(fb, loop_factory):
    log = []

    async def background():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def agen():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            log.append("agen closed")

    async def main():
        log.append(asyncio.get_running_loop().get_debug())
        asyncio.create_task(background())
        iterator = agen()
        await anext(iterator)
        await asyncio.sleep(0)
        log.append(iterator)
        return var.get()

    token = var.set("inherited")
    try:
        assert fb.run(main(), debug=True, loop_factory=loop_factory) == "inherited"
    finally:
        var.reset(token)
    assert log[0] is True
    assert log[2:] == ["cancelled", "agen closed"]


def test_run_refuses(fb):
    async def nothing():
        pass

    with pytest.raises(TypeError, match="coroutine was expected"):
        fb.run(42)

    async def main():
        coro = nothing()
        with pytest.raises(RuntimeError, match="ensure_portal"):
            fb.run(coro)
        return coro

    uvloop = import_or_skip("uvloop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            coro = runner.run(main())
        assert coro.cr_frame is None


def test_run_passes_exceptions(fb, loop_factory):
    async def main():
        fb.await_(asyncio.sleep(0))
        raise ValueError("main")

    with pytest.raises(ValueError, match="main"):
        fb.run(main(), loop_factory=loop_factory)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_run_with_eager_tasks(fb):
    def new_loop():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    order = []

    async def eager(n):
        order.append(n)
        fb.await_(asyncio.sleep(0))
        order.append(-n)
        return n

    async def ready(n):
        return fb.await_(identity(n))

    async def identity(n):
        return n

    async def main():
        done = asyncio.create_task(ready(9))
        assert done.done() and done.result() == 9
        tasks = [asyncio.create_task(eager(n)) for n in (1, 2, 3)]
        assert order == [1, 2, 3]
        fb.await_(asyncio.sleep(0))
        return await asyncio.gather(*tasks)

    assert fb.run(main(), loop_factory=new_loop) == [1, 2, 3]
    assert order == [1, 2, 3, -1, -2, -3]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_children_nest_and_interleave(fb):
    """Eager tasks start inside their creator's step: each suspends alone."""
    log = []

    async def nested(depth):
        log.append(("start", depth))
        task = asyncio.create_task(nested(depth - 1)) if depth else None
        for _ in range(depth % 3 + 1):
            fb.await_(asyncio.sleep(0))
        if task is not None:
            fb.await_(task)
        log.append(("end", depth))

    def new_loop():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(fb.create_task_factory(asyncio.eager_task_factory))
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(nested(30))
    assert log[:31] == [("start", n) for n in range(30, -1, -1)]
    assert sorted(log[31:]) == [("end", n) for n in range(31)]
    assert log[-1] == ("end", 30)


def test_task_factory_on_a_loop(fb, loop_factory):
    async def main():
        assert not fb.has_portal()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(fb.task_factory)
        task = asyncio.create_task(child(fb, 1), name="named")
        assert task.get_name() == "named"
        assert fb.has_portal(task)
        unnamed = asyncio.create_task(child(fb, 2))
        assert unnamed.get_name().startswith("Task-")
        ctx = contextvars.copy_context()
        ctx.run(var.set, "explicit")

        async def read():
            fb.await_(asyncio.sleep(0))
            return var.get()

        assert await loop.create_task(read(), context=ctx) == "explicit"
        return [await task, await unnamed]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main()) == [1, 2]


def test_task_names_are_never_none(fb):
    """CPython 3.13.0 hands `name=None` to task factories; that must not name tasks 'None'."""

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(fb)), asyncio.create_task(child(fb))]
            tasks.append(asyncio.get_running_loop().create_task(child(fb), name=None))
        return [t.get_name() for t in tasks] + [asyncio.current_task().get_name()]

    assert all(name.startswith("Task-") for name in fb.run(main()))

    async def inheriting():
        with fb.portals_for_children():
            return [n for n in await main() if n == "None"]

    assert asyncio.run(inheriting()) == []


def test_create_task_factory_around_another(fb):
    created = []

    class MyTask(asyncio.Task):
        pass

    def inner(loop, coro, **kwargs):
        if kwargs.get("name", True) is None:
            del kwargs["name"]
        task = MyTask(coro, loop=loop, **kwargs)
        created.append(task)
        return task

    async def main():
        asyncio.get_running_loop().set_task_factory(fb.create_task_factory(inner))
        task = asyncio.create_task(child(fb, 3), name="three")
        assert isinstance(task, MyTask) and task.get_name() == "three"
        return await task

    assert asyncio.run(main()) == 3
    assert created[0].get_name() == "three"


def test_create_task_factory_without_inner(fb):
    async def main():
        asyncio.get_running_loop().set_task_factory(fb.create_task_factory(None))
        return await asyncio.create_task(child(fb, 4))

    assert asyncio.run(main()) == 4


def test_repr_and_introspection_of_portal_tasks(fb):
    async def some_coroutine_name():
        fb.await_(asyncio.sleep(0.01))

    async def main():
        task = asyncio.create_task(some_coroutine_name())
        await asyncio.sleep(0)
        assert "some_coroutine_name" in repr(task)
        coro = task.get_coro()
        assert asyncio.iscoroutine(coro)
        assert coro.__name__ == "some_coroutine_name"
        assert coro.__qualname__.endswith("some_coroutine_name")
        assert coro.cr_code.co_name == "some_coroutine_name"
        assert coro.cr_frame is not None
        assert not coro.cr_running
        assert "some_coroutine_name" in repr(coro)
        await task
        assert coro.cr_frame is None
        assert "some_coroutine_name" in repr(task)

    fb.run(main())


def test_children_inherit_inside_a_scope(fb, loop_factory):
    async def grandparent():
        assert fb.has_portal()
        return [await asyncio.create_task(child(fb, n)) for n in range(3)]

    async def plain():
        return fb.has_portal()

    async def main():
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        with fb.portals_for_children():
            assert not fb.has_portal()
            assert await asyncio.create_task(grandparent()) == [0, 1, 2]
            with fb.portals_for_children():
                assert await asyncio.gather(child(fb, 1), child(fb, 2)) == [1, 2]
            assert await asyncio.create_task(grandparent()) == [0, 1, 2]
        assert loop.get_task_factory() is before
        assert not await asyncio.create_task(plain())
        assert await fb.with_portal_run_tree(grandparent) == [0, 1, 2]
        assert not fb.has_portal()
        async with fb.portals_for_tree():
            awaiting(fb)
            assert await asyncio.create_task(grandparent()) == [0, 1, 2]
        assert not await asyncio.create_task(plain())
        assert loop.get_task_factory() is before

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_unrelated_tasks_do_not_inherit(fb):
    async def bystander(seen):
        for _ in range(5):
            await asyncio.sleep(0)
            seen.append(await asyncio.create_task(plain()))

    async def plain():
        return fb.has_portal()

    async def main():
        seen = []
        task = asyncio.create_task(bystander(seen))
        with fb.portals_for_children():
            for _ in range(10):
                await asyncio.sleep(0)
                await asyncio.create_task(child(fb))
        await task
        assert seen == [False] * 5

    asyncio.run(main())


def test_scope_keeps_an_existing_factory(fb):
    class Marked(asyncio.Task):
        pass

    async def main():
        loop = asyncio.get_running_loop()
        made = []

        def counting(loop, coro, **kwargs):
            made.append(coro)
            if kwargs.get("name", True) is None:
                del kwargs["name"]
            return Marked(coro, loop=loop, **kwargs)

        loop.set_task_factory(counting)
        with fb.portals_for_children():
            task = asyncio.create_task(child(fb, 1))
            assert isinstance(task, Marked)
            await task
        assert loop.get_task_factory() is counting
        assert len(made) == 1  # the scope's end put the plain factory back

    asyncio.run(main())


def test_anyio_on_top(fb):
    anyio = import_or_skip("anyio")

    async def main():
        await fb.ensure_portal()
        with fb.async_context(anyio.create_task_group()) as group:
            group.start_soon(anyio.sleep, 0.01)
            with anyio.fail_after(5):
                fb.await_(anyio.sleep(0.01))
            with anyio.move_on_after(0.01) as scope:
                fb.await_(anyio.sleep(60))
            assert scope.cancelled_caught
        send, receive = anyio.create_memory_object_stream(1)
        with fb.async_context(send), fb.async_context(receive):
            fb.await_(send.send("item"))
            assert fb.await_(receive.receive()) == "item"
        return fb.await_(anyio.to_thread.run_sync(lambda: anyio.from_thread.run(give, 3)))

    async def give(n):
        await anyio.sleep(0)
        return n

    for name in ("asyncio", "trio"):
        import_or_skip(name)
        assert anyio.run(main, backend=name) == 3


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's call graph came with 3.14")
def test_call_graph(fb):
    def sync():
        fb.await_(asyncio.sleep(0.02))

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        await asyncio.sleep(0)
        text = asyncio.format_call_graph(task)
        assert "Task" in text
        await task

    asyncio.run(main())


def test_very_many_tasks(fb):
    async def main():
        return sum(await asyncio.gather(*(child(fb, n) for n in range(5000))))

    assert fb.run(main()) == sum(range(5000))


def test_native_task_keeps_the_real_future(fb):
    """`await_` hands the awaited future itself to the task, so tools see what it waits for."""

    async def main():
        future = asyncio.get_running_loop().create_future()

        async def wait():
            return fb.await_(future)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert "wait_for=<Future pending" in repr(task)
        future.set_result("x")
        return await task

    assert fb.run(main()) == "x"
