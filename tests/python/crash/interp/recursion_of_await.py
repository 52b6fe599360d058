# expect-stdout: fine
"""await_ → coroutine → sync → await_ …, without end, with and without suspensions, nested portals."""

import asyncio

import fiberback


async def ready_coroutine(n):
    return ready_sync(n + 1)


def ready_sync(n):
    return fiberback.await_(ready_coroutine(n))


async def waiting_coroutine(n):
    if n % 50 == 0:
        await asyncio.sleep(0)
    return waiting_sync(n + 1)


def waiting_sync(n):
    return fiberback.await_(waiting_coroutine(n))


async def portal_in_portal(n):
    return await fiberback._portal.call_portal.through(
        fiberback._fiberback.Portal(portal_in_portal(n + 1)), asyncio.current_task()
    )


class Awaitable:
    def __await__(self):
        return fiberback.await_(Awaitable())


def sync(endless):
    for _ in range(3):
        try:
            endless()
        except (RecursionError, MemoryError):
            pass
        fiberback.await_(asyncio.sleep(0))


async def main():
    for endless in (
        lambda: ready_sync(0),
        lambda: waiting_sync(0),
        lambda: fiberback.await_(portal_in_portal(0)),
        lambda: fiberback.await_(Awaitable()),
    ):
        await fiberback.with_portal_run_sync(sync, endless)


asyncio.run(main())
print("fine")
