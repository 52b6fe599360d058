# expect-stdout: fine
"""A child is forked below a task, while other threads' tasks are suspended and parked: their stacks are the
parent's. It dumps, also on a signal, and so does a child of it."""

import asyncio
import os
import signal
import threading
import warnings

import fiberback

warnings.simplefilter("ignore", DeprecationWarning)
reads, writes = os.pipe()
fiberback.dump_on(signal.SIGUSR1, file=writes)


def deep(n):
    if n:
        return deep(n - 1)
    return fiberback.await_(asyncio.sleep(30))


async def many(ready):
    tasks = [asyncio.create_task(fiberback.with_portal_run_sync(deep, 2)) for _ in range(3)]
    tasks += [asyncio.create_task(parked()) for _ in range(3)]
    await asyncio.sleep(0.05)
    ready.set()
    await asyncio.wait(tasks)


async def parked():
    deep(2)


def told():
    text = b""
    while b"\n\n" not in text or not text.endswith(b"\n\n"):
        text += os.read(reads, 1 << 16)
    return text.decode()


def look(generation):
    for _ in range(2):
        text = fiberback.dump()
        assert text.startswith(f"Process {os.getpid()}:"), text
        fiberback.stacks()
    os.kill(os.getpid(), signal.SIGUSR1)
    text = told()
    assert text.startswith(f"Process {os.getpid()}:"), text
    if generation < 2:
        child = os.fork()
        if not child:
            look(generation + 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


async def main():
    ready = [threading.Event(), threading.Event()]
    for event, run in zip(ready, (asyncio.run, fiberback.run), strict=True):
        threading.Thread(target=run, args=(many(event),), daemon=True).start()
        event.wait()
    task = asyncio.create_task(parked())
    await asyncio.sleep(0.01)
    text = fiberback.dump()
    assert text.count("in deep") == 13 * 3, text
    look(0)
    text = fiberback.dump()
    assert text.count("in deep") == 13 * 3, text
    task.cancel()


asyncio.run(main())
print("fine", flush=True)
os._exit(0)
