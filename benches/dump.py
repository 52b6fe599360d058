"""What a dump of 10,000 suspended tasks takes, next to capturing the stacks of as many native ones.

`python benches/dump.py` has three programs in one process, each with as many tasks: that wait in `await_` under
`fiberback.run`, or by `await`. In turn, round after round, it takes the processor time of `fiberback.dump()`, of
`fiberback.stacks()`, and of what one would write without fiberback: each native task's chain of `cr_await`,
formatted by `traceback`. Medians, and their ratio. `--tasks N`, `--rounds N`.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
import traceback

import fiberback


async def work(until):
    await until.wait()


def deep(depth, until):
    if depth:
        return deep(depth - 1, until)
    return fiberback.await_(work(until))


async def waits_in_await_(until):
    deep(2, until)


async def level(depth, until):
    await (level(depth - 1, until) if depth else work(until))


async def waits_natively(until):
    await level(2, until)


def captured(tasks):
    """Of each task its frames, from the outermost, as text."""
    texts = []
    for task in tasks:
        lines, coro = [], task.get_coro()
        while getattr(coro, "cr_frame", None) is not None:
            lines.append((coro.cr_frame, coro.cr_frame.f_lineno))
            coro = coro.cr_await
        texts.append("".join(traceback.StackSummary.extract(lines).format()))
    return texts


def timed(function, *args):
    begin = time.process_time()
    function(*args)
    return time.process_time() - begin


async def suspended(function, count):
    until = asyncio.Event()
    tasks = [asyncio.create_task(function(until)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return until, tasks


async def main(count, rounds):
    found = {"dump": [], "stacks": [], "native": []}
    for _ in range(rounds):
        until, tasks = await suspended(waits_natively, count)
        found["native"].append(timed(captured, tasks))
        until.set()
        await asyncio.wait(tasks)
        until, tasks = await suspended(waits_in_await_, count)
        found["dump"].append(timed(fiberback.dump))
        found["stacks"].append(timed(fiberback.stacks))
        until.set()
        await asyncio.wait(tasks)
    print(
        f"CPython {platform.python_version()}, {count} tasks, {rounds} rounds, seconds of processor time"
    )
    middle = {name: statistics.median(times) for name, times in found.items()}
    for name, seconds in middle.items():
        print(f"{name:8}{seconds:8.3f}   {seconds / middle['native']:.2f} x native capture")
    print("dump in less than 1 s:", "PASS" if middle["dump"] < 1 else "MISS")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    fiberback.run(main(chosen.tasks, chosen.rounds))
