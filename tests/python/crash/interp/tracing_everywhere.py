# expect-stdout: fine
"""Trace and profile functions that raise, await, switch themselves off, or drop tasks."""

import asyncio
import sys

import fiberback


def worker():
    for _ in range(3):
        fiberback.await_(asyncio.sleep(0))
    return 1


def raising(frame, event, arg):
    if event == "line" and frame.f_code.co_name == "worker":
        raise ValueError
    return raising


def awaiting(frame, event, arg):
    try:
        fiberback.await_(asyncio.sleep(0))
    except RuntimeError:
        pass
    return awaiting


def switching_off(frame, event, arg):
    sys.settrace(None)
    sys.setprofile(None)


async def main():
    for install in (sys.settrace, sys.setprofile):
        for function in (raising, awaiting, switching_off):
            install(function)
            try:
                await fiberback.with_portal_run_sync(worker)
            except ValueError:
                pass
            finally:
                install(None)
    coros = [fiberback.with_portal_run_sync(worker) for _ in range(10)]
    assert await asyncio.gather(*coros) == [1] * 10


asyncio.run(main())
print("fine")
