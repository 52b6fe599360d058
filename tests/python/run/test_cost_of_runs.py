"""What runs inside a running loop, and comes to its end there, costs no more for the tasks that the loop has.

Calls are counted, of Python's functions and of those in C, and tasks that `asyncio.all_tasks` has looked at.
"""

from __future__ import annotations

import asyncio
import sys

import fiberback
import pytest
from fiberback import nest
from support import only_fiberback

pytestmark = only_fiberback

FEW, MANY, MORE = 10, 500, 100


async def nothing():
    return None


async def leaves_one_behind():
    asyncio.get_running_loop().create_task(asyncio.sleep(1000))


def run_inside():
    fiberback.run(nothing())


def run_inside_with_a_task_left():
    fiberback.run(leaves_one_behind())


def nested():
    nest.run(nothing())


def task_group():
    with fiberback.TaskGroup() as group:
        group.start(nothing)


def gathered():
    fiberback.gather(nothing(), nothing)


def mapped():
    fiberback.map(lambda item: item, [1, 2], limit=1)


def a_look_at_all_tasks():
    run_inside()
    asyncio.all_tasks()


WHAT = [run_inside, run_inside_with_a_task_left, nested, task_group, gathered, mapped]


@pytest.fixture
def looked_at(monkeypatch):
    """How many tasks `asyncio.all_tasks` has given."""
    counts, all_tasks = [], asyncio.all_tasks

    def counted(loop=None):
        tasks = all_tasks(loop)
        counts.append(len(tasks))
        return tasks

    for module in asyncio, asyncio.tasks:
        monkeypatch.setattr(module, "all_tasks", counted)
    return counts


async def costs(whats, others, looked_at):
    """What is counted while each runs, the loop's other work included."""
    gate = asyncio.Event()
    tasks = [asyncio.create_task(gate.wait()) for _ in range(others)]
    await asyncio.sleep(0)
    counts = {}
    for what in whats:
        what()  # the first time is not the usual one
        looked_at.clear()
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            what()
        finally:
            sys.setprofile(None)
        counts[what.__name__] = calls + sum(looked_at)
    gate.set()
    await asyncio.gather(*tasks)
    return counts


def grown(run, whats, looked_at):
    """What is counted among many tasks more than among few."""
    few, many = (run(costs(whats, others, looked_at)) for others in (FEW, MANY))
    assert min(few.values()) > 5
    return {name: many[name] - few[name] for name in few}


def run_where_nest_is_applied(main):
    with nest.apply(run_close_loop=True):
        return asyncio.run(main)


@pytest.mark.parametrize("run", [asyncio.run, fiberback.run, run_where_nest_is_applied])
def test_it_costs_the_same_among_many_tasks(run, looked_at):
    found = grown(run, WHAT, looked_at)
    assert max(found.values()) <= MORE, found


def test_what_grows_is_noticed(looked_at):
    found = grown(asyncio.run, [a_look_at_all_tasks], looked_at)
    assert found["a_look_at_all_tasks"] > MORE
