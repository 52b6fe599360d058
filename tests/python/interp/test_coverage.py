"""coverage.py measures code that waits: no line is lost, and none is there that has not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("coverage")

# Two files of different lengths: a line of one that is recorded for the other shows.
LONG = "\n" * 300 + textwrap.dedent(
    '''\
    """Synchronous code that waits."""
    import fiberback


    def deep(levels, wait):
        if levels:
            value = deep(levels - 1, wait)
            value += 1
        else:
            value = wait()
            if value is None:
                value = 0
        return value


    def caller(turns, odd):
        total = 0
        for turn in range(turns):
            before = turn
            if (turn + odd) % 2:
                total += deep(turn % 3, pause)
            else:
                try:
                    fiberback.await_(leaf(turn))
                except ValueError:
                    total += 1
                total += before
        return total


    def pause():
        fiberback.await_(sleep())


    async def leaf(turn):
        await sleep()
        if turn % 3 == 0:
            raise ValueError(turn)
        await sleep()
        return turn


    async def sleep():
        import asyncio

        await asyncio.sleep(0)
    '''
)

SHORT = textwrap.dedent(
    """\
    import asyncio
    import fiberback, measured_long


    def step(number):
        if number % 2:
            return number
        return -number


    async def beside(turns):
        total = 0
        for number in range(turns):
            total += step(number)
            await asyncio.sleep(0)
        return total


    async def portal(number):
        return await fiberback.with_portal_run_sync(measured_long.caller, 7, number)


    async def parked(number):
        return measured_long.caller(7, number)


    async def thread(number):
        return await asyncio.to_thread(measured_long.caller, 7, number)


    async def main(together, how):
        waits = [how(number) for number in range(4)]
        return await together(*waits, beside(9), beside(12))


    def run(together, situation):
        how = {"portal": portal, "parked": parked, "thread": thread}[situation]
        return asyncio.run(main(together, how))
    """
)

DRIVER = textwrap.dedent(
    """\
    import asyncio, json, sys
    from concurrent.futures import ThreadPoolExecutor
    import coverage


    async def at_once(*waits):
        return await asyncio.gather(*map(asyncio.ensure_future, waits))


    async def one_by_one(*waits):
        return [await wait for wait in waits]


    async def call(function, *arguments):
        return function(*arguments)


    def in_a_thread(coroutine):
        with ThreadPoolExecutor() as pool:
            return pool.submit(asyncio.run, coroutine).result()


    situation, branch, place = sys.argv[1:]
    results = []


    def measure(together):
        for name in ["measured_long", "measured_short"]:
            sys.modules.pop(name, None)
        measured = coverage.Coverage(
            data_file=None, branch=branch == "branch", config_file=False, messages=False,
            source=[place], concurrency=["thread"],
        )
        measured.start()
        import measured_short
        measured_short.run(together, situation)
        measured.stop()
        assert sys.gettrace() is None, sys.gettrace()
        tracer = measured._collector.tracer_name()
        found = {
            name: sorted(read(measured, tracer, f"{place}/{name}.py"))
            for name in ["measured_long", "measured_short"]
        }
        results.append([tracer, found])


    def read(measured, tracer, file):
        data = measured.get_data()
        if branch == "line":
            return data.lines(file)
        if tracer != "SysMonitor":
            return data.arcs(file)
        # It takes two lines of one code object that run one after the other for an arc, whichever calls they are
        # of. What it reports are branches.
        taken = measured._analyze(file).executed_branch_arcs()
        return [(line, -1) for line in data.lines(file)] + [
            (line, to) for line, ends in taken.items() for to in ends
        ]


    measure(one_by_one)
    measure(at_once)
    # The same lines, without a wait: the code that is awaited runs to its end in a thread of its own.
    import fiberback
    fiberback.await_ = in_a_thread
    fiberback.with_portal_run_sync = call
    measure(one_by_one)
    print(json.dumps(results))
    """
)

CORES = ["ctrace", "pytrace", "sysmon"]
TRACERS = {"ctrace": "CTracer", "pytrace": "PyTracer", "sysmon": "SysMonitor"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    (place / "measured_long.py").write_text(LONG)
    (place / "measured_short.py").write_text(SHORT)
    (place / "driver.py").write_text(DRIVER)
    return place


def measure(place, core, *arguments):
    result = subprocess.run(
        [sys.executable, "driver.py", *arguments, str(place)],
        cwd=place,
        env={**os.environ, "COVERAGE_CORE": core, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("branch", ["line", "branch"])
@pytest.mark.parametrize(
    "situation", ["portal", "parked", pytest.param("thread", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("core", CORES)
def test_what_waits_is_measured_like_what_does_not(measured, core, situation, branch):
    if core == "sysmon" and sys.version_info < (3, 14 if branch == "branch" else 12):
        pytest.skip("coverage.py cannot measure this by sys.monitoring before")
    *results, (_, natively) = measure(measured, core, situation, branch)
    assert len(natively["measured_long"]) > 30
    for tracer, found in results:
        assert tracer == TRACERS[core]
        for name, expected in natively.items():
            lost = [item for item in expected if item not in found[name]]
            false = [item for item in found[name] if item not in expected]
            assert (name, lost, false) == (name, [], [])


TOGGLED = """
import asyncio, gc, sys, threading
import coverage, fiberback

def call(wait, depth):
    if depth:
        value = call(wait, depth - 1)
        return value
    return fiberback.await_(wait())

async def turn():
    await asyncio.sleep(0)

def caller(turns):
    for number in range(turns):
        call(turn, number % 4)

def toggler(turns):
    for number in range(turns):
        measured = coverage.Coverage(data_file=None, config_file=False, messages=False, concurrency=["thread"])
        call(turn, 2)
        measured.start()
        call(turn, 3)
        measured.stop()
        call(turn, 1)
        assert sys.gettrace() is None or "coverage" not in repr(sys.gettrace()), sys.gettrace()
        assert measured.get_data().lines(__file__)
        del measured
        gc.collect()

async def main(how):
    await asyncio.gather(*(how(caller, 60 + n) for n in range(5)), how(toggler, 12))

async def portal(function, *arguments):
    return await fiberback.with_portal_run_sync(function, *arguments)

async def parked(function, *arguments):
    return function(*arguments)

asyncio.run(main(portal))
asyncio.run(main(parked))
def in_thread():
    asyncio.run(main(portal))
    asyncio.run(main(parked))
threads = [threading.Thread(target=in_thread)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sys.gettrace() is None
print("done")
"""


@pytest.mark.parametrize("core", ["ctrace", "pytrace"])
def test_measuring_begins_and_ends_on_a_fiber_while_others_are_suspended(tmp_path, core):
    (tmp_path / "toggled.py").write_text(TOGGLED)
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "toggled.py"],
        cwd=tmp_path,
        env={**os.environ, "COVERAGE_CORE": core},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
