"""Birth and death: tasks never resumed, cycles, garbage, and everything released at the end."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import types
import warnings
import weakref

import pytest
from support import UNDER_TEST, only_fiberback


@types.coroutine
def trap(value=None):
    return (yield value)


class Canary:
    """Something whose death can be observed."""


def collect():
    for _ in range(3):
        gc.collect()


def drive_in_task(async_fn):
    """greenback needs a task around; a portal driven by hand inside one has nothing else to do."""

    async def main():
        return await async_fn()

    return asyncio.run(main())


def test_dropped_while_suspended_runs_finally(fb):
    log = []

    def sync():
        try:
            fb.await_(trap("suspended"))
        except GeneratorExit:
            log.append("GeneratorExit")
            raise
        finally:
            log.append("finally")

    async def main():
        coro = fb.with_portal_run_sync(sync)
        assert coro.send(None) == "suspended"
        del coro
        collect()
        assert log == ["GeneratorExit", "finally"]

    drive_in_task(main)


def test_never_started(fb):
    canary = Canary()
    alive = weakref.ref(canary)

    async def main():
        nonlocal canary
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            coro = fb.with_portal_run_sync(lambda c: None, canary)
            canary = None
            assert alive() is not None
            del coro
            collect()
            assert alive() is None

    drive_in_task(main)


def test_everything_is_released_after_success(backend, fb):
    alive = []

    def sync():
        canary = Canary()
        alive.append(weakref.ref(canary))
        fb.await_(backend.sleep(0))
        return weakref.ref(canary)

    async def main():
        for _ in range(10):
            await fb.with_portal_run_sync(sync)
        async with backend.group() as group:
            for _ in range(10):
                group.spawn(fb.with_portal_run_sync, sync)

    backend.run(main)
    collect()
    assert [ref() for ref in alive] == [None] * 20


def test_everything_is_released_after_failure_and_cancellation(backend, fb):
    alive = []

    def failing():
        canary = Canary()
        alive.append(weakref.ref(canary))
        fb.await_(backend.sleep(0))
        raise ValueError(canary)

    def waiting():
        canary = Canary()
        alive.append(weakref.ref(canary))
        fb.await_(backend.sleep(60))

    async def main():
        for _ in range(5):
            with pytest.raises(ValueError):
                await fb.with_portal_run_sync(failing)
        async with backend.group() as group:
            handles = [group.spawn(fb.with_portal_run_sync, waiting) for _ in range(5)]
            await backend.sleep(0.01)
            for handle in handles:
                handle.cancel()
        del handles

    backend.run(main)
    collect()
    assert [ref() for ref in alive] == [None] * 10


@only_fiberback
def test_suspended_tasks_of_a_dropped_loop(fb):
    """A loop abandoned with suspended tasks: they are garbage, and their finally blocks run."""
    log = []

    def sync(n):
        try:
            fb.await_(asyncio.get_running_loop().create_future())
        finally:
            log.append(n)

    async def start(n):
        await fb.with_portal_run_sync(sync, n)

    def abandon():
        loop = asyncio.new_event_loop()

        async def main():
            for n in range(20):
                loop.create_task(start(n))
            await asyncio.sleep(0.01)

        loop.run_until_complete(main())
        loop.set_exception_handler(lambda *_: None)
        loop.close()

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        abandon()
        collect()
    finally:
        sys.unraisablehook = hook
    assert sorted(log) == list(range(20))


@only_fiberback
def test_self_cycles(fb):
    """A suspended portal that references itself is not finalised half-way, whatever GC does."""
    log = []

    async def main():
        for _ in range(50):
            holder = {}

            def sync(holder=holder):
                local = [holder]
                try:
                    fb.await_(trap())
                finally:
                    log.append(len(local))

            coro = fb.with_portal_run_sync(sync)
            holder["coro"] = coro
            coro.send(None)
            collect()
            del coro, holder, sync
        collect()

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        drive_in_task(main)
        collect()
    finally:
        sys.unraisablehook = hook
    assert set(log) <= {1}


def test_gc_in_the_middle_of_everything(backend, fb):
    """Garbage collections at every step of many suspended stacks."""

    def sync(depth, payload):
        if depth:
            return sync(depth - 1, [payload, depth])
        for _ in range(5):
            fb.await_(backend.sleep(0))
            gc.collect(0)
        return payload

    async def main():
        async with backend.group() as group:
            for n in range(30):
                group.spawn(fb.with_portal_run_sync, sync, n, [n])
            for _ in range(5):
                gc.collect()
                await backend.sleep(0)

    threshold = gc.get_threshold()
    gc.set_threshold(10, 2, 2)
    try:
        backend.run(main)
    finally:
        gc.set_threshold(*threshold)


def test_resumed_while_running_is_refused(fb):
    async def main():
        errors = []

        def sync():
            try:
                coro.send(None)
            except (ValueError, RuntimeError) as error:
                errors.append(str(error))
            fb.await_(trap())

        coro = fb.with_portal_run_sync(sync)
        coro.send(None)
        assert "already" in errors[0]
        coro.close()

    drive_in_task(main)


@only_fiberback
def test_portal_object(fb):
    """The native object on its own: a coroutine around a coroutine."""
    from fiberback import _fiberback

    async def inner(x):
        await trap("one")
        fb_value = fb.await_(trap("two")) if _fiberback.on_portal() else None
        return x, fb_value

    async def main():
        coro = inner(1)
        portal = _fiberback.Portal(coro)
        assert portal.wrapped is coro
        assert _fiberback.Portal(portal) is portal
        assert asyncio.iscoroutine(portal)
        assert not portal.stepped
        assert portal.__name__ == "inner" and portal.cr_code is coro.cr_code
        assert portal.send(None) == "one"
        assert portal.stepped
        assert weakref.ref(portal)() is portal
        assert portal.send(None) == "two"
        with pytest.raises(StopIteration) as stop:
            portal.send("value")
        assert stop.value.value == (1, "value")
        with pytest.raises(RuntimeError, match="cannot reuse"):
            portal.send(None)

        portal = _fiberback.Portal(inner(2))
        portal.send(None)
        with pytest.raises(ValueError, match="thrown"):
            portal.throw(ValueError("thrown"))
        portal = _fiberback.Portal(inner(3))
        portal.close()
        portal.close()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            portal.send(None)
        for bad in (42, None, object(), [], inner):
            with pytest.raises(TypeError):
                _fiberback.Portal(bad)
        with pytest.raises(TypeError):
            _fiberback.bestow(42)
        with pytest.raises(TypeError):
            _fiberback.Portal()
        with pytest.raises(TypeError):
            type("Sub", (_fiberback.Portal,), {})

    asyncio.run(main())


def test_bestow_on_wrong_things(fb):
    for thing in (42, None, object(), "task"):
        with pytest.raises((TypeError, AssertionError)):
            fb.bestow_portal(thing)
        assert not fb.has_portal(thing) if UNDER_TEST == "fiberback" else True


def test_bestow_on_other_tasks_in_every_state(aio, fb):
    async def worker():
        had = fb.has_portal()
        await asyncio.sleep(0.01)
        fb.await_(asyncio.sleep(0))
        return had, fb.has_portal()

    async def main():
        fresh = asyncio.create_task(worker())
        waiting = asyncio.create_task(worker())
        fb.bestow_portal(fresh)
        await asyncio.sleep(0)
        fb.bestow_portal(waiting)
        fb.bestow_portal(waiting)
        assert fb.has_portal(waiting) and fb.has_portal(fresh)
        eager = aio.name == "eager"
        assert await fresh == (not eager, True)
        assert await waiting == (False, True)
        assert not fb.has_portal(fresh)

    aio.run(main)


@only_fiberback
def test_pure_python_tasks(fb):
    """asyncio's Python implementation of Task, as on alternative builds."""
    task_type = asyncio.tasks._PyTask

    def sync():
        fb.await_(asyncio.sleep(0))
        return "py"

    async def body():
        # Since 3.14 asyncio.current_task() knows nothing of such tasks, so none can be given a
        # portal for life.
        if asyncio.current_task() is None:
            return await fb.with_portal_run_sync(sync)
        await fb.ensure_portal()
        return sync()

    async def main():
        loop = asyncio.get_running_loop()
        return await task_type(body(), loop=loop)

    assert asyncio.run(main()) == "py"


def test_task_subclasses(fb):
    class MyTask(asyncio.Task):
        def __init__(self, *args, **kwargs):
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)
            self.extra = 1

    class SlotTask(asyncio.Task):
        __slots__ = ("a", "b")

    async def body():
        await fb.ensure_portal()
        fb.await_(asyncio.sleep(0))
        return type(asyncio.current_task())

    async def main():
        loop = asyncio.get_running_loop()
        for kind in (MyTask, SlotTask):
            assert await kind(body(), loop=loop) is kind

    asyncio.run(main())


def test_references_are_balanced(fb):
    """Counts of what passes through every path stay put."""
    sentinel = Canary()
    error = ValueError("reused")

    async def ready(value):
        return value

    async def failing():
        raise error

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return sentinel

    def sync():
        assert fb.await_(ready(sentinel)) is sentinel
        assert fb.await_(asyncio.sleep(0, sentinel)) is sentinel
        assert fb.await_(Awaitable()) is sentinel
        try:
            fb.await_(failing())
        except ValueError:
            error.__traceback__ = None
            error.__context__ = None
        return sentinel

    async def main():
        for round_number in range(300):
            if round_number == 100:
                collect()
                counts = refcounts()
            assert await fb.with_portal_run_sync(sync) is sentinel
            await asyncio.create_task(fb.with_portal_run(ready, sentinel))
            task = asyncio.create_task(fb.with_portal_run_sync(lambda: fb.await_(trap())))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task
        collect()
        assert counts == refcounts()

    def refcounts():
        things = (sentinel, error, ready, sync, Awaitable, trap)
        return [sys.getrefcount(thing) for thing in things]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["run_sync", "run", "ensure", "bestow"])
def test_no_objects_are_left(fb, how):
    async def use():
        fb.await_(asyncio.sleep(0))

    async def one():
        if how == "run_sync":
            await fb.with_portal_run_sync(lambda: fb.await_(asyncio.sleep(0)))
        elif how == "run":
            await fb.with_portal_run(use)
        elif how == "ensure":
            await fb.ensure_portal()
            await use()
        else:
            fb.bestow_portal(asyncio.current_task())
            await asyncio.sleep(0)
            await use()

    async def batch():
        await asyncio.gather(*(one() for _ in range(100)))

    def count():
        collect()
        return len(gc.get_objects())

    async def main():
        for _ in range(3):
            await asyncio.create_task(batch())
        before = count()
        for _ in range(5):
            await asyncio.create_task(batch())
        assert count() - before < 50

    asyncio.run(main())


def test_result_survives_the_portal(backend, fb):
    def sync():
        fb.await_(backend.sleep(0))
        return [Canary() for _ in range(3)]

    kept = backend.run(functools.partial(fb.with_portal_run_sync, sync))
    collect()
    assert all(isinstance(c, Canary) for c in kept)
