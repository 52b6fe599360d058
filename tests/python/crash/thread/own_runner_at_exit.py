# expect-stdout: generator closed
# expect-stdout: task cancelled
# expect-stdout: exit handler awaited
# expect-stdout: done in executor
"""The main thread's own runner is open when the interpreter exits, with everything on it."""

import asyncio
import atexit
import time

import fiberback


async def numbers():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        print("generator closed", flush=True)


async def background():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        fiberback.await_(asyncio.sleep(0))
        print("task cancelled", flush=True)
        raise


async def begin():
    global task, generator
    task = asyncio.create_task(background())
    generator = numbers()
    await asyncio.sleep(0)
    await anext(generator)
    asyncio.get_running_loop().run_in_executor(None, slow)


def slow():
    time.sleep(0.05)
    print("done in executor", flush=True)


def at_exit():
    fiberback.await_(asyncio.sleep(0.01))
    print("exit handler awaited", flush=True)


fiberback.await_(begin())
atexit.register(at_exit)
