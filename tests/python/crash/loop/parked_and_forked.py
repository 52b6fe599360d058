# expect-stdout: child: [0, 1, 2]
# expect-stdout: parent: [0, 1, 2]
"""A process forks while callers are parked; both go on."""

import asyncio
import os
import sys

import fiberback


def wait(gates, n, log):
    log.append(fiberback.await_(gates[n]))


async def main():
    loop = asyncio.get_running_loop()
    gates = [loop.create_future() for _ in range(3)]
    log = []

    async def one(n):
        wait(gates, n, log)

    tasks = [asyncio.create_task(one(n)) for n in range(3)]
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        asyncio._set_running_loop(loop)  # a forked child is in no loop, says asyncio
    for n, gate in enumerate(gates):
        gate.set_result(n)
    await asyncio.gather(*tasks)
    who = "child" if child == 0 else "parent"
    os.write(1, f"{who}: {log}\n".encode())  # whole, or it would mix with the other's
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"the child ended with {status}")


asyncio.run(main())
