# expect-stdout: done
"""Everything with greenlets, seeded: begun, switched to and dropped in portals, callbacks, parked callers
and in each other, with waits, exceptions, cancellation and garbage collection in between."""

import asyncio
import contextlib
import gc
import os
import pathlib
import random
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import fiberback
from crowd import crowd

try:
    import greenlet
except ImportError:
    print("done")
    raise SystemExit from None


class Ping(Exception):
    pass


def deep(n, then):
    local = [n] * 30
    result = then() if n <= 0 else deep(n - 1, then)
    assert local == [n] * 30
    return result


class Machine:
    """What one thread does."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.shared = []  # greenlets that anybody may switch to
        self.users = {}  # of each, who has used it last
        self.ended = 0

    def body(self, *_):
        me = greenlet.getcurrent()
        r = self.random
        try:
            for _ in range(r.randrange(12)):
                try:
                    kind = r.randrange(6)
                    if kind == 0:
                        deep(r.randrange(12), self.wait)
                    elif kind == 1:
                        gc.collect(r.randrange(2))
                    elif kind == 2:
                        self.act(1)
                    else:
                        back = self.users.get(id(me))
                        if back is not None and back is not me:
                            deep(r.randrange(12), lambda back=back: back.switch("back"))
                except Ping:
                    pass
                except (greenlet.error, RuntimeError):
                    pass
        finally:
            self.ended += 1

    def wait(self):
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            fiberback.await_(asyncio.sleep(self.random.choice([0, 0, 0.0002])))

    def act(self, depth=0):
        r = self.random
        for _ in range(r.randrange(1, 5)):
            kind = r.randrange(8)
            if kind < 2 or not self.shared:
                self.shared.append(greenlet.greenlet(self.body))
            target = r.choice(self.shared)
            self.users[id(target)] = greenlet.getcurrent()
            try:
                if kind < 4:
                    deep(r.randrange(10), target.switch)
                elif kind == 4:
                    target.throw(Ping)
                elif kind == 5:
                    self.shared.remove(target)
                    del target
                    gc.collect(0)
                elif kind == 6:
                    deep(r.randrange(10), self.wait)
                elif depth < 2:
                    with contextlib.suppress(asyncio.CancelledError):
                        fiberback.await_(self.task(depth + 1))
            except (Ping, greenlet.error, RuntimeError, greenlet.GreenletExit):
                pass
            target = None

    async def task(self, depth=0):
        for _ in range(3):
            try:
                self.act(depth)
                await asyncio.sleep(0)
            except (Ping, greenlet.error, RuntimeError, greenlet.GreenletExit):
                pass

    async def main(self):
        tasks = [asyncio.ensure_future(self.task()) for _ in range(15)]
        await asyncio.sleep(0.002)
        for task in self.random.sample(tasks, 3):
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)
        # Whoever switches to a greenlet that waits for another task ends that wait, and its task has nothing to
        # wait for any more; nor is it the last one for a task that suppresses its cancellation. Each cancellation
        # goes on with a task that does not end by itself, whatever greenlets did.
        for _ in range(200):
            for task in tasks:
                task.cancel()
            _, pending = await asyncio.wait(tasks, timeout=0.01)
            if not pending:
                return
        # Says which, instead of a run that waits for them for ever.
        print(f"these cannot be cancelled: {pending}", flush=True)
        os._exit(1)

    def drop(self):
        self.shared.clear()
        self.users.clear()
        gc.collect()


def run(seed):
    # Every other one where so many wait that awaited code is on side stacks.
    with crowd() if seed % 2 else contextlib.nullcontext():
        use(seed)


def use(seed):
    machine = Machine(seed)
    outside = greenlet.greenlet(machine.body)
    machine.shared.append(outside)
    machine.users[id(outside)] = greenlet.getcurrent()
    for runner in (fiberback.run, asyncio.run):
        with contextlib.suppress(Ping, greenlet.error, RuntimeError, greenlet.GreenletExit):
            runner(machine.main())
    del outside
    machine.drop()


sys.unraisablehook = lambda _: None
asyncio.base_events.logger.disabled = True
seeds = [int(seed) for seed in sys.argv[1:]] or range(12)
for seed in seeds:
    run(seed)
threads = [threading.Thread(target=run, args=(seed + 1000,)) for seed in seeds]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
