# expect-stdout: 70000
"""More suspended tasks than the kernel allows mappings to a process (65,530)."""

import asyncio

import fiberback


def sync(future):
    fiberback.await_(future)
    return 1


async def main():
    future = asyncio.get_running_loop().create_future()
    coros = [fiberback.with_portal_run_sync(sync, future) for _ in range(70_000)]
    tasks = [asyncio.create_task(coro) for coro in coros]
    await asyncio.sleep(0)
    future.set_result(None)
    print(sum(await asyncio.gather(*tasks)))


asyncio.run(main())
