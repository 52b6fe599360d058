"""Trio only: portals that children inherit."""

from __future__ import annotations

import functools

import pytest
from support import UNDER_TEST, import_or_skip, only_fiberback

trio = import_or_skip("trio")
import_or_skip("trio.testing")


async def use(fb, depth=0):
    assert fb.has_portal()
    fb.await_(trio.sleep(0))
    if depth:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, fb, depth - 1)
            nursery.start_soon(use, fb, depth - 1)


async def refused(fb):
    assert not fb.has_portal()
    with pytest.raises(RuntimeError):
        fb.await_(trio.sleep(0))


def test_with_portal_run_tree(fb):
    async def main():
        async with trio.open_nursery() as outer:
            await fb.with_portal_run_tree(use, fb, 4)
            outer.start_soon(refused, fb)
        await refused(fb)

    trio.run(main)


def test_whole_run(fb):
    trio.run(functools.partial(fb.with_portal_run_tree, use, fb, 3))


def test_arguments_and_result(fb):
    async def fn(*args, **kwargs):
        return args, kwargs

    async def main():
        assert await fb.with_portal_run_tree(fn, 1, x=2) == ((1,), {"x": 2})

    trio.run(main)


def test_children_spawned_into_an_enclosing_nursery_do_not_inherit(fb):
    async def spawns_outside(outer):
        outer.start_soon(refused, fb)
        fb.await_(trio.sleep(0))

    async def main():
        async with trio.open_nursery() as outer:
            await fb.with_portal_run_tree(spawns_outside, outer)

    trio.run(main)


def test_portals_for_children(fb):
    async def main():
        with fb.portals_for_children():
            assert not fb.has_portal()
            with fb.portals_for_children():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(use, fb, 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, fb, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, fb)
        assert not [i for i in instruments() if isinstance(i, fb.AutoPortalInstrument)]

    def instruments():
        return list(trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments)

    trio.run(main)


def test_portals_for_tree(fb):
    async def main():
        await refused(fb)
        async with fb.portals_for_tree():
            await use(fb, 3)
            async with fb.portals_for_tree():
                await use(fb, 1)
            await use(fb)
        await refused(fb)
        with pytest.raises(ValueError, match="leaves"):
            async with fb.portals_for_tree():
                fb.await_(trio.sleep(0))
                raise ValueError("leaves")
        await refused(fb)

    trio.run(main)


def test_portals_for_tree_keeps_an_older_portal(fb):
    async def main():
        await fb.ensure_portal()
        async with fb.portals_for_tree():
            await use(fb, 1)
        await use(fb)

    trio.run(main)


def test_auto_portal_instrument(fb):
    async def main():
        await use(fb, 3)
        trio.lowlevel.spawn_system_task(use, fb)
        await trio.sleep(0.01)

    trio.run(main, instruments=[fb.AutoPortalInstrument()])


def test_checkpoints(fb):
    from trio.testing import assert_checkpoints, assert_no_checkpoints

    async def nothing():
        pass

    async def main():
        with assert_no_checkpoints():
            await fb.with_portal_run(nothing)
            await fb.with_portal_run_sync(int)
            await fb.with_portal_run_tree(nothing)
        with assert_checkpoints():
            await fb.ensure_portal()
        with assert_checkpoints():
            await fb.ensure_portal()
        with assert_no_checkpoints():
            fb.await_(nothing())

    trio.run(main)


@pytest.mark.skipif(UNDER_TEST == "fiberback", reason="fiberback offers this on asyncio too")
def test_only_under_trio(fb):
    import asyncio

    async def nothing():
        pass

    with pytest.raises(RuntimeError, match="only supported when running under Trio"):
        with fb.portals_for_children():
            pass
    with pytest.raises(RuntimeError, match="only supported when running under Trio"):
        asyncio.run(fb.with_portal_run_tree(nothing))


def test_cancelled_tree(fb):
    ended = []

    def sync():
        try:
            fb.await_(trio.sleep_forever())
        finally:
            ended.append(1)

    async def leaf():
        sync()

    async def tree():
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(leaf)

    async def main():
        with trio.move_on_after(0.05):
            await fb.with_portal_run_tree(tree)

    trio.run(main)
    assert len(ended) == 10


@only_fiberback
def test_keyboard_interrupt_protection_as_natively(fb):
    """Trio finds a task's protection by its coroutine's frame; a portal must not hide that."""
    seen = []

    def look():
        seen.append(trio.lowlevel.currently_ki_protected())

    def sync():
        look()
        fb.await_(trio.sleep(0))
        look()

    async def main():
        look()
        await fb.ensure_portal()
        sync()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fb.with_portal_run_sync, sync)

    async def system():
        await fb.ensure_portal()
        sync()

    async def outer():
        await main()
        trio.lowlevel.spawn_system_task(system)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(outer)
    assert seen == [False] + [False, False] * 2 + [True, True]
