# expect-stdout: child fine
# expect-stdout: parent fine
"""fork() from the depths of one portal while others are suspended; both processes go on with all."""

import asyncio
import gc
import os
import types
import warnings

import fiberback
from fiberback._fiberback import Portal

warnings.simplefilter("ignore", DeprecationWarning)
CHILDREN = []


@types.coroutine
def trap():
    return (yield "trap")


def nested(n):
    return sorted([n], key=lambda n: nested(n - 1) and n if n else fiberback.await_(trap()))


async def body(n):
    first = fiberback.await_(trap())
    nested(3)
    return first + n


async def forking():
    fiberback.await_(trap())
    CHILDREN.append(os.fork())
    fiberback.await_(trap())
    return "forked"


def finish(portal, value):
    try:
        while True:
            portal.send(value)
    except StopIteration as stop:
        return stop.value


portals = [Portal(body(n)) for n in range(50)]
for portal in portals:
    assert portal.send(None) == "trap"
fork = Portal(forking())
fork.send(None)
fork.send(None)
who = "child" if CHILDREN == [0] else "parent"
if who == "parent":
    _, status = os.waitpid(CHILDREN[0], 0)
    assert status == 0, status
del portals[40:]  # some are dropped where they are
gc.collect()
assert finish(fork, None) == "forked"
assert [finish(portal, 1) for portal in portals] == [n + 1 for n in range(40)]


async def main():
    await asyncio.gather(
        *(fiberback.with_portal_run_sync(fiberback.await_, asyncio.sleep(0)) for _ in range(100))
    )


asyncio.run(main())
print(who, "fine", flush=True)
