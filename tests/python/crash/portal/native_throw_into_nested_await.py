# expect-stdout: came back
"""An exception is thrown into a native await below a coroutine, and its handler suspends.

`_gen_throw` keeps the frame below in a C local meanwhile, which the next step must not find gone.
"""

import asyncio

import fiberback


def sync(depth):
    if depth:
        return sync(depth - 1)
    return fiberback.await_(asyncio.sleep(0.001))


async def inner():
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        for depth in range(30):
            sync(depth)
        return "came back"


async def middle():
    return await inner()


async def outer():
    result = await middle()
    sync(3)
    return result


def cancel(task, depth):
    if depth:
        cancel(task, depth - 1)
    else:
        task.cancel()


async def main():
    tasks = [asyncio.create_task(outer()) for _ in range(20)]
    await asyncio.sleep(0.001)
    for depth, task in enumerate(tasks):
        cancel(task, depth)
    results = await asyncio.gather(*tasks)
    assert len(set(results)) == 1
    print(results[0])


fiberback.run(main())
