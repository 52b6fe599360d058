"""The event that native extensions wait for: set by any thread, awaited on any loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


@pytest.fixture
def event():
    from fiberback._loop.external_event import ExternalEvent

    return ExternalEvent()


def test_set_before_and_again(event):
    async def main():
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        event.set()
        event.set()
        await event.wait()
        # The loop has had a turn.
        assert turns == [1]

    assert repr(event) == "<ExternalEvent unset>"
    asyncio.run(main())
    assert repr(event) == "<ExternalEvent set>"


def test_set_by_a_thread_wakes_everybody(event):
    async def main():
        waiters = [asyncio.ensure_future(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=event.set).start()
        await asyncio.wait_for(asyncio.gather(*waiters), 10)

    asyncio.run(main())


def test_a_cancelled_waiter_is_forgotten(event):
    async def main():
        waiter = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert not event._wakers
        # Cancelled and set in one turn: whichever way it goes, nothing is raised in the loop.
        waiter = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        event.set()
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)

    asyncio.run(main(), debug=True)


def test_set_after_the_loop_was_closed(event):
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(event.wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    event.set()
    assert not waiter.done()
    waiter.get_coro().close()
    waiter._log_destroy_pending = False


def test_trio(event):
    trio, testing = import_or_skip("trio"), import_or_skip("trio.testing")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(event.wait)
            await testing.wait_all_tasks_blocked()
            threading.Thread(target=event.set).start()
        await event.wait()

    async def cancelled():
        with trio.move_on_after(0):
            await type(event)().wait()
            raise AssertionError

    trio.run(main)
    trio.run(cancelled)


def test_set_after_trios_run(event):
    trio = import_or_skip("trio")
    waits = event.wait()

    async def main():
        waits.send(None)

    trio.run(main)
    event.set()
    waits.close()
