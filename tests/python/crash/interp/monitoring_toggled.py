# expect-stdout: fine
# python: 3.12
"""sys.monitoring switched on, off, for single functions and by its own callbacks, while callers are
suspended in portals and parked: the sets of events change below stacks that are in the middle of
instrumented code."""

import asyncio
import random
import sys

import fiberback

M = sys.monitoring
E = M.events
RANDOM = random.Random(12)
TOOLS = (M.DEBUGGER_ID, M.PROFILER_ID, 3)
LOCAL = (E.PY_START, E.PY_RESUME, E.PY_RETURN, E.PY_YIELD, E.CALL, E.LINE, E.INSTRUCTION, E.JUMP)
ANYWHERE = (*LOCAL, E.RAISE, E.EXCEPTION_HANDLED, E.PY_UNWIND, E.PY_THROW, E.RERAISE)
seen = {event: 0 for event in ANYWHERE}
refused = 0


class Stop(Exception):
    pass


def called(event):
    def callback(code, *rest):
        global refused
        seen[event] += 1
        dice = RANDOM.randrange(400)
        if dice < 20 and event in LOCAL:
            return M.DISABLE
        if dice < 24:
            toggle()
        elif dice < 28:
            try:
                fiberback.await_(asyncio.sleep(0))
            except RuntimeError:
                refused += 1
        elif dice == 28:
            _ = sys._getframe().f_back.f_locals
        elif dice == 29 and code is leaf.__code__ and event in (E.LINE, E.PY_START, E.PY_RESUME):
            raise Stop
        return None

    return callback


def some(events):
    chosen = RANDOM.sample(events, RANDOM.randrange(len(events)))
    return sum(chosen)


def toggle():
    tool = RANDOM.choice(TOOLS)
    kind = RANDOM.randrange(5)
    try:
        if kind == 0:
            M.set_events(tool, some(ANYWHERE))
        elif kind == 1:
            code = RANDOM.choice((leaf, middle, act, step, task)).__code__
            M.set_local_events(tool, code, some(LOCAL))
        elif kind == 2:
            M.restart_events()
        elif kind == 3:
            M.set_events(tool, 0)
        else:
            for event in ANYWHERE:
                M.register_callback(tool, event, RANDOM.choice((called(event), None)))
    except ValueError:  # the tool is not in use just now
        pass


def free(tool):
    M.free_tool_id(tool)
    M.use_tool_id(tool, "again")
    for event in ANYWHERE:
        M.register_callback(tool, event, called(event))


def leaf(n):
    toggle()
    value = fiberback.await_(step(n))
    toggle()
    return value


def middle(n):
    for _ in (1, 2):
        try:
            n = leaf(n)
        except Stop:
            pass
    return n


async def step(n):
    toggle()
    await asyncio.sleep(0)
    toggle()
    return n


def act(n):
    for k in range(6):
        assert sorted([n], key=middle) == [n]
        if k == 3 and n % 4 == 0:
            free(RANDOM.choice(TOOLS))


async def task(n):
    if n % 2:
        await fiberback.ensure_portal()  # the others are parked
    try:
        act(n)
    except Stop:  # by an event in `leaf` after its last line
        pass


async def main():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: (act(100), done.set_result(None)))
    tasks = [asyncio.create_task(task(n)) for n in range(12)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    tasks[4].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for t in tasks[:3] + tasks[5:]:
        t.result()
    await done


for tool in TOOLS:
    M.use_tool_id(tool, "ours")
    for event in ANYWHERE:
        M.register_callback(tool, event, called(event))
for _turn in range(3):
    asyncio.run(main())
    fiberback.run(main())
for tool in TOOLS:
    M.free_tool_id(tool)
assert sum(1 for count in seen.values() if count) > len(seen) // 2, seen
assert refused, "await_ in a callback of a tool must be refused"
print("fine")
