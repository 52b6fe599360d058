# expect-stdout: 60 60 60 0
"""Threads end with runners of their own: each is closed in its thread, with everything on it."""

import asyncio
import gc
import threading

import fiberback
from fiberback._thread import runner

closed, cancelled, suspended = [], [], []


async def numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        closed.append(threading.get_ident())


def deep():
    try:
        fiberback.await_(asyncio.sleep(60))
    finally:
        suspended.append(threading.get_ident())


async def sync_below():
    deep()


async def native():
    try:
        await asyncio.sleep(60)
    finally:
        cancelled.append(threading.get_ident())


async def begin():
    generator = numbers()
    keep.append(generator)
    await anext(generator)
    keep.append(asyncio.create_task(sync_below()))
    keep.append(asyncio.create_task(native()))
    keep.append(asyncio.get_running_loop().run_in_executor(None, gc.collect))
    await asyncio.sleep(0.001)


keep = []
idents = []


def work():
    idents.append(threading.get_ident())
    fiberback.await_(begin())
    assert fiberback.await_(asyncio.sleep(0, "again")) == "again"


for _ in range(6):
    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert sorted(closed) == sorted(cancelled) == sorted(suspended) == sorted(idents)
print(len(closed), len(cancelled), len(suspended), len(runner._open_loops))
