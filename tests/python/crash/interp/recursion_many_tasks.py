# expect-stdout: fine
"""Many tasks, each suspended deep in its stack, overflow in turn; each recovers."""

import asyncio

import fiberback


def dig(n):
    return dig(n + 1)


def deep(n):
    if n:
        return deep(n - 1)
    fiberback.await_(asyncio.sleep(0))
    try:
        dig(0)
    except RecursionError:
        pass
    fiberback.await_(asyncio.sleep(0))


async def main():
    await asyncio.gather(*(fiberback.with_portal_run_sync(deep, 300) for _ in range(200)))


asyncio.run(main())
print("fine")
