# expect-stdout: MemoryError
# expect-stdout: still works
"""No more address space for stacks: a MemoryError, and everything else goes on."""

import asyncio
import resource

import fiberback


def sync(future):
    fiberback.await_(future)


async def main():
    future = asyncio.get_running_loop().create_future()
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * 4096
    limit = used + (256 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    tasks = [asyncio.create_task(fiberback.with_portal_run_sync(sync, future)) for _ in range(3000)]
    done, pending = await asyncio.wait(tasks, timeout=0.2)
    errors = {type(task.exception()) for task in done}
    assert errors and all(issubclass(error, MemoryError) for error in errors), errors
    print("MemoryError")
    future.set_result(None)
    await asyncio.gather(*pending)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await fiberback.with_portal_run_sync(sync, asyncio.sleep(0))
    print("still works")


asyncio.run(main())
