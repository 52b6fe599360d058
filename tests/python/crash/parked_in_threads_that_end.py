# expect-stdout: done
"""Threads end with callers parked on fibers of theirs, loops are closed and collected."""

import asyncio
import gc
import threading

import fiberback


async def parked():
    fiberback.await_(asyncio.sleep(1000))


async def first():
    fiberback.await_(asyncio.sleep(0.001))


def thread():
    loop = asyncio.new_event_loop()
    main = loop.create_task(first())
    tasks = [loop.create_task(parked()) for _ in range(5)]
    loop.run_until_complete(main)
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()


for _ in range(5):
    threads = [threading.Thread(target=thread) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
print("done")
