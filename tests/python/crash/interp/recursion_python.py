# expect-stdout: RecursionError
# expect-stdout: RecursionError after suspending
# expect-stdout: fine
"""Endless Python recursion on a fiber ends in RecursionError, at any recursion limit."""

import asyncio
import sys

import fiberback


def forever(n):
    return forever(n + 1)


def sync():
    try:
        forever(0)
    except RecursionError:
        print("RecursionError")
    fiberback.await_(asyncio.sleep(0))
    try:
        forever(0)
    except RecursionError:
        print("RecursionError after suspending")
    for limit in (2000, 10_000, 50_000):
        sys.setrecursionlimit(limit)
        try:
            forever(0)
        except RecursionError:
            pass
        fiberback.await_(asyncio.sleep(0))


asyncio.run(fiberback.with_portal_run_sync(sync))
print("fine")
