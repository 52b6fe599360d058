# expect-stdout: main left
"""The interpreter exits while daemon threads have callers parked on loops of their own, and worker
threads wait for loops, also for the main thread's, which ends, and for ones that nobody runs."""

import asyncio
import sys
import threading
import time

import fiberback

sys.setswitchinterval(1e-5)
sys.unraisablehook = lambda _: None


class Dirty:
    def __del__(self):
        fiberback.await_(asyncio.sleep(0))


def wait(seconds, dirty=True):
    held = dirty and Dirty()
    try:
        fiberback.await_(asyncio.sleep(seconds))
    finally:
        del held
        fiberback.await_(asyncio.sleep(0))


async def parked(seconds):
    wait(seconds)


def in_thread(seconds):
    # A finalizer would swallow the cancellation by which the loop gets rid of us, and asyncio.run()
    # would wait for ever, as it does for a task that goes on.
    while True:
        wait(seconds, dirty=False)


def of_the_pool(seconds):
    for _ in range(10):  # the pool's threads are joined at exit, whatever they wait for
        wait(min(seconds, 0.001))


async def on_a_loop(seconds):
    loop = asyncio.get_running_loop()
    loop.call_soon(wait, seconds)
    await asyncio.gather(
        *(parked(seconds) for _ in range(5)),
        *(fiberback.with_portal_run_sync(wait, seconds) for _ in range(5)),
        asyncio.to_thread(of_the_pool, seconds),
        fiberback.to_thread(of_the_pool, seconds),
    )


def forever(run, seconds):
    while True:
        try:
            run(on_a_loop(seconds))
        except RuntimeError:  # no new threads any more
            pass


def in_the_name_of(loop, seconds):
    try:
        with fiberback.parent_loop(loop):
            in_thread(seconds)
    except RuntimeError:  # that loop is closed
        in_thread(seconds)


def daemon(target, *args):
    threading.Thread(target=target, args=args, daemon=True).start()


async def main():
    for seconds in (0, 0.001, 1000):
        daemon(in_the_name_of, asyncio.get_running_loop(), seconds)  # it ends first
    for seconds in (0, 1000):
        daemon(forever, asyncio.run, seconds)
        daemon(forever, fiberback.run, seconds)
    wait(0.1)
    await asyncio.sleep(0.1)
    left = [asyncio.create_task(parked(1000)) for _ in range(3)]
    await asyncio.sleep(0)
    return left


asyncio.run(main())
time.sleep(0.05)
print("main left", flush=True)
