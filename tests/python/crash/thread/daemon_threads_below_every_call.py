# expect-stdout: main left
"""The interpreter exits while daemon threads run Python code that every function of ours has called: until
3.13 each is ended by unwinding its stack, as soon as it wants the GIL again."""

import asyncio
import contextlib
import sys
import threading
import time

import fiberback

sys.setswitchinterval(1e-5)
PLACES = {}
begun = threading.Semaphore(0)


def place(function):
    PLACES[function.__name__] = function
    return function


def stay():
    begun.release()
    while True:
        time.sleep(0.0002)
        for _ in range(200):
            pass


class Awaitable:
    """Stays in a method that `await_` calls."""

    def __init__(self, where, pause=0):
        self.where, self.pause = where, pause

    def __await__(self):
        if self.where == "__await__":
            stay()
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.where == "__next__":
            stay()
        raise StopIteration


class Dropped:
    def __del__(self):
        stay()


async def native(pause=False):
    if pause:
        await asyncio.sleep(0)
    stay()


def in_portal(function):
    asyncio.run(fiberback.with_portal_run_sync(function))


def parked(function):
    async def main():
        function()

    asyncio.run(main())


def in_callback(function):
    async def main():
        asyncio.get_running_loop().call_soon(function)
        await asyncio.sleep(1000)

    asyncio.run(main())


def in_enabled_callback(function):
    async def main():
        asyncio.get_running_loop().call_soon(function)
        await asyncio.sleep(1000)

    fiberback.run(main())


def in_plain_thread(function):
    function()


WAYS = [in_portal, parked, in_callback, in_enabled_callback, in_plain_thread]


@place
def awaits(way):
    way(lambda: fiberback.await_(Awaitable("__await__")))


@place
def steps(way):
    way(lambda: fiberback.await_(Awaitable("__next__")))


@place
def begins(way):
    way(lambda: fiberback.await_(native()))


@place
def goes_on(way):
    way(lambda: fiberback.await_(native(pause=True)))


@place
def runs(way):
    way(stay)


@place
def drops(way):
    async def dropping():
        held = Dropped()
        await asyncio.sleep(0)
        return held

    way(lambda: fiberback.await_(dropping()) and None)


@place
def nests(way):
    way(lambda: fiberback.run(native(pause=True)))


@place
def others_run(way):
    """While a caller waits, the loop goes on on another stack, or in another portal."""

    async def main():
        task = asyncio.create_task(native(pause=True))
        fiberback.await_(asyncio.sleep(1000))
        return task

    way(lambda: fiberback.await_(main()))


def in_thread(function, way):
    with contextlib.suppress(RuntimeError):
        function(way)


only = sys.argv[1:]
count = 0
for name, function in PLACES.items():
    for way in WAYS:
        if not only or name in only or f"{name}-{way.__name__}" in only:
            threading.Thread(target=in_thread, args=(function, way), daemon=True).start()
            count += 1
for _ in range(count):
    assert begun.acquire(timeout=60)
time.sleep(0.05)
print("main left", flush=True)
