# expect-stdout: fine
"""Garbage collection in every callback, with parked and suspended callers: their frames are walked,
their objects listed, and finalizers, weak-reference and collector callbacks await."""

import asyncio
import gc
import sys
import weakref

import fiberback

awaited = 0
sys.unraisablehook = lambda _: None


class Ring:
    def __init__(self):
        self.me = self

    def __del__(self):
        quietly_await()


class Thing:
    pass


def quietly_await(*_):
    global awaited
    try:
        fiberback.await_(asyncio.sleep(0))
        awaited += 1
    except (RuntimeError, asyncio.CancelledError):
        pass


def look():
    gc.collect()
    for thing in gc.get_objects()[::50]:
        gc.is_tracked(thing)
        # CPython 3.12's `_asyncio` shows its free list, of objects that nobody refers to: to ask twice for
        # them hangs any program (module_traverse in Modules/_asynciomodule.c; docs/known-crashes.md).
        if thing is not sys.modules["_asyncio"]:
            gc.get_referents(thing)
    frame = sys._getframe()
    while frame is not None:
        gc.get_referrers(frame)
        frame = frame.f_back


def act(n):
    held = [Thing(), weakref.WeakValueDictionary()]
    for k in range(4):
        thing = Thing()
        held[1][k] = thing
        reference = weakref.ref(thing, quietly_await)
        Ring()
        fiberback.await_(asyncio.sleep(0))
        del thing
        assert reference() is None
        gc.collect(k % 3)
        if k == n % 4:
            list(map(lambda n: fiberback.await_(value(n)), range(2)))
    return n


async def value(n):
    Ring()
    await asyncio.sleep(0)
    return n


async def task(n):
    if n % 2:
        await fiberback.ensure_portal()
    assert act(n) == n


async def main():
    loop = asyncio.get_running_loop()
    over = False
    left = 4

    def collect():
        gc.collect()
        if not over:
            loop.call_soon(collect)

    def callback(n):
        nonlocal left
        act(n)
        left -= 1

    collect()
    for n in range(left):
        loop.call_soon(callback, n)
    tasks = [asyncio.create_task(task(n)) for n in range(10)]
    for k in range(6):
        await asyncio.sleep(0)
        look()
        if k == 3:
            gc.freeze()
    gc.unfreeze()
    tasks[5].cancel()
    tasks[6].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [o for o in outcomes if o and not isinstance(o, asyncio.CancelledError)], outcomes
    while left:
        await asyncio.sleep(0)
    over = True


def on_collection(phase, info):
    quietly_await()


for run in (asyncio.run, fiberback.run):
    run(main())
gc.set_threshold(20, 1, 1)
gc.callbacks.append(on_collection)
for run in (asyncio.run, fiberback.run):
    run(main())
gc.callbacks.clear()
gc.set_threshold(700, 10, 10)
assert awaited > 100, awaited
print("fine")
