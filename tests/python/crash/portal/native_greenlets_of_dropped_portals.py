# expect-stdout: all unwound
"""Portals that have greenlets of SQLAlchemy's on their stacks are dropped from other portals."""

import asyncio
import gc
import random

import fiberback
from fiberback._fiberback import Portal

try:
    from sqlalchemy.util import await_only, greenlet_spawn
except ImportError:
    greenlet_spawn = None

rnd = random.Random(3)
unwound = []


async def victim(number):
    def sync(depth):
        if depth:
            return sync(depth - 1)
        try:
            if number % 2:
                await_only(asyncio.sleep(100))
            else:
                fiberback.await_(asyncio.sleep(100))
        finally:
            unwound.append(number)

    def below(depth):
        if depth:
            return below(depth - 1)
        return fiberback.await_(greenlet_spawn(sync, number % 10))

    if number % 3:
        below(number % 7)
    else:
        await greenlet_spawn(sync, number % 10)


async def killer(portals):
    def sync(depth):
        if depth:
            return sync(depth - 1)
        for _ in range(min(3, len(portals))):
            portals.pop(rnd.randrange(len(portals)))
        gc.collect()
        return fiberback.await_(asyncio.sleep(0))

    for _ in range(5):
        fiberback.await_(asyncio.sleep(rnd.random() * 0.002))
        if rnd.random() < 0.5:
            sync(rnd.randrange(20))
        else:
            await greenlet_spawn(sync, rnd.randrange(20))


async def main():
    portals = [Portal(victim(number)) for number in range(60)]
    for portal in portals:
        portal.send(None)  # by hand, so that nothing but the list holds it
    await asyncio.gather(*(killer(portals) for _ in range(20)))
    portals.clear()
    del portal
    gc.collect()
    await asyncio.sleep(0)  # those dropped inside a greenlet end at the next step outside
    assert sorted(unwound) == list(range(60)), unwound


if greenlet_spawn is not None:
    fiberback.run(main())
print("all unwound")
