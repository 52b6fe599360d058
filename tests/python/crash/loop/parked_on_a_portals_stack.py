# expect-stdout: done
"""A stock loop that runs inside a step of a portal, on a fiber, has callers parked there."""

import asyncio

import fiberback


async def one(n):
    for k in range(3):
        fiberback.await_(asyncio.sleep(0.001 * ((n * k) % 3), n))
    return n


async def inner():
    return await asyncio.gather(*(asyncio.create_task(one(n)) for n in range(6)))


def nested():
    """What those do who run a loop inside another one by hand."""
    outer, me = asyncio.get_running_loop(), asyncio.current_task()
    asyncio.tasks._leave_task(outer, me)
    asyncio._set_running_loop(None)
    try:
        return asyncio.run(inner())
    finally:
        asyncio._set_running_loop(outer)
        asyncio.tasks._enter_task(outer, me)


async def main():
    await fiberback.ensure_portal()
    result = nested()
    fiberback.await_(asyncio.sleep(0.001))
    return result


for _ in range(10):
    assert asyncio.run(main()) == list(range(6))
    assert fiberback.run(main()) == list(range(6))
print("done")
