# expect-stdout: fine
"""Portals around hand-made coroutine-like objects that misbehave at every step."""

import asyncio
import gc
import random
import sys

import fiberback
from fiberback._fiberback import Portal

gc.freeze()  # collections are of what the program makes

sys.unraisablehook = lambda _: None
rng = random.Random(1)


class Wild:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.portal = None

    def send(self, value):
        return self.act()

    def throw(self, *exc):
        return self.act()

    def close(self):
        return self.act()

    def act(self):
        choice = self.rng.randrange(9)
        if choice == 0:
            raise StopIteration(1)
        if choice == 1:
            raise ValueError
        if choice == 2:
            raise GeneratorExit
        if choice == 3 and self.portal is not None:
            return self.portal.send(None)
        if choice == 4 and self.portal is not None:
            return self.portal.close()
        if choice == 5:
            return fiberback.await_(Once())
        if choice == 6:
            self.portal = None
            gc.collect()
        return object()


class Once:
    def __await__(self):
        yield "trap"


def play(seed):
    wild = Wild(seed)
    portal = Portal(wild)
    wild.portal = portal
    for _ in range(10):
        try:
            action = rng.randrange(3)
            if action == 0:
                portal.send(None)
            elif action == 1:
                portal.throw(KeyError())
            else:
                portal.close()
        except BaseException:
            pass


async def main():
    for seed in range(2000):
        play(seed)
    await fiberback.with_portal_run_sync(lambda: [play(seed) for seed in range(500)])


try:
    asyncio.run(main())
except BaseException as error:
    print(type(error))
gc.collect()
print("fine")
