"""Prints what one wait of a kind costs: alone, and in a crowd of objects, modules, tasks and threads; from
a few frames deep, and from many. Microseconds, the least of some measurements.

`python cost_of_waits.py KIND`, greenlet loaded if there is one.
"""

import asyncio
import contextlib
import gc
import importlib.util
import json
import sys
import threading
import time
import types

import fiberback

if importlib.util.find_spec("greenlet") is not None:
    import greenlet  # noqa: F401 - that it is loaded is the point

WAITS, REPEATS, ROUNDS = 100, 5, 3
FEW_FRAMES, MANY_FRAMES = 5, 50


async def ready():
    return None


def pause():
    return asyncio.sleep(0)


def waits(awaitable, depth):
    """The least that a wait takes, `depth` frames below."""
    if depth > 0:
        return waits(awaitable, depth - 1)
    await_, clock, least = fiberback.await_, time.perf_counter, float("inf")
    for _ in range(REPEATS):
        begin = clock()
        for _ in range(WAITS):
            await_(awaitable())
        least = min(least, (clock() - begin) / WAITS * 1e6)
    return least


@contextlib.contextmanager
def crowd():
    """At least ten times as much of everything as there was, but for tasks."""
    objects = [[number] for number in range(500_000)]
    names = [f"crowd_{number}" for number in range(5_000)]
    sys.modules.update((name, types.ModuleType(name)) for name in names)
    leave = threading.Event()
    threads = [threading.Thread(target=leave.wait) for _ in range(30)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join()
        for name in names:
            del sys.modules[name]
        del objects


async def among(others, measure):
    """`await measure()` while so many tasks wait."""
    gate = asyncio.Event()
    tasks = [asyncio.create_task(gate.wait()) for _ in range(others)]
    await asyncio.sleep(0)
    try:
        return await measure()
    finally:
        gate.set()
        await asyncio.gather(*tasks)


def in_loop(run, measure):
    def kind(depth, others):
        async def main():
            return await among(others, lambda: measure(depth))

        return run(main())

    return kind


async def in_task(depth):
    return waits(pause, depth)


async def ready_in_task(depth):
    return waits(ready, depth)


def after_a_look_at_everything():
    gc.get_objects()
    sum(1 for _ in sys.modules)
    return ready()


def after_a_look_at_the_stack():
    frame, frames = sys._getframe(), []
    while frame is not None:
        frames.append(frame.f_lineno)
        frame = frame.f_back
    return ready()


async def looks_at_everything(depth):
    return waits(after_a_look_at_everything, depth)


async def looks_at_the_stack(depth):
    return waits(after_a_look_at_the_stack, 12 * depth)


async def ready_in_a_coroutine(depth):
    """For "many frames" the coroutine's own code waits, where `await_` looks whether it awaits the result."""
    if depth == FEW_FRAMES:
        return waits(ready, 0)
    await_, clock, least = fiberback.await_, time.perf_counter, float("inf")
    for _ in range(REPEATS):
        begin = clock()
        for _ in range(WAITS):
            await_(ready())
        least = min(least, (clock() - begin) / WAITS * 1e6)
    return least


async def in_thread(depth):
    return await asyncio.to_thread(waits, pause, depth)


async def in_our_thread(depth):
    return await fiberback.to_thread(waits, pause, depth)


async def in_anyio_thread(depth):
    import anyio.to_thread

    return await anyio.to_thread.run_sync(waits, pause, depth)


async def in_asgiref_thread(depth):
    from asgiref.sync import sync_to_async

    return await sync_to_async(waits)(pause, depth)


async def in_plain_thread(depth):
    loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def work():
        with fiberback.parent_loop(loop):
            loop.call_soon_threadsafe(answer.set_result, waits(pause, depth))

    threading.Thread(target=work).start()
    return await answer


async def in_callback(depth):
    answer = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: answer.set_result(waits(pause, depth)))
    return await answer


def without_loop(depth, others):
    return waits(pause, depth)


def in_trio(depth, others):
    import trio

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(others):
                nursery.start_soon(trio.sleep_forever)
            result = await fiberback.with_portal_run_sync(waits, trio.lowlevel.checkpoint, depth)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


KINDS = {
    "parked": in_loop(asyncio.run, in_task),
    "ready": in_loop(asyncio.run, ready_in_task),
    "ready in a coroutine": in_loop(asyncio.run, ready_in_a_coroutine),
    "portal": in_loop(fiberback.run, in_task),
    "ready on a portal": in_loop(fiberback.run, ready_in_task),
    "thread": in_loop(asyncio.run, in_thread),
    "our thread": in_loop(asyncio.run, in_our_thread),
    "anyio thread": in_loop(asyncio.run, in_anyio_thread),
    "asgiref thread": in_loop(asyncio.run, in_asgiref_thread),
    "told thread": in_loop(asyncio.run, in_plain_thread),
    "callback": in_loop(asyncio.run, in_callback),
    "callback under run": in_loop(fiberback.run, in_callback),
    "without a loop": without_loop,
    "trio": in_trio,
    # What must not be, to see that it is noticed.
    "a look at everything": in_loop(asyncio.run, looks_at_everything),
    "a look at the stack": in_loop(asyncio.run, looks_at_the_stack),
}


def main(name, rounds=ROUNDS):
    kind = KINDS[name]
    alone, crowded, few, many = [], [], [], []
    for _ in range(rounds):
        alone.append(kind(FEW_FRAMES, 10))
        with crowd():
            crowded.append(kind(FEW_FRAMES, 300))
        few.append(kind(FEW_FRAMES, 10))
        many.append(kind(MANY_FRAMES, 10))
    names = ("alone", "crowded", "few", "many")
    print(json.dumps(dict(zip(names, map(min, (alone, crowded, few, many)), strict=True))))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
