"""What CPython's own tools see of a process from outside (`python -m asyncio ps`): 3.14 and later."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest
from support import only_fiberback

pytestmark = [
    only_fiberback,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="the tools came with Python 3.14"),
]

PROGRAM = textwrap.dedent(
    """\
    import asyncio, sys, fiberback


    async def leaf():
        await event.wait()


    async def pure():
        await leaf()


    def sync():
        fiberback.await_(leaf())


    async def mixed():
        sync()


    async def portal():
        await fiberback.with_portal_run_sync(sync)


    async def thread():
        await asyncio.to_thread(sync)


    async def main():
        global event
        event = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for function in [pure, mixed, portal, thread]:
                group.create_task(function(), name=function.__name__)
            while len(event._waiters) < 4:
                await asyncio.sleep(0.01)
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            event.set()


    fiberback.run(main()) if sys.argv[1] == "run" else asyncio.run(main())
    """
)

# Frames that are shown, innermost first, for each task. There are: pure 3 (pure, leaf, Event.wait), mixed and portal
# 4 (and a frame of ours, which portal awaits), thread 2. A coroutine that runs shows one, and a native one nothing of a
# portal that it awaits.
SHOWN = {
    "run": {
        "pure": ["Event.wait", "leaf", "pure"],
        "mixed": ["Event.wait", "leaf", "sync", "mixed"],
        "portal": ["Event.wait", "leaf", "sync", "with_portal_run_sync", "portal"],
        "thread": ["to_thread", "thread"],
    },
    "asyncio": {
        "pure": ["Event.wait", "leaf", "pure"],
        "mixed": ["mixed"],
        "portal": ["with_portal_run_sync", "portal"],
        "thread": ["to_thread", "thread"],
    },
}


def seen_of(process):
    """What asyncio's tools read of a process. That goes on meanwhile, so that they may have to look again."""
    from asyncio.tools import get_all_awaited_by

    for _ in range(100):
        try:
            return get_all_awaited_by(process.pid)
        except RuntimeError:
            time.sleep(0.05)
    return get_all_awaited_by(process.pid)


def looked_at(tmp_path, program, *arguments):
    """The same, once the process has said "ready"; it ends when it is told to."""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "program.py", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            seen = seen_of(process)
        finally:
            process.communicate("\n")
    assert process.returncode == 0
    return seen


@pytest.mark.parametrize("how", list(SHOWN))
def test_asyncio_ps_shows_every_task(tmp_path, how):
    from asyncio.tools import build_async_tree, build_task_table

    seen = looked_at(tmp_path, PROGRAM, how)
    stacks = {row[2]: row[3].split(" -> ") for row in build_task_table(seen)}
    assert {name: stacks[name] for name in SHOWN[how]} == SHOWN[how]
    tree = "\n".join(line for part in build_async_tree(seen) for line in part)
    lines = PROGRAM.splitlines()
    for name in ["pure", "mixed", "thread"]:
        line = lines.index(f"async def {name}():") + 2
        assert f"program.py:{line}" in tree, (name, tree)


def test_a_task_that_has_ended_shows_nothing(tmp_path):
    """Its code may be gone; the task is still in somebody's hands."""
    from asyncio.tools import build_task_table

    program = """\
import asyncio, gc, sys, fiberback
async def main():
    scope = {}
    exec("async def gone(): pass", scope)
    tasks = [asyncio.ensure_future(scope["gone"]()) for _ in range(50)]
    await asyncio.gather(*tasks)
    del scope
    gc.collect()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
fiberback.run(main())
"""
    seen = looked_at(tmp_path, program)
    assert [row[3] for row in build_task_table(seen)] == ["main"]


DEEP = textwrap.dedent(
    """\
    import asyncio, sys, fiberback
    from fiberback._fiberback import Portal

    DEPTH = int(sys.argv[1])


    async def waits():
        await event.wait()


    def sync(n):
        if n:
            sync(n - 1)
        else:
            fiberback.await_(waits())


    async def pure(n):
        if n:
            await pure(n - 1)
        else:
            await event.wait()


    async def inside(n):
        if n:
            await inside(n - 1)
        else:
            sync(DEPTH)


    async def nested(n):
        await Portal(inside(n))


    async def changes():
        await pure(DEPTH)
        sync(2)
        await pure(1)


    async def main():
        global event
        event = asyncio.Event()
        tasks = [asyncio.create_task(f(DEPTH), name=f.__name__) for f in [pure, inside, nested]]
        tasks.append(asyncio.create_task(changes(), name="changes"))
        for waiting in [4, 1, 1]:
            while len(event._waiters) < waiting:
                await asyncio.sleep(0)
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for waiter in event._waiters:
                waiter.set_result(True)
            await asyncio.sleep(0)  # the tasks go on, and wait again or end
        await asyncio.gather(*tasks)


    fiberback.run(main())
    """
)


@pytest.mark.parametrize("depth", [0, 7, 90])
def test_what_is_shown_is_what_waits_now(tmp_path, depth):
    """Each wait of a task may be deeper than the one before it, or less deep."""
    from asyncio.tools import build_task_table

    def stacks(process):
        rows = {row[2]: row[3] for row in build_task_table(seen_of(process))}
        return {name: stack.split(" -> ")[::-1] for name, stack in rows.items()}

    (tmp_path / "program.py").write_text(DEEP)
    command = [sys.executable, "program.py", str(depth)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    seen = []
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        try:
            for _ in range(3):
                assert process.stdout.readline() == "ready\n"
                seen.append(stacks(process))
                process.stdin.write("\n")
                process.stdin.flush()
        finally:
            process.communicate()
    assert process.returncode == 0
    pure = ["pure"] * (depth + 1)
    sync = [*["sync"] * (depth + 1), "waits", "Event.wait"]
    assert [each["changes"] for each in seen] == [
        ["changes", *pure, "Event.wait"],
        ["changes", "sync", "sync", "sync", "waits", "Event.wait"],
        ["changes", "pure", "pure", "Event.wait"],
    ]
    assert seen[0]["pure"] == [*pure, "Event.wait"]
    assert seen[0]["inside"] == [*["inside"] * (depth + 1), *sync]
    assert seen[0]["nested"] == ["nested", *seen[0]["inside"]]


def test_of_a_stack_that_is_too_deep_the_first_frame_is_shown(tmp_path):
    from asyncio.tools import build_task_table

    program = """\
import asyncio, sys, fiberback
def sync(n):
    if n:
        return sync(n - 1)
    fiberback.await_(event.wait())
async def deep():
    sync(300)
async def main():
    global event
    event = asyncio.Event()
    task = asyncio.create_task(deep(), name="deep")
    while not event._waiters:
        await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    event.set()
    await task
fiberback.run(main())
"""
    rows = build_task_table(looked_at(tmp_path, program))
    assert [row[3] for row in rows if row[2] == "deep"] == ["deep"]
