# expect-stdout: child 0
# expect-stdout: parent fine
"""fork() with suspended portals; the child drops them, exits normally; the parent goes on."""

import asyncio
import gc
import os
import sys
import warnings

import fiberback

warnings.simplefilter("ignore", DeprecationWarning)


def sync(n):
    try:
        fiberback.await_(asyncio.sleep(0.2))
    finally:
        if n == -1:
            print("never")
    return n


async def main():
    tasks = [asyncio.create_task(fiberback.with_portal_run_sync(sync, n)) for n in range(100)]
    await asyncio.sleep(0)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        tasks.clear()
        gc.collect()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status))
    assert await asyncio.gather(*tasks) == list(range(100))


asyncio.run(main())
pid = os.fork()
if pid == 0:
    asyncio.run(fiberback.with_portal_run_sync(lambda: fiberback.await_(asyncio.sleep(0))))
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
print("parent fine")
