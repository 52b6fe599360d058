# expect-stdout: interrupted
"""Ctrl-C with portals under Trio."""

import os
import signal
import sys
import threading

import fiberback

try:
    import trio
except ImportError:
    print("interrupted")
    sys.exit()


def sync():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    fiberback.await_(trio.sleep(10))


async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fiberback.with_portal_run_sync, sync)


try:
    trio.run(main, strict_exception_groups=False)
except KeyboardInterrupt:
    print("interrupted")
except BaseExceptionGroup as group:
    assert group.subgroup(KeyboardInterrupt)
    print("interrupted")
