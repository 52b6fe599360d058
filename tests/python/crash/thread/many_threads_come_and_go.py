# expect-stdout: fine
"""Hundreds of short threads, each with a loop and portals; stacks of dead threads go back."""

import asyncio
import threading

import fiberback


def sync():
    fiberback.await_(asyncio.sleep(0))


def in_thread():
    async def main():
        await asyncio.gather(*(fiberback.with_portal_run_sync(sync) for _ in range(20)))

    asyncio.run(main())


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def batch(n):
    for _ in range(n):
        threads = [threading.Thread(target=in_thread) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


batch(20)
before = rss()
batch(80)
assert rss() - before < 16 << 20, (rss() - before) / 2**20
print("fine")
