# expect-stdout: done
"""Everything at once, seeded: parked tasks and callbacks, portals, cancellation, timeouts, garbage
collection, deep recursion, trace functions, several loops after each other and in threads."""

import asyncio
import contextlib
import gc
import random
import sys
import threading

import fiberback


def deep(n):
    return deep(n - 1) if n else 0


def too_deep():
    return 1 + too_deep()


async def value(n, delay):
    await asyncio.sleep(delay)
    return n


class Finalized:
    def __init__(self):
        self.me = self

    def __del__(self):
        with contextlib.suppress(RuntimeError):
            fiberback.await_(asyncio.sleep(0))


def act(seed, depth=0):
    r = random.Random(seed)
    for k in range(r.randint(1, 8)):
        kind = r.randrange(10)
        if kind < 4:
            n = r.random()
            assert fiberback.await_(value(n, r.choice([0, 0, 0.0005]))) == n
        elif kind == 4:
            deep(r.randint(1, 200))
            with contextlib.suppress(RecursionError):
                too_deep()
        elif kind == 5:
            Finalized()
            gc.collect(r.randrange(2))
        elif kind == 6 and depth < 3:
            assert fiberback.await_(nested(seed + k, depth)) == seed + k
        elif kind == 7:
            try:
                raise KeyError(k)
            except KeyError as error:
                fiberback.await_(asyncio.sleep(0))
                assert sys.exc_info()[1] is error
        elif kind == 8:
            with contextlib.suppress(TimeoutError):
                fiberback.await_(asyncio.wait_for(asyncio.sleep(1), 0.0005))
        else:
            list(map(lambda n: fiberback.await_(value(n, 0)), range(3)))


async def nested(seed, depth):
    act(seed, depth + 1)
    await asyncio.sleep(0)
    return seed


async def task(seed):
    if seed % 5 == 0:
        await fiberback.ensure_portal()
    with contextlib.suppress(asyncio.CancelledError):
        act(seed)
    await asyncio.sleep(0)
    act(seed + 1)


async def main(seed):
    r = random.Random(seed)
    loop = asyncio.get_running_loop()
    left = 10
    idle = asyncio.Event()

    def callback(n):
        nonlocal left
        act(n)
        left -= 1
        if not left:
            idle.set()

    tasks = [asyncio.create_task(task(seed * 1000 + n)) for n in range(30)]
    for n in range(10):
        loop.call_later(r.random() / 100, callback, seed * 777 + n)
    for _ in range(10):
        await asyncio.sleep(r.random() / 500)
        r.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await idle.wait()


def traced(frame, event, argument):
    return traced


def run(seed):
    if seed % 7 == 3:
        sys.settrace(traced)
    try:
        if seed % 3 == 0:
            fiberback.run(main(seed))
        elif seed % 3 == 1:
            asyncio.run(main(seed), debug=seed % 2 == 0)
        else:
            with fiberback.enable():
                asyncio.run(main(seed))
    finally:
        sys.settrace(None)


def thread(first):
    for seed in range(first, first + 4):
        if seed % 3 == 2:
            continue  # enable() is for the whole process
        run(seed)


if not sys.warnoptions:
    import logging

    logging.getLogger("asyncio").setLevel(logging.ERROR)
for seed in range(12):
    run(seed)
threads = [threading.Thread(target=thread, args=(n * 100,)) for n in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("done")
