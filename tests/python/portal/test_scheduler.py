"""A random program, run once in native async and once in sync code on portals: same history.

A seed determines a tree of tasks with a script each: checkpoints, waits for shared events,
exceptions, cancellations, generators, contexts, children, nested calls. Two interpreters run the
scripts, one with `await`, one with `await_`. Portals add no checkpoints, so every event of every
task must happen in the same global order. `FIBERBACK_SEED` replays a failure.
"""

from __future__ import annotations

import contextvars
import os
import random
import sys

import pytest
from support import UNDER_TEST, import_or_skip

var: contextvars.ContextVar = contextvars.ContextVar("var", default=0)

SEED = int(os.environ.get("FIBERBACK_SEED") or random.SystemRandom().randrange(2**32))
TASKS = 2000


class Planned(Exception):
    pass


def make_program(seed):
    rng = random.Random(seed)
    budget = [0]
    number = [0]

    def task(depth):
        budget[0] -= 1
        number[0] += 1
        return {"id": number[0], "script": script(rng.randint(1, 9), depth, 0)}

    def script(length, depth, nesting):
        return [operation(depth, nesting) for _ in range(length)]

    def operation(depth, nesting):
        kinds = ["sleep", "sleep", "ready", "set_var", "wait", "fire", "log_exc", "future_of"]
        if nesting < 3:
            kinds += ["try", "try_finally", "call", "generator", "context", "handled", "nested"]
        if depth < 5 and budget[0] > 0:
            kinds += ["spawn"] * 4 + ["group"] * 2
        kinds += ["raise", "cancel_child"]
        kind = rng.choice(kinds)
        value = rng.randrange(1000)
        if kind in ("try", "try_finally", "call", "context", "handled", "nested"):
            return kind, value, script(rng.randint(1, 4), depth, nesting + 1)
        if kind == "generator":
            return kind, value, [script(rng.randint(1, 2), depth, 3) for _ in range(2)]
        if kind == "spawn":
            return kind, value, task(depth + 1)
        if kind == "group":
            return kind, value, [task(depth + 1) for _ in range(rng.randint(1, 4))]
        return kind, value, None

    roots = []
    while number[0] < TASKS:
        budget[0] = 40  # tasks in one root's tree, more or less
        roots.append(task(0))
    return roots


class World:
    """What the tasks of one execution share, and the log of everything that happens."""

    def __init__(self, backend):
        self.backend = backend
        self.log = []
        self.events = [make_event(backend) for _ in range(8)]
        self.handles = {}
        self.waiting = 0

    def note(self, task, *what):
        current = sys.exc_info()[1]
        self.log.append((task["id"], *what, var.get(), type(current).__name__))

    def event(self, value):
        return self.events[value % len(self.events)]

    def fire(self, value):
        index = value % len(self.events)
        self.events[index].set()
        self.events[index] = make_event(self.backend)

    def unfinished(self):
        # asyncio never enters a task that is cancelled before its first step.
        done = [key for key, handle in self.handles.items() if handle.done()]
        for key in done:
            del self.handles[key]
        return self.handles

    def cancel(self, value):
        handles = list(self.handles.values())
        if handles:
            handles[value % len(handles)].cancel()


async def ready(value):
    return value


async def wait_bounded(world, value):
    """Wait for an event, but never for good: a watchdog fires all of them now and then."""
    await world.event(value).wait()


# The two interpreters. They must stay line by line the same.


async def native_task(world, task, spawn):
    world.note(task, "start")
    try:
        await native_script(world, task, task["script"], spawn)
    except Planned as error:
        world.note(task, "planned", error.args)
    except world.backend.Cancelled:
        world.note(task, "cancelled")
        raise
    finally:
        world.note(task, "end")


async def native_script(world, task, script, spawn):
    for kind, value, body in script:
        if kind == "sleep":
            await world.backend.sleep(0)
        elif kind == "ready":
            world.note(task, kind, await ready(value))
        elif kind == "set_var":
            var.set(value)
        elif kind == "wait":
            await wait_bounded(world, value)
        elif kind == "fire":
            world.fire(value)
        elif kind == "log_exc":
            world.note(task, kind)
        elif kind == "future_of":
            await native_call(world, task, [("sleep", 0, None)] * (value % 3), spawn)
        elif kind == "raise":
            if value % 12 == 0:
                raise Planned(value)
        elif kind == "cancel_child":
            if value % 15 == 0:
                world.cancel(value)
        elif kind == "try":
            try:
                await native_script(world, task, body, spawn)
            except Planned as error:
                await world.backend.sleep(0)
                world.note(task, "caught", error.args)
        elif kind == "try_finally":
            try:
                await native_script(world, task, body, spawn)
            finally:
                world.note(task, "finally")
        elif kind == "handled":
            try:
                raise Planned(value)
            except Planned:
                await native_script(world, task, body, spawn)
        elif kind in ("call", "nested"):
            await native_call(world, task, body, spawn)
        elif kind == "generator":
            async for item in native_generator(world, task, body, spawn):
                world.note(task, "item", item)
                await world.backend.sleep(0)
        elif kind == "context":
            before = var.get()
            var.set(value)
            try:
                await native_script(world, task, body, spawn)
            finally:
                var.set(before)
        elif kind == "spawn":
            spawn(body)
        elif kind == "group":
            family = Family(world)
            for child in body:
                spawn(child, family)
            await family.join()
        world.note(task, kind, value)


async def native_call(world, task, body, spawn):
    await native_script(world, task, body, spawn)


async def native_generator(world, task, bodies, spawn):
    for index, body in enumerate(bodies):
        await native_script(world, task, body, spawn)
        yield index


class Family:
    """Children that are waited for together, and cancelled with their parent, in a fixed order.

    (asyncio's TaskGroup and Trio's Event keep sets: their order differs from run to run.)
    """

    def __init__(self, world):
        self.handles = []
        self.world = world

    async def join(self):
        try:
            while not all(handle.ended or handle.done() for handle in self.handles):
                await self.world.backend.sleep(0)
        except self.world.backend.Cancelled:
            for handle in self.handles:
                handle.cancel()
            raise


def start(world, group, run, task, family=None):
    def spawn(child, family=None):
        start(world, group, run, child, family)

    async def entry():
        try:
            await run(world, task, spawn)
        finally:
            ended.append(True)
            world.handles.pop(task["id"], None)

    ended = []
    handle = group.spawn(entry)
    handle.ended = ended
    if not ended:
        world.handles[task["id"]] = handle
    if family is not None:
        family.handles.append(handle)


class ParkingEvent:
    """Trio's Event, but waking its waiters in the order they came."""

    def __init__(self, trio):
        self.lot = trio.lowlevel.ParkingLot()

    async def wait(self):
        await self.lot.park()

    def set(self):
        self.lot.unpark_all()


def make_event(backend):
    if backend.library == "trio":
        return ParkingEvent(import_or_skip("trio"))
    return backend.Event()


def make_sync_task(fb):
    def sync_task(world, task, spawn):
        world.note(task, "start")
        try:
            sync_script(world, task, task["script"], spawn)
        except Planned as error:
            world.note(task, "planned", error.args)
        except world.backend.Cancelled:
            world.note(task, "cancelled")
            raise
        finally:
            world.note(task, "end")

    def sync_script(world, task, script, spawn):
        for kind, value, body in script:
            if kind == "sleep":
                fb.await_(world.backend.sleep(0))
            elif kind == "ready":
                world.note(task, kind, fb.await_(ready(value)))
            elif kind == "set_var":
                var.set(value)
            elif kind == "wait":
                fb.await_(wait_bounded(world, value))
            elif kind == "fire":
                world.fire(value)
            elif kind == "log_exc":
                world.note(task, kind)
            elif kind == "future_of":
                sync_call(world, task, [("sleep", 0, None)] * (value % 3), spawn)
            elif kind == "raise":
                if value % 12 == 0:
                    raise Planned(value)
            elif kind == "cancel_child":
                if value % 15 == 0:
                    world.cancel(value)
            elif kind == "try":
                try:
                    sync_script(world, task, body, spawn)
                except Planned as error:
                    fb.await_(world.backend.sleep(0))
                    world.note(task, "caught", error.args)
            elif kind == "try_finally":
                try:
                    sync_script(world, task, body, spawn)
                finally:
                    world.note(task, "finally")
            elif kind == "handled":
                try:
                    raise Planned(value)
                except Planned:
                    sync_script(world, task, body, spawn)
            elif kind == "call":
                sync_call(world, task, body, spawn)
            elif kind == "nested":
                # Sync code that awaits a coroutine that calls sync code.
                fb.await_(async_call(world, task, body, spawn))
            elif kind == "generator":
                for item in sync_generator(world, task, body, spawn):
                    world.note(task, "item", item)
                    fb.await_(world.backend.sleep(0))
            elif kind == "context":
                before = var.get()
                copied = contextvars.copy_context()
                copied.run(var.set, value)
                try:
                    # The same as setting and restoring, plus an open Context.run() underneath.
                    copied.run(sync_script, world, task, body, spawn)
                finally:
                    var.set(before)
            elif kind == "spawn":
                spawn(body)
            elif kind == "group":
                family = Family(world)
                for child in body:
                    spawn(child, family)
                fb.await_(family.join())
            world.note(task, kind, value)

    def sync_call(world, task, body, spawn):
        sync_script(world, task, body, spawn)

    async def async_call(world, task, body, spawn):
        sync_script(world, task, body, spawn)

    def sync_generator(world, task, bodies, spawn):
        for index, body in enumerate(bodies):
            sync_script(world, task, body, spawn)
            yield index

    async def portal_task(world, task, spawn):
        await fb.with_portal_run_sync(sync_task, world, task, spawn)

    return portal_task


def execute(backend, program, run, seed):
    async def main():
        world = World(backend)
        make_trio_deterministic(backend, seed)

        async def watchdog():
            while world.unfinished():
                for _ in range(10):
                    await backend.sleep(0)
                for value in range(len(world.events)):
                    world.fire(value)

        async with backend.group() as group:
            for task in program:
                start(world, group, run, task)
            group.spawn(watchdog)
        return world.log

    return backend.run(main)


def make_trio_deterministic(backend, seed):
    if backend.library == "trio":
        import trio

        trio._core._run._r.seed(seed)


def test_same_history_as_native_async(backend, fb):
    if backend.name == "eager" and UNDER_TEST != "fiberback":
        pytest.skip(f"{UNDER_TEST} mixes up eager tasks that start inside a portal'd one")
    seed = SEED
    print(f"FIBERBACK_SEED={seed}")
    program = make_program(seed)
    native = execute(backend, program, native_task, seed)
    portals = execute(backend, program, make_sync_task(fb), seed)
    assert len(native) > TASKS * 2
    for position, (expected, got) in enumerate(zip(native, portals, strict=False)):
        if expected != got:
            pytest.fail(
                f"FIBERBACK_SEED={seed}: event {position} is {got}, natively {expected}; "
                f"before it: {native[max(0, position - 5) : position]}"
            )
    assert len(native) == len(portals)
