# expect: 3
# expect-stdout: interrupted
"""Ctrl-C while sync code on a fiber computes: KeyboardInterrupt comes out of asyncio.run."""

import asyncio
import os
import signal
import sys
import threading
import time

import fiberback


def sync():
    fiberback.await_(asyncio.sleep(0))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
    fiberback.await_(asyncio.sleep(10))


try:
    asyncio.run(fiberback.with_portal_run_sync(sync))
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(3)
