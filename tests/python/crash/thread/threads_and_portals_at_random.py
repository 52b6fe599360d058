# expect-stdout: fine
# leaks: on purpose
"""Threads pass half-run portals around, resume, throw, close and drop them wherever they are."""

import asyncio
import gc
import queue
import random
import sys
import threading
import types

import fiberback
from fiberback._fiberback import Portal

sys.unraisablehook = lambda _: None
sys.setswitchinterval(1e-5)
exchange = queue.SimpleQueue()


@types.coroutine
def trap():
    yield 1


async def body(n):
    try:
        for _ in range(n):
            fiberback.await_(trap())
            await trap()
    finally:
        await asyncio.sleep(0) if n == -1 else None


def worker(seed):
    rng = random.Random(seed)
    for _ in range(1500):
        try:
            portal = exchange.get_nowait() if rng.random() < 0.5 else Portal(body(rng.randrange(8)))
        except queue.Empty:
            continue
        try:
            action = rng.randrange(6)
            if action == 0:
                portal.close()
            elif action == 1:
                portal.throw(ValueError())
            else:
                portal.send(None)
        except (RuntimeError, ValueError, StopIteration, GeneratorExit):
            pass
        if rng.random() < 0.7:
            exchange.put(portal)
        del portal
        if rng.random() < 0.01:
            gc.collect()


threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
while not exchange.empty():
    exchange.get()
gc.collect()
print("fine")
