# expect-stdout: ended 200
# expect-stdout: threads known: 1
# expect-stdout: done
# expect-stderr: RuntimeWarning: the event loop was closed, and parked in fiberback.await_() are still
# expect-stderr: RuntimeWarning: the event loop's thread ends, and parked in fiberback.await_() are still
"""Threads end with callers parked on fibers of theirs; loops are closed before, or not, and collected."""

import asyncio
import gc
import threading
import warnings

import fiberback

warnings.simplefilter("always")
warnings.filterwarnings("ignore", category=ResourceWarning)
ended = []


async def parked():
    try:
        fiberback.await_(asyncio.sleep(1000))
    except asyncio.CancelledError:
        ended.append(threading.current_thread().name)
        raise


async def first():
    fiberback.await_(asyncio.sleep(0.001))


def thread(closes):
    loop = asyncio.new_event_loop()
    main = loop.create_task(first())
    for _ in range(5):
        loop.create_task(parked())
    loop.run_until_complete(main)
    if closes:
        loop.close()


for _ in range(10):
    threads = [threading.Thread(target=thread, args=(n % 2,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
print("ended", len(ended))
print("threads known:", len(threading._active))
assert not any("Dummy" in name for name in ended), ended
print("done")
