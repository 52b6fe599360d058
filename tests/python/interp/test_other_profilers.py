"""What py-spy, pyinstrument, VizTracer and CPython's sampling profiler see of code that waits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

BEGINNING = textwrap.dedent(
    """\
    import asyncio, json, sys, time
    import fiberback

    def busy(seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    async def turn():
        await asyncio.sleep(0)

    def wait():
        fiberback.await_(turn())

    def by_key(_):
        wait()
        return 0

    def caller():
        wait()
        sorted([2, 1], key=by_key)

    async def on_portal(fn):
        await fiberback.with_portal_run_sync(fn)

    async def plain(fn):
        fn()

    run = fiberback.run if sys.argv[1] == "run" else asyncio.run
    task_of = on_portal if sys.argv[1] == "portal" else plain

    async def two(first, second):
        async with asyncio.TaskGroup() as group:
            group.create_task(task_of(first))
            group.create_task(task_of(second))
    """
)
ways = pytest.mark.parametrize("way", ["portal", "run", "parked"])


def told(tmp_path, program, *arguments):
    (tmp_path / "program.py").write_text(BEGINNING + textwrap.dedent(program))
    command = [sys.executable, "-W", "error::RuntimeWarning", "program.py", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@ways
@pytest.mark.parametrize("c_functions", [True, False], ids=["with C functions", "without"])
def test_viztracer(tmp_path, way, c_functions):
    """Each bar lies within that of its caller, as many as for native coroutines; none is missing."""
    import_or_skip("viztracer")
    program = """
    from viztracer import VizTracer

    tracer = VizTracer(verbose=0, ignore_c_function=sys.argv[2] == "False")
    tracer.start()
    run(two(caller, caller))
    tracer.stop()
    tracer.parse()
    bars = [each for each in tracer.data["traceEvents"] if each.get("ph") == "X"]
    print(json.dumps([[each["name"], each["ts"], each["dur"]] for each in bars]))
    """
    bars = json.loads(told(tmp_path, program, way, str(c_functions)).splitlines()[-1])
    bars.sort(key=lambda bar: (bar[1], -bar[2]))
    within, count = [], {}
    for name, begin, seconds in bars:
        name = name.split(" ")[0]
        count[name] = count.get(name, 0) + 1
        while within and within[-1][1] <= begin + 1e-3:
            within.pop()
        if within:
            assert begin + seconds <= within[-1][1] + 1e-2, (name, within[-1])
        within.append((name, begin + seconds))
        if name == "by_key" and c_functions:
            assert within[-2][0] == "builtins.sorted"
        elif name == "wait":
            assert within[-2][0] in ("caller", "by_key")
    # Three waits each, of which each has what waits begin anew.
    assert count["caller"] == 2 * 4
    assert count["by_key"] == 2 * 4
    assert count["wait"] == count["turn"] == 2 * 6
    if c_functions:
        assert count["builtins.sorted"] == 2 * 3
        assert count["fiberback.await_"] == 2 * 6


@pytest.mark.parametrize("way", ["portal", "run"])
def test_pyinstrument_in_async_mode(tmp_path, way):
    """What the profiled task does is counted, and its waits as such. Of what others do meanwhile nothing is, but the
    first turn, as with native coroutines."""
    import_or_skip("pyinstrument")
    program = """
    import pyinstrument

    def burn():
        busy_too(0.1)

    busy_too = type(busy)(busy.__code__.replace(co_name="busy_too"), globals())

    def others():
        for _ in range(4):
            burn()
            fiberback.await_(asyncio.sleep(0))

    def profiled():
        profiler = pyinstrument.Profiler(interval=0.001, async_mode="enabled")
        profiler.start()
        busy(0.05)
        fiberback.await_(asyncio.sleep(0))
        busy(0.15)
        fiberback.await_(asyncio.sleep(0.3))
        session = profiler.stop()
        seconds = {}
        def note(frame):
            name = frame.function
            seconds[name] = seconds.get(name, 0) + frame.time
            for child in frame.children:
                note(child)
        note(session.root_frame())
        print(json.dumps([seconds, session.duration]))

    run(two(profiled, others))
    """
    seconds, duration = json.loads(told(tmp_path, program, way).splitlines()[-1])
    assert seconds["busy"] >= 0.15 and seconds["[await]"] >= 0.25
    assert seconds["[await]"] > seconds.get("burn", 0)
    in_all = seconds["busy"] + seconds["[await]"] + seconds.get("burn", 0)
    assert duration * 0.8 <= in_all <= duration * 1.02


RUNNING = """
def loops():
    wait()
    print("ready", flush=True)
    while True:
        pass

run(two(loops, caller))
"""


def watched(tmp_path, way, *command):
    """What a command, given the process's id, prints about one that computes on a fiber."""
    (tmp_path / "program.py").write_text(BEGINNING + RUNNING)
    with subprocess.Popen(
        [sys.executable, "program.py", way], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            command = [each.format(process.pid) for each in command]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        finally:
            process.kill()
    return done


@ways
def test_py_spy_dump_of_a_running_fiber(tmp_path, way):
    """One whole stack, down to the program's first line."""
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    assert py_spy, "py-spy is in requirements.txt"
    done = watched(tmp_path, way, py_spy, "dump", "--pid", "{}")
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")]
    below = {"portal": "on_portal", "run": "plain", "parked": "plain"}[way]
    assert names[0] == "loops"
    assert below in names
    assert names[-1] == "<module>"


@pytest.mark.skipif(sys.version_info < (3, 15), reason="profiling.sampling came with Python 3.15")
@ways
def test_sampling_profiler(tmp_path, way):
    """Nearly each sample of a process that computes on a fiber is in the function that does, below its task's."""
    command = [sys.executable, "-m", "profiling.sampling", "attach", "-d", "2", "--collapsed"]
    done = watched(tmp_path, way, *command, "-o", "samples.txt", "{}")
    assert done.returncode == 0, done.stderr
    below = {"portal": "on_portal", "run": "plain", "parked": "plain"}[way]
    inside = every = 0
    for line in (tmp_path / "samples.txt").read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        every += int(count)
        if ":loops:" in stack and f":{below}:" in stack:
            inside += int(count)
    assert every > 10
    assert inside >= every * 0.9
