# expect-stdout: done
# expect-stderr: in parked_function
"""faulthandler dumps all stacks from a signal, while callers are parked. (Not from its own thread, which
looks at running frames without the GIL: that kills CPython 3.12 without fiberback, too.)"""

import asyncio
import faulthandler
import os
import signal
import sys
import traceback

import fiberback

faulthandler.register(signal.SIGUSR1, all_threads=True)


def parked_function(n):
    fiberback.await_(asyncio.sleep(0.002 * n))
    os.kill(os.getpid(), signal.SIGUSR1)
    traceback.print_stack(file=open(os.devnull, "w"))
    for frame in sys._current_frames().values():
        traceback.extract_stack(frame)


async def task(n):
    parked_function(n)


async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(parked_function, 3)
    tasks = [asyncio.create_task(task(n)) for n in range(10)]
    for _ in range(10):
        for t in tasks:
            t.get_stack()
            t.print_stack(file=open(os.devnull, "w"))
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)


asyncio.run(main())
fiberback.run(main())
print("done")
