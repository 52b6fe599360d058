"""What cProfile counts where stacks are switched; run by test_profilers.py."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import time

import fiberback
import test_profilers
from test_profilers import busy, caller, turn, two, wait, ways


def figures(profiler):
    """Calls, own seconds and seconds in all, by the name of the function."""
    stats = pstats.Stats(profiler).stats
    return {
        name: (calls, own, in_all)
        for (file, _, name), (_, calls, own, in_all, _) in stats.items()
        if file in (__file__, test_profilers.__file__) or "await_" in name
    }


@ways
def test_cprofile_of_tasks_that_interleave(way):
    profiler = cProfile.Profile()
    names = iter("ab")

    def slow():
        busy(0.05)

    def quick():
        busy(0.001)

    def first():
        wait()
        slow()
        wait()

    def second():
        for _ in range(4):
            wait()
            quick()

    def fn():
        first() if next(names) == "a" else second()

    began = time.perf_counter()
    with profiler:
        way(fn)
    took = time.perf_counter() - began
    found = figures(profiler)
    # Nobody is counted what others do while he waits.
    assert found["first"][2] >= 0.05
    assert found["first"][2] + found["second"][2] <= took
    assert found["slow"][0] == 1 and found["quick"][0] == 4
    assert found["first"][0] == 3 and found["second"][0] == 5  # one more for each wait
    assert sum(own for _, own, _ in found.values()) <= took
    everything = sum(row[2] for row in pstats.Stats(profiler).stats.values())
    assert everything <= took
    assert everything >= 0.05 + 0.004


@ways
def test_cprofile_counts_as_it_does_native_coroutines(way):
    async def native_leaf():
        await turn()

    async def native():
        await native_leaf()
        await native_leaf()

    def leaf():
        wait()

    def sync():
        leaf()
        leaf()

    async def task_of(_):
        await native()

    profiler = cProfile.Profile()
    with profiler:
        way(sync)
        asyncio.run(two(task_of))
    found = figures(profiler)
    assert found["sync"][0] == found["native"][0] == 6
    assert found["leaf"][0] == found["native_leaf"][0] == 8


@ways
def test_cprofile_through_c_functions(way):
    profiler = cProfile.Profile()
    with profiler:
        way(caller)
    stats = pstats.Stats(profiler).stats
    calls = {name: row[1] for (_, _, name), row in stats.items()}
    # Three waits below `sorted` and `Context.run`, and one before.
    assert calls["caller"] == 2 * 5
    assert calls["through_c"] == 2 * 4
    assert calls["by_key"] == 2 * 4
    assert calls["<built-in method builtins.sorted>"] == 2 * 3
    (awaits,) = [count for name, count in calls.items() if "await_" in name]
    assert awaits == 2 * 8


@ways
def test_cprofile_inside_and_beside(way):
    """Enabled by the code that waits, and disabled by it."""
    profiler = cProfile.Profile()
    tasks = []

    def fn():
        tasks.append(None)
        if len(tasks) > 1:
            return caller()
        profiler.enable()
        caller()
        profiler.disable()
        return None

    way(fn)
    found = figures(profiler)
    assert 5 <= found["caller"][0] <= 10
    assert all(own >= 0 and in_all >= own * 0.999 for _, own, in_all in found.values()), found


def test_cprofile_while_portals_are_given_up():
    """A task that is cancelled in the middle of a call goes on once more; one that nobody ends is left."""
    profiler = cProfile.Profile()

    async def main():
        async def task_of():
            fiberback.await_(asyncio.Event().wait())

        tasks = [asyncio.ensure_future(task_of()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])

    with profiler:
        fiberback.run(main())
    assert figures(profiler)["task_of"][0] == 6
