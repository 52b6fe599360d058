"""Greenlets of fiberback's own against greenlet's.

`python benches/greenlets.py` needs greenlet and SQLAlchemy. Each side runs in processes of its own, one of each
in turn, round after round, so that whatever else the machine does hits both alike; numbers are medians over the
rounds, ratios the medians of each round's ratio.

- A switch there and one back, between the main greenlet and one that is 1, 10 and 100 Python frames deep, with
  no other greenlet and with 10,000 that are suspended as deep.
- A new greenlet, its first switch and its end.
- Resident memory of a greenlet that is suspended, 1 and 20 frames deep, with 5,000 of them.
- SQLAlchemy: `await_only` of a coroutine that is done, in `greenlet_spawn`.
- With aiosqlite installed queries of an `AsyncSession` on SQLite. Most of that is not greenlet's, and all of it waits
  for a thread, so that it is measured apart: a process of each kind is there all the time, they run blocks of
  queries in turn, and their processor time counts, elapsed time beside it.

`--rounds N`, `--quick`, `--queries` (those alone).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time

DEPTHS = (1, 10, 100)
LIVE = {1: 10_000, 10: 10_000, 100: 10_000}
MEMORY_DEPTHS = (1, 20)


def deep(depth, function):
    return function() if depth <= 1 else deep(depth - 1, function)


def measure(quick):
    """What one side takes; nanoseconds and bytes by name."""
    import greenlet

    main = greenlet.getcurrent()
    times = 2_000 if quick else 50_000
    found = {}

    def forever():
        switch = main.switch
        while True:
            switch()

    def suspended(depth):
        made = greenlet.greenlet(lambda: deep(depth, forever))
        made.switch()
        return made

    def there_and_back(depth):
        switch = suspended(depth).switch
        began = time.perf_counter()
        for _ in range(times):
            switch()
        return (time.perf_counter() - began) / times * 1e9

    for depth in DEPTHS:
        found[f"{depth} deep"] = there_and_back(depth)
        others = [suspended(depth) for _ in range(LIVE[depth] // (50 if quick else 1))]
        found[f"{depth} deep, {LIVE[depth]:,} others"] = there_and_back(depth)
        del others
        gc.collect()

    def nothing():
        pass

    began = time.perf_counter()
    for _ in range(times // 5):
        greenlet.greenlet(nothing).switch()
    found["creation, first switch and end"] = (time.perf_counter() - began) / (times // 5) * 1e9

    found.update(asyncio.run(sqlalchemy(times)))
    return found


def memory(depth, quick):
    """Bytes that a suspended greenlet takes; in a process that has done nothing else."""
    import greenlet

    count = 500 if quick else 5_000
    greenlet.greenlet(int).switch()
    main = greenlet.getcurrent()
    others = [None] * count
    before = resident()
    for index in range(count):
        others[index] = greenlet.greenlet(lambda: deep(depth, main.switch))
        others[index].switch()
    return (resident() - before) / count


async def sqlalchemy(times):
    from sqlalchemy.util.concurrency import await_only, greenlet_spawn

    async def nothing():
        pass

    def waits():
        for _ in range(times):
            await_only(nothing())

    began = time.perf_counter()
    await greenlet_spawn(waits)
    found = {"SQLAlchemy's await_only": (time.perf_counter() - began) / times * 1e9}
    return found


def queries(count):
    """A block of queries for each line of standard input: nanoseconds a query, of the processor's and elapsed."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def block(session):
        began = time.process_time(), time.perf_counter()
        for _ in range(count):
            (await session.execute(text("select 1"))).scalar()
        ended = time.process_time(), time.perf_counter()
        return [(after - before) / count * 1e9 for before, after in zip(began, ended, strict=True)]

    async def main():
        engine = create_async_engine("sqlite+aiosqlite://")
        async with AsyncSession(engine) as session:
            await block(session)
            for _ in sys.stdin:
                print(json.dumps(await block(session)), flush=True)
        await engine.dispose()

    asyncio.run(main())


def compare_queries(rounds, count):
    """The blocks of both sides, each the next to the other's, either first in turn."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", side, "--queries", "--block", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in ("ours", "greenlet")
    ]
    blocks = []
    for number in range(rounds):
        found = {}
        for process in processes if number % 2 else reversed(processes):
            process.stdin.write("\n")
            process.stdin.flush()
            found[process] = json.loads(process.stdout.readline())
        blocks.append([found[process] for process in processes])
    for process in processes:
        process.stdin.close()
        process.wait()
    for index, time_of in enumerate(("processor's time", "elapsed")):
        ours, theirs = ([block[side][index] for block in blocks] for side in (0, 1))
        name = f"a query of an AsyncSession, {time_of}"
        yield name, statistics.median(ours), statistics.median(theirs), ratios(ours, theirs)


def ratios(ours, theirs):
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def side(name, quick):
    """What the processes of a side measure."""

    def run(*options):
        command = [sys.executable, __file__, "--side", name, *options]
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    found = run()
    for depth in MEMORY_DEPTHS:
        found[f"bytes, {depth} deep"] = run("--memory", str(depth))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=["ours", "greenlet"])
    parser.add_argument("--memory", type=int)
    parser.add_argument("--queries", action="store_true")
    parser.add_argument("--block", type=int, default=200)
    options = parser.parse_args()
    if options.side:
        if options.side == "ours":
            import fiberback.greenlet

            fiberback.greenlet.install()
        if options.queries:
            queries(options.block)
            return
        depth, quick = options.memory, options.quick
        print(json.dumps(measure(quick) if depth is None else memory(depth, quick)))
        return
    for name in ("greenlet", "sqlalchemy"):
        if importlib.util.find_spec(name) is None:
            print(f"needs {name}: pip install {name}")
            return
    rounds = 1 if options.quick else options.rounds
    print(f"{platform.python_implementation()} {platform.python_version()}, {rounds} rounds")
    print(f"{'':45}{'fiberback':>12}{'greenlet':>12}{'ratio':>8}")
    if not options.queries:
        found = [
            (side("ours", options.quick), side("greenlet", options.quick)) for _ in range(rounds)
        ]
        for name in found[0][0]:
            ours, theirs = ([each[of][name] for each in found] for of in (0, 1))
            row(name, statistics.median(ours), statistics.median(theirs), ratios(ours, theirs))
    if importlib.util.find_spec("aiosqlite") is not None:
        blocks = 2 if options.quick else 10 * rounds
        for found_there in compare_queries(blocks, 20 if options.quick else options.block):
            row(*found_there)


def row(name, ours, theirs, ratio):
    unit = "" if name.startswith("bytes") else " ns"
    print(f"{name:45}{ours:>9,.0f}{unit:3}{theirs:>9,.0f}{unit:3}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
