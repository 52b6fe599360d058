# expect-stdout: MemoryError
# expect-stdout: still works
"""No more address space for stacks: a MemoryError, and everything else goes on."""

import asyncio
import resource

import fiberback

FAILURES = 0


def sync(future):
    fiberback.await_(future)


async def main():
    global FAILURES
    future = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(fiberback.with_portal_run_sync(sync, future)) for _ in range(3000)]
    done, pending = await asyncio.wait(tasks, timeout=0.2)
    errors = [task.exception() for task in done]
    assert all(isinstance(error, MemoryError) for error in errors), errors
    for error in errors:
        if isinstance(error, fiberback.StackMemoryError):
            assert "[fiberback:no-stack]" in str(error), error
            assert "fiberback.set_stack_size()" in str(error), error
    FAILURES += len(errors)
    future.set_result(None)
    await asyncio.gather(*pending)


with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
try:
    asyncio.run(main())
except MemoryError:
    FAILURES += 1  # the interpreter ran out itself
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if FAILURES:
    print("MemoryError")

FAILURES = 0
asyncio.run(main())
if not FAILURES:
    print("still works")
