# expect-stdout: fine
"""Dumps while the interpreter exits: in exit handlers, by a daemon thread, on a signal, by finalizers."""

import asyncio
import atexit
import os
import signal
import threading

import fiberback

sink = os.open(os.devnull, os.O_WRONLY)
fiberback.dump_on(signal.SIGUSR1, file=sink)


def deep(n):
    if n:
        return deep(n - 1)
    return fiberback.await_(asyncio.sleep(30))


async def many():
    for _ in range(3):
        asyncio.create_task(fiberback.with_portal_run_sync(deep, 2), name="left")
    await asyncio.sleep(0.01)


class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            fiberback.dump()
        except Exception:
            pass  # modules are gone


def forever():
    while True:
        fiberback.dump()


@atexit.register
def ends():
    assert "left" in fiberback.dump()
    os.kill(os.getpid(), signal.SIGUSR1)
    print("fine", flush=True)


loop = asyncio.new_event_loop()
loop.run_until_complete(many())
keep = fiberback.enable  # the loop stays open, its tasks suspended
last = Last()
fiberback.last = last
threading.Thread(target=forever, daemon=True).start()
