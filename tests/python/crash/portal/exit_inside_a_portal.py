# expect: 7
# expect-stdout: finally
"""sys.exit() in sync code below a portal, with other tasks suspended."""

import asyncio
import sys

import fiberback


def other():
    try:
        fiberback.await_(asyncio.sleep(60))
    finally:
        print("finally", flush=True)


def sync():
    fiberback.await_(asyncio.sleep(0.01))
    sys.exit(7)


async def main():
    task = asyncio.ensure_future(fiberback.with_portal_run_sync(other))
    await fiberback.with_portal_run_sync(sync)
    await task


asyncio.run(main())
