# expect-stderr: in worker
# expect-stderr: in with_portal_run_sync
# expect-stdout: fine
"""faulthandler dumps the stack of a running fiber from a signal handler, at many moments.

(Not `dump_traceback_later`: its thread reads frames while they run, without the GIL, which crashes
CPython 3.11 to 3.13 with native coroutines just as often.)
"""

import asyncio
import faulthandler
import signal

import fiberback

faulthandler.register(signal.SIGUSR1, all_threads=False)


def dump():
    signal.raise_signal(signal.SIGUSR1)


async def leaf():
    dump()
    await asyncio.sleep(0)
    dump()


def worker(n):
    for i in range(20):
        fiberback.await_(leaf())
        sorted(range(3), key=lambda value: fiberback.await_(asyncio.sleep(0)) or value)
        if i == n:
            dump()


async def main():
    await asyncio.gather(*(fiberback.with_portal_run_sync(worker, n) for n in range(20)))
    dump()


asyncio.run(main())
print("fine")
