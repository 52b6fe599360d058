"""Cancellation, timeouts and task groups reach sync code at its `await_`, as natively."""

from __future__ import annotations

import asyncio
import functools
import time

import pytest
from support import import_or_skip


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


def test_cancel_while_suspended(backend, fb):
    log = []

    async def sleeper():
        try:
            await backend.sleep(60)
        except backend.Cancelled:
            log.append("coroutine")
            raise

    def sync():
        try:
            fb.await_(sleeper())
        except backend.Cancelled:
            log.append("sync")
            raise
        finally:
            log.append("finally")

    async def main():
        async with backend.group() as group:
            handle = group.spawn(fb.with_portal_run_sync, sync)
            await backend.sleep(0.01)
            handle.cancel()

    backend.run(main)
    assert log == ["coroutine", "sync", "finally"]


def test_cancel_before_the_first_step(backend, fb):
    ran = []

    def sync():
        ran.append(1)
        fb.await_(backend.sleep(60))

    async def main():
        async with backend.group() as group:
            handle = group.spawn(fb.with_portal_run_sync, sync)
            handle.cancel()

    started = time.monotonic()
    backend.run(main)
    assert time.monotonic() - started < 5
    # Stock asyncio never enters a task cancelled before its first step; Trio and eager do.
    assert len(ran) == (0 if backend.name in ("asyncio", "uvloop") else 1)


def test_timeout_in_sync_code(backend, fb):
    async def limited():
        async with backend.timeout(0.02):
            await backend.sleep(60)

    def sync():
        with pytest.raises(backend.TimedOut):
            fb.await_(limited())
        fb.await_(backend.sleep(0))
        return "alive"

    assert in_portal(backend, fb, sync) == "alive"


def test_timeout_around_the_portal(backend, fb):
    log = []

    def sync():
        try:
            fb.await_(backend.sleep(60))
        finally:
            log.append("finally")

    async def main():
        with pytest.raises(backend.TimedOut):
            async with backend.timeout(0.02):
                await fb.with_portal_run_sync(sync)
        log.append("after")

    backend.run(main)
    assert log == ["finally", "after"]


def test_nested_timeouts_fire_where_they_belong(backend, fb):
    def inner():
        fb.await_(backend.sleep(60))

    def sync():
        async def quick():
            async with backend.timeout(0.02):
                inner()

        with pytest.raises(backend.TimedOut):
            fb.await_(quick())
        return "outer alive"

    async def main():
        async with backend.timeout(5):
            assert await fb.with_portal_run_sync(sync) == "outer alive"

    backend.run(main)


def test_async_cleanup_in_sync_finally(aio, fb):
    """asyncio delivers a cancellation once: the cleanup may await again."""
    log = []

    def sync():
        try:
            fb.await_(asyncio.sleep(60))
        finally:
            fb.await_(asyncio.sleep(0.01))
            log.append("cleaned")

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        await asyncio.sleep(0.01)
        task.cancel("with a message")
        with pytest.raises(asyncio.CancelledError) as info:
            await task
        assert info.value.args in [("with a message",), ()]
        assert task.cancelled()

    aio.run(main)
    assert log == ["cleaned"]


def test_swallowed_cancellation(aio, fb):
    def sync():
        try:
            fb.await_(asyncio.sleep(60))
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
        fb.await_(asyncio.sleep(0))
        return asyncio.current_task().cancelling()

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        await asyncio.sleep(0.01)
        task.cancel()
        assert await task == 0

    aio.run(main)


def test_cancel_oneself(aio, fb):
    def sync():
        asyncio.current_task().cancel()
        fb.await_(asyncio.sleep(0))

    async def main():
        task = asyncio.create_task(fb.with_portal_run_sync(sync))
        with pytest.raises(asyncio.CancelledError):
            await task

    aio.run(main)


def test_cancel_reaches_the_awaited_task(aio, fb):
    """Cancelling a portal'd task cancels the task it awaits: the real future is waited on."""
    inner_cancelled = []

    async def inner():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            inner_cancelled.append(True)
            raise

    def sync(task):
        fb.await_(task)

    async def main():
        child = asyncio.create_task(inner())
        task = asyncio.create_task(fb.with_portal_run_sync(sync, child))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert child.cancelled()

    aio.run(main)
    assert inner_cancelled


def test_shield(aio, fb):
    async def main():
        finished = []
        go_on = asyncio.Event()

        async def protected():
            await go_on.wait()
            finished.append(True)

        def sync(task):
            fb.await_(asyncio.shield(task))

        child = asyncio.create_task(protected())
        task = asyncio.create_task(fb.with_portal_run_sync(sync, child))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not finished
        go_on.set()
        await child
        assert finished

    aio.run(main)


def test_wait_for(aio, fb):
    def sync():
        with pytest.raises(TimeoutError):
            fb.await_(asyncio.wait_for(asyncio.sleep(60), 0.01))
        return fb.await_(asyncio.wait_for(asyncio.sleep(0, "value"), 5))

    assert in_portal(aio, fb, sync) == "value"


def test_failing_sibling_cancels_the_sync_code(backend, fb):
    log = []

    def waiting():
        try:
            fb.await_(backend.sleep(60))
        except backend.Cancelled:
            log.append("cancelled")
            raise

    async def failing():
        await backend.sleep(0.01)
        raise ValueError("sibling")

    async def main():
        with pytest.raises(BaseExceptionGroup) as info:
            async with backend.group() as group:
                group.spawn(fb.with_portal_run_sync, waiting)
                group.spawn(failing)
        assert [type(e) for e in info.value.exceptions] == [ValueError]

    backend.run(main)
    assert log == ["cancelled"]


def test_group_opened_in_sync_code(backend, fb):
    log = []

    async def child(n):
        await backend.sleep(0)
        log.append(n)

    def sync():
        with fb.async_context(backend.group()) as group:
            for n in range(5):
                group.spawn(child, n)
            fb.await_(backend.sleep(0))
            log.append("body")
        log.append("joined")

    in_portal(backend, fb, sync)
    assert sorted(log[:-1], key=str) == [0, 1, 2, 3, 4, "body"]
    assert log[-1] == "joined"


def test_trio_scopes(fb):
    trio = import_or_skip("trio")

    def sync():
        with trio.move_on_after(0.02) as scope:
            fb.await_(trio.sleep(60))
        assert scope.cancelled_caught
        with trio.move_on_after(0.01):
            try:
                fb.await_(trio.sleep(60))
            finally:
                with trio.CancelScope(shield=True):
                    fb.await_(trio.sleep(0.01))
                with pytest.raises(trio.Cancelled):
                    fb.await_(trio.sleep(0))
        with trio.CancelScope() as scope:
            scope.cancel()
            fb.await_(trio.lowlevel.cancel_shielded_checkpoint())
            fb.await_(trio.sleep(60))
        assert scope.cancelled_caught
        return "done"

    assert trio.run(functools.partial(fb.with_portal_run_sync, sync)) == "done"


def test_mass_cancellation(backend, fb):
    ended = []

    def sync(n):
        try:
            fb.await_(backend.sleep(60))
        except backend.Cancelled:
            ended.append(n)
            raise

    async def main():
        async with backend.group() as group:
            handles = [group.spawn(fb.with_portal_run_sync, sync, n) for n in range(500)]
            await backend.sleep(0.05)
            for handle in handles:
                handle.cancel()

    backend.run(main)
    assert sorted(ended) == list(range(500))


def test_generator_exit_when_a_suspended_coroutine_is_closed(fb):
    log = []

    async def inner():
        try:
            await asyncio.sleep(60)
        except GeneratorExit:
            log.append("inner")
            raise

    def sync():
        try:
            fb.await_(inner())
        except GeneratorExit:
            log.append("sync")
            raise
        finally:
            log.append("finally")

    async def main():
        coro = fb.with_portal_run_sync(sync)
        coro.send(None)
        coro.close()
        assert log == ["inner", "sync", "finally"]
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            coro.send(None)

    asyncio.run(main())


def test_ignored_generator_exit(fb):
    def sync():
        try:
            fb.await_(asyncio.sleep(60))
        except GeneratorExit:
            fb.await_(asyncio.sleep(60))

    async def main():
        coro = fb.with_portal_run_sync(sync)
        coro.send(None)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            coro.close()

    # What is still suspended in it may complain again when it dies for good.
    import gc
    import sys

    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        asyncio.run(main())
        gc.collect()
    finally:
        sys.unraisablehook = unraisable
