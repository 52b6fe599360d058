"""Tasks that begin in one turn of the loop and compute for long, and the loop's other tasks meanwhile."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import fiberback
from support import only_fiberback

pytestmark = only_fiberback

COUNT = 8


def spin():
    """For longer than a turn may take before the next one begins."""
    from fiberback._blocking.turns import LONGEST

    end = time.monotonic() + LONGEST
    while time.monotonic() <= end:
        pass


def begun(backend, going):
    """How many turns the loop has had when each of several tasks that are begun in one turn begins."""

    async def main():
        seen = []

        def work():
            seen.append(turns.turns)
            spin()

        async with going() as turns:
            await backend.sleep(0)
            async with backend.group() as group:
                for _ in range(COUNT):
                    group.spawn(fiberback.with_portal_run_sync, work)
        return seen

    found = backend.run(main)
    assert len(found) == COUNT
    return found


def rises(seen):
    """(On Trio the order within a turn is random: who comes last in one may come first in the next.)"""
    return all(later > earlier for earlier, later in zip(seen, seen[2:], strict=False))


def test_who_begins_gives_way(backend, going):
    with fiberback.blocking.install():
        assert rises(begun(backend, going))
    with fiberback.blocking.install(without=["turns"]):
        assert len(set(begun(backend, going))) <= 2
    assert len(set(begun(backend, going))) <= 2


def test_the_first_in_a_turn_begins_at_once(backend):
    async def main():
        order = []

        def work():
            order.append("work")
            spin()

        for _ in range(3):
            async with backend.group() as group:
                group.spawn(fiberback.with_portal_run_sync, work)
                await backend.sleep(0)
                order.append("later")
            await backend.sleep(0)
        return order

    with fiberback.blocking.install():
        found = backend.run(main)
    if backend.name != "trio":  # where the order is random
        assert found == ["work", "later"] * 3


def test_who_is_cancelled_before_it_begins(aio):
    """And those behind it go on."""

    async def main():
        begun = []

        def work(number):
            begun.append(number)
            spin()

        async with aio.group() as group:
            handles = [group.spawn(fiberback.with_portal_run_sync, work, n) for n in range(4)]
            while not begun:
                await aio.sleep(0)
            assert begun == [0]
            handles[2].cancel()
        return begun

    with fiberback.blocking.install():
        assert aio.run(main) == [0, 1, 3]


def test_loops_one_after_the_other(aio, going):
    """What one has left behind is not the next one's."""

    async def main():
        begun = []
        for _ in range(3):
            await fiberback.with_portal_run_sync(lambda: begun.append(1) or spin())
        return begun

    with fiberback.blocking.install():
        for _ in range(3):
            assert aio.run(main) == [1, 1, 1]


def test_who_cleans_up_is_called_at_once(backend):
    """As without hooks: cancelled or not, it begins. (On Trio a cancelled task cannot wait for a turn.)"""

    async def main():
        closed = []

        async def task():
            try:
                await backend.sleep(3600)
            finally:
                await fiberback.with_portal_run_sync(spin)
                await fiberback.with_portal_run_sync(closed.append, 1)

        async with backend.group() as group:
            handle = group.spawn(task)
            await backend.sleep(0)
            await backend.sleep(0)
            handle.cancel()
        return closed

    with fiberback.blocking.install():
        assert backend.run(main) == [1]


def test_a_loop_that_is_closed_while_somebody_waits_is_gone():
    async def main(loop):
        for _ in range(3):
            loop.create_task(fiberback.with_portal_run_sync(spin))
        await asyncio.sleep(0)

    def closed():
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # "was destroyed but it is pending"
        loop.run_until_complete(main(loop))
        loop.close()
        return weakref.ref(loop)

    with fiberback.blocking.install():
        loop = closed()
        gc.collect()
        assert loop() is None
