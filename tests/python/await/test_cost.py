"""No wait costs more for what else there is in the process, nor for how deep it is called.

Ratios only, of the least of some measurements on both sides. A machine that is busy just then may disturb one
side, so that the least is taken over further attempts before it counts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pathlib
import subprocess
import sys

import fiberback
import pytest
from fiberback._user_frames import is_ours
from support import only_fiberback

# Most of it is processor time of processes of its own: minutes, where others need the machine, too.
pytestmark = [only_fiberback, pytest.mark.sampled, pytest.mark.time_limit(170)]

SCRIPT = pathlib.Path(__file__).with_name("cost_of_waits.py")
MOST, ATTEMPTS = 2.0, 5

KINDS = [
    "parked",
    "ready",
    "ready in a coroutine",
    "portal",
    "ready on a portal",
    "thread",
    "our thread",
    "anyio thread",
    "asgiref thread",
    "told thread",
    "callback",
    "callback under run",
    "without a loop",
    "trio",
]


def measured(kind, *rounds):
    out = subprocess.run(
        [sys.executable, str(SCRIPT), kind, *map(str, rounds)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def ratios(kind):
    """In a crowd to alone; from many frames deep to few."""
    least = {}
    for _ in range(ATTEMPTS):
        for name, cost in measured(kind).items():
            least[name] = min(cost, least.get(name, cost))
        crowd, depth = least["crowded"] / least["alone"], least["many"] / least["few"]
        if crowd <= MOST and depth <= MOST:
            break
    return crowd, depth


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_costs_the_same_in_a_crowd_and_from_many_frames_deep(kind):
    needs = kind.removesuffix(" thread")
    if needs in ("anyio", "asgiref", "trio") and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    crowd, depth = ratios(kind)
    assert crowd <= MOST, (
        f"{crowd:.1f} times as much among ten times as many objects, modules, tasks"
    )
    assert depth <= MOST, f"{depth:.1f} times as much from ten times as deep"


def test_what_grows_is_noticed():
    # Once each: they take long, and leave no doubt.
    costs = measured("a look at everything", 1)
    assert costs["crowded"] > MOST * costs["alone"], costs
    costs = measured("a look at the stack", 1)
    assert costs["many"] > MOST * costs["few"], costs


# What is Python code of ours is counted: lines that it takes for one wait.


def lines_of(wait):
    """The lines of our own code that run while `wait()` does."""
    count = 0

    def traced(frame, event, argument):
        nonlocal count
        count += event == "line"
        return traced

    def called(frame, event, argument):
        return traced if is_ours(frame.f_code.co_filename) else None

    sys.settrace(called)
    try:
        wait()
    finally:
        sys.settrace(None)
    return count


async def ready():
    return None


def of_a_callback(others):
    """The first wait of a callback, among others that wait."""

    async def main():
        loop, gate = asyncio.get_running_loop(), asyncio.Event()
        for _ in range(others):
            loop.call_soon(lambda: fiberback.await_(gate.wait()))
        await asyncio.sleep(0)
        answer = loop.create_future()
        loop.call_soon(
            lambda: answer.set_result(lines_of(lambda: fiberback.await_(asyncio.sleep(0))))
        )
        lines = await answer
        gate.set()
        await asyncio.sleep(0.01)
        return lines

    return asyncio.run(main())


def of_a_task_beside_regions(others):
    """Among others that are suspended in regions of `no_await`."""

    async def guarded(gate):
        with fiberback.no_await():
            await gate.wait()

    async def main():
        gate = asyncio.Event()
        tasks = [asyncio.create_task(guarded(gate)) for _ in range(others)]
        await asyncio.sleep(0)
        lines = lines_of(lambda: fiberback.await_(ready()))
        gate.set()
        await asyncio.gather(*tasks)
        return lines

    return asyncio.run(main())


def of_a_loop_inside_trio(others):
    """asyncio in synchronous code of a Trio task, called from so deep, among so many tasks."""
    import trio

    async def main():
        return lines_of(lambda: fiberback.await_(asyncio.sleep(0)))

    def deep(depth):
        return deep(depth - 1) if depth else asyncio.run(main())

    async def in_trio():
        async with trio.open_nursery() as nursery:
            for _ in range(others):
                nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            lines = deep(others)
            nursery.cancel_scope.cancel()
        return lines

    return trio.run(in_trio)


@pytest.mark.parametrize("kind", [of_a_callback, of_a_task_beside_regions, of_a_loop_inside_trio])
def test_our_own_code_runs_no_line_more_among_others(kind):
    if kind is of_a_loop_inside_trio:
        pytest.importorskip("trio")
    lines = kind(3)
    assert lines > 0
    assert kind(100) <= lines + 10
