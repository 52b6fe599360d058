# expect-stdout: main left
# expect-stdout: died 40
"""Whoever is suspended or parked when the interpreter exits is closed by force: in his frames are
objects whose __del__ raises, awaits, exits, or begins something new, and finally blocks that raise."""

import asyncio
import atexit
import sys
import threading

dead = 0


def died():
    # One write: the threads that DIRTY starts print at the same time.
    sys.stdout.write(f"died {dead}\n")
    sys.stdout.flush()


atexit.register(died)  # before the import: runs after fiberback's own, which closes everybody
import fiberback  # noqa: E402

DIRTY = (
    lambda: 1 / 0,
    lambda: sys.exit(3),
    lambda: fiberback.await_(asyncio.sleep(0)),
    lambda: fiberback.await_(asyncio.sleep(0.001)),
    lambda: asyncio.run(fiberback.with_portal_run_sync(fiberback.await_, asyncio.sleep(0))),
    lambda: threading.Thread(target=print).start(),
    lambda: deep(),
    lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    lambda: (_ for _ in ()).throw(GeneratorExit),
    lambda: (_ for _ in ()).throw(asyncio.CancelledError),
)


def deep():
    return 1 + deep()


class Dirty:
    def __init__(self, act):
        self.act = act

    def __del__(self):
        global dead
        dead += 1
        self.act()


def worker(n):
    held = Dirty(DIRTY[n % len(DIRTY)])
    ring = [held]
    ring.append(ring)
    try:
        fiberback.await_(asyncio.sleep(1000))
    finally:
        del ring[0]
        held = None
        if n % 3 == 0:
            raise ValueError(n)


async def parked(n):
    worker(n)


async def main():
    fiberback.await_(asyncio.sleep(0.001))


sys.unraisablehook = lambda _: None
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)
first = loop.create_task(main())
suspended = [loop.create_task(fiberback.with_portal_run_sync(worker, n)) for n in range(20)]
waiting = [loop.create_task(parked(n)) for n in range(20)]
loop.run_until_complete(first)
print("main left", flush=True)
