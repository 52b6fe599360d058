# expect: 0
# expect-stdout: done
# parts: 4
# leaks: on purpose
# Greenlets of fiberback's own that switch to each other at random, throw, wait, are dropped and collected, on
# a thread's own stack, in tasks with portals and without, in threads, and in loops inside of greenlets.
# By hand: python greenlets_of_our_own_at_random.py PART PARTS [SEED [STEPS [SWITCHES]]]
# With SWITCHES: all parts in turn, each with the next seed, which is printed, until there were so many.
import asyncio
import contextvars
import faulthandler
import gc
import itertools
import random
import sys
import threading
import time
import weakref

import fiberback
import fiberback.greenlet as greenlet

gc.freeze()  # collections are of what the program makes

faulthandler.enable()
PART = int(sys.argv[1]) if len(sys.argv) > 1 else 0
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else PART
STEPS = int(sys.argv[4]) if len(sys.argv) > 4 else 20_000
SWITCHES = int(sys.argv[5]) if len(sys.argv) > 5 else 0

# In a soak most of the time would go into whole collections, of which there are some at each seed's end, too.
GENERATIONS = [0] * 60 + [1] * 3 + [2] if SWITCHES else [0, 1, 2]

VARIABLE = contextvars.ContextVar("variable", default=None)


class Own(greenlet.greenlet):
    pass


class Bang(Exception):
    pass


def generator(world, value):
    try:
        yield value
        yield world.switch_somewhere()
    finally:
        world.note()


switches = itertools.count()  # calls that others have come back from
made_here = weakref.WeakSet()  # greenlets, other than those of threads that end


class World:
    """The greenlets of one thread, or one task: `pool` is all that refers to them."""

    def __init__(self, seed, steps, can_wait, others=None):
        self.random = random.Random(seed)
        self.steps = steps
        self.can_wait = can_wait
        self.pool = []
        self.others = others if others is not None else []  # another world's pool, or a thread's
        self.noted = 0
        self.is_to_end = threading.current_thread() is threading.main_thread()
        self.main = greenlet.getcurrent()

    def note(self):
        self.noted += 1

    def target(self):
        if self.others and self.random.random() < 0.05:
            return self.random.choice(self.others)
        if not self.pool or self.random.random() < 0.1:
            return self.main
        return self.random.choice(self.pool)

    def switch_somewhere(self):
        try:
            return self.target().switch(self.steps)
        except greenlet.error:
            return None
        finally:
            next(switches)

    def body(self, *args):
        mine = [object(), args]
        mine.append(mine)
        token = VARIABLE.set(len(self.pool))
        depth = self.random.randrange(1, 30)
        try:
            self.deep(depth)
        except Bang:
            if self.random.random() < 0.3:
                raise
        finally:
            self.note()
            if self.random.random() < 0.05 and self.steps > 0:
                self.steps -= 1
                self.switch_somewhere()
            try:
                VARIABLE.reset(token)
            except ValueError:
                pass  # its context was changed
        return len(mine)

    def deep(self, depth):
        if depth:
            return self.deep(depth - 1)
        while self.steps > 0:
            self.act()
            if self.random.random() < 0.02:
                break

    def act(self):
        self.steps -= 1
        choice = self.random.randrange(100)
        if choice < 40:
            self.switch_somewhere()
        elif choice < 50:
            kind = greenlet.greenlet if self.random.random() < 0.5 else Own
            made = kind(self.body)
            if self.is_to_end:
                made_here.add(made)
            if self.random.random() < 0.3 and self.pool:
                try:
                    made.parent = self.random.choice(self.pool)
                except ValueError:
                    pass
            if self.random.random() < 0.2:
                made.me = made
            if self.random.random() < 0.2:
                made.gr_context = contextvars.copy_context()
            self.pool.append(made)
        elif choice < 58 and self.pool:
            self.pool.pop(self.random.randrange(len(self.pool)))
        elif choice < 62:
            try:
                self.target().throw(self.random.choice([Bang, greenlet.GreenletExit]))
            except greenlet.error:
                pass
            finally:
                next(switches)
        elif choice < 64:
            raise Bang
        elif choice < 67:
            gc.collect(self.random.choice(GENERATIONS))
        elif choice < 72 and self.can_wait:
            try:
                fiberback.await_(asyncio.sleep(0))
            except RuntimeError:
                pass  # greenlets of a loop's own stack
        elif choice < 76:
            for _ in generator(self, 1):
                pass
        elif choice < 79:
            list(generator(self, 1))
        elif choice < 83:
            try:
                raise ValueError(self.steps)
            except ValueError:
                self.switch_somewhere()
                assert isinstance(sys.exc_info()[1], ValueError)
        elif choice < 86:
            sorted([3, 1, 2], key=lambda x: (self.switch_somewhere(), x)[1])
        elif choice < 89:
            contextvars.copy_context().run(self.switch_somewhere)
        elif choice < 92 and self.pool:
            one = self.random.choice(self.pool)
            repr(one), one.dead, bool(one), one.gr_frame, one.parent
            frame = one.gr_frame
            while frame is not None:
                frame = frame.f_back
        elif choice < 93:
            greenlet.settrace(lambda event, pair: None if self.random.random() < 0.9 else 1 / 0)
        elif choice < 94:
            greenlet.settrace(None)
        elif choice < 95 and self.pool:
            faulthandler.dump_traceback(DEVNULL)
        elif choice < 97 and self.can_wait and asyncio._get_running_loop() is None:
            fiberback.run(self.waits())
        if len(self.pool) > 60:
            del self.pool[:20]

    async def waits(self):
        await asyncio.sleep(0)
        self.switch_somewhere()
        await asyncio.sleep(0)

    def run(self):
        while self.steps > 0:
            try:
                self.act()
            except (Bang, ZeroDivisionError, greenlet.GreenletExit):
                pass

    def end(self):
        greenlet.settrace(None)
        self.steps = 0
        for _ in range(5):
            del self.pool[:]
            try:
                gc.collect()
            except Bang:
                pass


DEVNULL = open("/dev/null", "w")
sys.unraisablehook = lambda unraisable: None


def in_thread(seed, steps, others):
    world = World(seed, steps, can_wait=False, others=others)
    others.extend(world.pool)
    world.run()
    world.end()


async def in_tasks(seed, steps, count):
    worlds = []

    async def task(index):
        world = World(seed + index, steps // count, can_wait=True)
        worlds.append(world)
        if index % 2 and len(worlds) > 1:
            world.pool = worlds[0].pool  # shared between tasks
        while world.steps > 0:
            try:
                world.act()
            except (Bang, ZeroDivisionError, greenlet.GreenletExit):
                pass
            if world.random.random() < 0.1:
                await asyncio.sleep(0)

    await asyncio.gather(*(task(index) for index in range(count)))
    for world in worlds:
        world.end()


def one(kind, seed):
    if kind == 0:
        world = World(seed, STEPS, can_wait=False)
        world.run()
        world.end()
    elif kind == 1:
        fiberback.run(in_tasks(seed, STEPS, 6))
    elif kind == 2:
        asyncio.run(in_tasks(seed, STEPS, 6))
    else:
        others = []
        threads = [
            threading.Thread(target=in_thread, args=(seed + index, STEPS // 4, others))
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        del others[:]
    gc.collect()


def end_what_would_not():
    """One that has switched away when it was dropped is there for ever; and may have done so in a collection, which
    goes on when it does. No world takes further steps."""
    while left := [each for each in list(made_here) if each]:
        for each in left:
            if each:
                try:
                    each.throw()
                except (Bang, ZeroDivisionError):
                    pass
    cycle = World(0, 0, can_wait=False)
    cycle.me = cycle
    cycle = weakref.ref(cycle)
    gc.collect()
    assert cycle() is None, "a collection has never ended"


def soak():
    """What stays behind must not grow: it is printed beside each seed."""
    began = time.monotonic()
    for seed in itertools.count(SEED):
        print("part", seed % 4, "seed", seed, end=" ", flush=True)
        one(seed % 4, seed)
        end_what_would_not()
        count = int(repr(switches)[len("count(") : -1])
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * 4
        stats = fiberback.stats()
        print(
            f"{count:,} switches, {time.monotonic() - began:.0f} s, {resident:,} KiB, "
            f"{len(gc.get_objects()):,} objects, {stats['stacks_in_use']} stacks in use, "
            f"{stats['stacks_leaked']} leaked",
            flush=True,
        )
        if count >= SWITCHES:
            return


def main():
    threading.stack_size(16 * 1024 * 1024)
    soak() if SWITCHES else one(PART % 4, SEED)
    print("done")


main()
