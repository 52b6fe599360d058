# expect: 0
# expect-stdout: done
"""Our greenlets and greenlet's in one process: each kind begun, switched to and waiting inside of the other."""

import asyncio
import gc
import random
import sys

try:
    import greenlet as real
except ImportError:
    print("done")
    sys.exit()
import fiberback
import fiberback.greenlet as ours

gc.freeze()  # collections are of what the program makes

KINDS = [real, ours]


async def later(value):
    await asyncio.sleep(0)
    return value


def nested(rnd, depth, can_wait):
    """Greenlets within greenlets, of kinds at random; the value that comes back through all of them."""
    if depth == 0:
        return fiberback.await_(later(0)) if can_wait else 0
    kind = rnd.choice(KINDS)
    caller = kind.getcurrent()

    def body(first):
        second = caller.switch(first + 1)
        return nested(rnd, depth - 1, can_wait) + second

    g = kind.greenlet(body)
    assert g.switch(1) == 2
    if rnd.random() < 0.2:
        gc.collect()
    return g.switch(1)


async def tasks(seed, count):
    async def task(number):
        rnd = random.Random(seed + number)
        for _ in range(20):
            depth = rnd.randrange(6)
            assert nested(rnd, depth, True) == depth
            await asyncio.sleep(0)

    await asyncio.gather(*(task(number) for number in range(count)))


for seed in range(5):
    rnd = random.Random(seed)
    for depth in range(8):
        assert nested(rnd, depth, False) == depth
    fiberback.run(tasks(seed, 10))
    asyncio.run(tasks(seed, 10))
print("done")
