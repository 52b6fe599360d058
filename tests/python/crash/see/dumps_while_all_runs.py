# expect-stdout: fine
"""Dumps by threads of their own, while other threads' tasks suspend, park, go on and end, and threads come and
go."""

import asyncio
import gc
import random
import sys
import threading
import time

import fiberback

sys.setswitchinterval(1e-5)
END = time.monotonic() + 4


def deep(n, pick):
    if n:
        return deep(n - 1, pick)
    return fiberback.await_(asyncio.sleep(pick.choice((0, 0, 0.001))))


async def task(pick):
    for _ in range(5):
        deep(pick.randrange(6), pick)
        if pick.random() < 0.1:
            await asyncio.to_thread(deep, 2, pick)


async def main(pick):
    while time.monotonic() < END:
        await asyncio.gather(*(task(pick) for _ in range(10)))


def thread(number):
    pick = random.Random(number)
    (fiberback.run if number % 2 else asyncio.run)(main(pick))


def brief():
    pick = random.Random(0)
    while time.monotonic() < END:
        one = threading.Thread(target=deep, args=(2, pick))
        one.start()
        one.join()


def dumps():
    while time.monotonic() < END:
        assert fiberback.dump().startswith("Process ")
        gc.collect(0)


failed = []
threading.excepthook = lambda told: failed.append(told) or sys.__excepthook__(*told[:3])
threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
threads += [threading.Thread(target=target) for target in (brief, dumps, dumps)]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert not failed
print("fine")
