# expect-stdout: nothing alive was finalized
"""The collector finds abandoned tasks, and nothing that is alive, whatever suspended frames hold."""

import asyncio
import functools
import gc
import random
import sys

import fiberback

rnd = random.Random(7)
too_early = []
reported = []
sys.unraisablehook = reported.append


class Cycle:
    """Garbage as soon as nobody but itself holds it; knows whether it was taken for that."""

    def __init__(self):
        self.self = self
        self.finalized = False

    def __del__(self):
        self.finalized = True

    def check(self):
        if self.finalized or self.self is not self:
            too_early.append(self)


def waits():
    """One wait, held in one of the ways that code can hold what it waits for."""
    loop = asyncio.get_running_loop()
    kind = rnd.randrange(8)
    if kind == 0:
        fiberback.await_(asyncio.sleep(0))
    elif kind == 1:
        fiberback.await_(asyncio.sleep(rnd.random() * 0.001))
    elif kind == 2:
        functools.partial(fiberback.await_, asyncio.sleep(0))()
    elif kind == 3:
        list(map(fiberback.await_, [asyncio.sleep(0), asyncio.sleep(0)]))
    elif kind == 4:
        arguments = (asyncio.sleep(0),)
        fiberback.await_(*arguments)
    elif rnd.random() < 0.9:
        fiberback.await_(nested(Cycle()))
    elif kind == 5:
        fiberback.await_(loop.create_future())  # for ever
    else:
        future = loop.create_future()
        future.held = [future, asyncio.current_task()]
        fiberback.await_(future)  # for ever


async def nested(argument):
    local = Cycle()
    fiberback.await_(asyncio.sleep(0))
    await asyncio.sleep(0)
    local.check()
    argument.check()


def generator():
    local = Cycle()
    for i in range(2):
        yield i
        local.check()


def sync(depth, argument, *more, **keywords):
    local = [Cycle() for _ in range(2)]
    for _ in generator():
        if depth:
            sync(depth - 1, Cycle(), argument, keyword=argument)
        else:
            waits()
    for cycle in (*local, argument, *more, *keywords.values()):
        cycle.check()


async def task():
    local = Cycle()
    sync(rnd.randrange(3), Cycle())
    await asyncio.sleep(0)
    local.check()


async def main():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for _ in range(15):
        for _ in range(40):
            asyncio.create_task(task())
        await asyncio.sleep(0.003)
    await asyncio.sleep(0.1)


gc.set_threshold(20, 3, 3)
loop = asyncio.new_event_loop()
loop.set_task_factory(fiberback.task_factory)
loop.run_until_complete(main())
loop.close()
gc.collect()
assert not too_early
assert not [report for report in reported if "already executing" in str(report.exc_value)]
print("nothing alive was finalized")
