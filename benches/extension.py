"""Waits of a PyO3 extension for tokio: fiberback-pyo3 against what extensions do today.

`python benches/extension.py` builds `examples/store_extension`, and has 1, 100 and 1,000 tasks of a
plain `asyncio.run` wait for tokio timers of 1 ms, again and again,

- in a synchronous Rust function on fiberback (`run_on_loop`), called by sync Python code, in tasks
  with a portal and in tasks that nothing was prepared for,
- in a Rust awaitable by pyo3-async-runtimes (`future_into_py`), for which all callers must be async,
- in a synchronous Rust function that blocks (`py.detach(|| block_on)`), in asyncio.to_thread,

in turn, round after round in one process, so that whatever else the machine does hits all alike.
Numbers are microseconds of the process for each wait, medians over the rounds, with the medians of
each round's ratio to fiberback's in tasks with a portal: above 1, fiberback is faster.
`--rounds N`, `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import platform
import statistics
import sys
import time

import fiberback

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "python"))

import extensions

SECONDS = 0.001


def work(extension, waits):
    for _ in range(waits):
        extension.pause(SECONDS)


async def on_portals(extension, tasks, waits):
    calls = (fiberback.with_portal_run_sync(work, extension, waits) for _ in range(tasks))
    await asyncio.gather(*calls)


async def unprepared(extension, tasks, waits):
    async def task():
        work(extension, waits)

    await asyncio.gather(*(task() for _ in range(tasks)))


async def awaitables(extension, tasks, waits):
    async def task():
        for _ in range(waits):
            await extension.pause_async(SECONDS)

    await asyncio.gather(*(task() for _ in range(tasks)))


async def threads(extension, tasks, waits):
    async def task():
        for _ in range(waits):
            await asyncio.to_thread(extension.pause_blocking, SECONDS)

    await asyncio.gather(*(task() for _ in range(tasks)))


WAYS = {
    "fiberback, portals": on_portals,
    "fiberback, unprepared": unprepared,
    "pyo3-async-runtimes": awaitables,
    "detach and block_on": threads,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    file = extensions.store_extension_file("peers")
    extension = extensions.load("store_extension", file)
    print(f"CPython {platform.python_version()}, tokio timers of 1 ms, one worker thread each")
    for tasks in (1, 100, 1000):
        waits = max(2, (200 if arguments.quick else 2000) // tasks)
        took = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, run in WAYS.items():
                begin = time.perf_counter()
                asyncio.run(run(extension, tasks, waits))
                took[way].append((time.perf_counter() - begin) / (tasks * waits) * 1e6)
        print(f"{tasks} tasks at once:")
        first = next(iter(WAYS))
        for way, each in took.items():
            ratio = statistics.median(a / b for a, b in zip(each, took[first], strict=True))
            print(f"  {way:24} {statistics.median(each):9.1f} us a wait   {ratio:6.2f}")


if __name__ == "__main__":
    main()
