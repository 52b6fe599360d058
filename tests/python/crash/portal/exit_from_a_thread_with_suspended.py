# expect-stdout: main left
"""A daemon thread has suspended portals when the interpreter exits."""

import asyncio
import threading
import time

import fiberback


def sync():
    fiberback.await_(asyncio.sleep(60))


def in_thread():
    async def main():
        await asyncio.gather(*(fiberback.with_portal_run_sync(sync) for _ in range(20)))

    asyncio.run(main())


threading.Thread(target=in_thread, daemon=True).start()
time.sleep(0.3)
print("main left", flush=True)
