"""Imported from an empty environment: a wait on a portal, a parked one, and a daemon thread that waits at exit."""

import asyncio
import os
import sys
import threading
import time

import fiberback

assert os.path.normcase(fiberback.__file__).startswith(os.path.normcase(sys.prefix)), (
    fiberback.__file__
)


def sync():
    return fiberback.await_(asyncio.sleep(0, 7))


async def main():
    return sync() + await fiberback.with_portal_run_sync(sync)


assert asyncio.run(main()) == fiberback.run(main()) == 14
begun = threading.Event()


def waits_for_ever():
    async def wait():
        begun.set()
        await asyncio.sleep(3600)

    fiberback.await_(wait())


threading.Thread(target=waits_for_ever, daemon=True).start()
assert begun.wait(60)
time.sleep(0.1)
print("works")
