# expect-stderr: in worker
# expect-stdout: fine
"""faulthandler's periodic dumps hit running and suspended fibers."""

import asyncio
import faulthandler
import sys

import fiberback

faulthandler.dump_traceback_later(0.01, repeat=True, file=sys.stderr)


def worker(n):
    for _ in range(5000):
        fiberback.await_(asyncio.sleep(0))
        sum(range(500))


async def main():
    await asyncio.gather(*(fiberback.with_portal_run_sync(worker, n) for n in range(20)))


asyncio.run(main())
faulthandler.cancel_dump_traceback_later()
print("fine")
