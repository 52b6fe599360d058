"""Resident memory: portals come and go without growth, and many fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import UNDER_TEST, only_fiberback

PRELUDE = f"""
import asyncio, gc, sys
import {UNDER_TEST} as fb

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def measure(body):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return float(done.stdout)


def test_100_000_portals_leave_nothing():
    grown = measure("""
def sync():
    fb.await_(asyncio.sleep(0))

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(*(fb.with_portal_run_sync(sync) for _ in range(100)))
    await batch(10_000)
    gc.collect()
    before = rss()
    await batch(100_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more after 100,000 portals"


def test_100_000_portals_with_deep_frames_leave_nothing():
    """Deep frames make the interpreter chain data-stack chunks; all go back."""
    grown = measure("""
def deep(n):
    a = b = c = d = e = f = g = h = n
    if n:
        return deep(n - 1)
    fb.await_(asyncio.sleep(0))

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(*(fb.with_portal_run_sync(deep, 150) for _ in range(100)))
    await batch(1_000)
    gc.collect()
    before = rss()
    await batch(10_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 8 << 20, f"{grown / 2**20:.1f} MiB more after 10,000 deep portals"


def test_exceptions_and_cancellations_leave_nothing():
    grown = measure("""
def failing():
    fb.await_(asyncio.sleep(0))
    raise ValueError

def waiting():
    fb.await_(asyncio.get_running_loop().create_future())

async def main():
    async def batch(n):
        for _ in range(n // 100):
            await asyncio.gather(
                *(fb.with_portal_run_sync(failing) for _ in range(100)), return_exceptions=True
            )
            tasks = [asyncio.create_task(fb.with_portal_run_sync(waiting)) for _ in range(100)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    await batch(2_000)
    gc.collect()
    before = rss()
    await batch(20_000)
    gc.collect()
    print(rss() - before)

asyncio.run(main())
""")
    assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more"


@only_fiberback
def test_200_000_suspended_tasks():
    per_task = measure("""
def sync(future):
    fb.await_(future)

async def main():
    future = asyncio.get_running_loop().create_future()
    before = rss()
    tasks = [asyncio.create_task(fb.with_portal_run_sync(sync, future)) for _ in range(200_000)]
    await asyncio.sleep(0)
    per_task = (rss() - before) / len(tasks)
    future.set_result(None)
    await asyncio.gather(*tasks)
    print(per_task)

asyncio.run(main())
""")
    assert per_task < 20_000, f"{per_task:.0f} bytes for each suspended task"
