# expect-stdout: main left
"""Daemon threads with loops of their own switch every microsecond when the interpreter exits."""

import asyncio
import sys
import threading
import time

import fiberback

sys.setswitchinterval(1e-6)
LOCAL = threading.local()


def worker():
    LOCAL.count = getattr(LOCAL, "count", 0) + 1
    for _ in range(20):
        fiberback.await_(asyncio.sleep(0))
        sorted(range(3), key=lambda n: fiberback.await_(asyncio.sleep(0)) or n)


def forever():
    async def main():
        while True:
            await asyncio.gather(*(fiberback.with_portal_run_sync(worker) for _ in range(10)))

    asyncio.run(main())


def once():
    async def main():
        await asyncio.gather(*(fiberback.with_portal_run_sync(worker) for _ in range(10)))

    asyncio.run(main())


for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
ending = [threading.Thread(target=once) for _ in range(8)]
for thread in ending:
    thread.start()
for thread in ending:
    thread.join()
time.sleep(0.1)
print("main left", flush=True)
