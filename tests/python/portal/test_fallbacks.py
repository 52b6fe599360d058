"""What is done with less than was wanted (fallbacks.rs): counted, and said once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import UNDER_TEST, only_fiberback

pytestmark = [only_fiberback, pytest.mark.leaks]

PRELUDE = f"""
import asyncio, json, resource, warnings
import {UNDER_TEST} as fb
warnings.simplefilter("always")

class Once:
    def __await__(self):
        yield

def wait():
    fb.await_(Once())

def take_all():
    # Every stack that there is.
    portals = []
    try:
        while True:
            portal = fb.with_portal_run_sync(wait)
            portals.append(portal)
            portal.send(None)
    except MemoryError as error:
        assert "[fiberback:no-stack]" in str(error), error
    return portals

def limit():
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    bytes_ = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))
"""


def run(program, code, counter):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(code) == 1, done.stderr
    stats = json.loads(done.stdout)
    assert stats[counter] > 0, stats


def test_small_stacks_where_address_space_is_short():
    program = """
limit()
for portal in take_all():
    portal.close()
print(json.dumps(fb.stats()))
"""
    run(
        "asyncio.run(fb.with_portal_run_sync(wait))" + program,
        "[fiberback:stacks-small]",
        "stacks_small",
    )


def test_the_tasks_own_stack_where_no_other_is_left():
    program = """
portals = [fb.with_portal_run_sync(wait) for _ in range(20)]
for portal in portals:
    portal.send(None)
limit()
portals += take_all()
fb.trim()  # the one that what they await was run on
portals += take_all()
for portal in portals[:2]:
    portal.close()

async def main():
    await fb.with_portal_run_sync(fb.await_, asyncio.sleep(0.001))
    return await fb.with_portal_run_sync(fb.await_, asyncio.sleep(0.001, "end"))

assert asyncio.run(main()) == "end"
print(json.dumps(fb.stats()))
for portal in portals:
    portal.close()
"""
    run(program, "[fiberback:stacks-not-shared]", "stacks_not_shared")


def test_the_loop_stays_where_it_was_begun_where_no_other_stack_is_left():
    program = """
async def main():
    events = asyncio.Event(), asyncio.Event()
    ended = []

    async def caller(number):
        fb.await_(events[number].wait())
        if not number:
            ended.extend(take_all())

    tasks = [asyncio.create_task(caller(number)) for number in (0, 1)]
    await asyncio.sleep(0.001)
    limit()
    events[0].set()
    await tasks[0]
    await asyncio.sleep(0.001)
    for portal in ended:
        portal.close()
    events[1].set()
    await tasks[1]

asyncio.run(main())
print(json.dumps(fb.stats()))
"""
    run(program, "[fiberback:loop-not-passed]", "loops_not_passed_on")
