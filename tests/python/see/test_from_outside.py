"""What CPython's own tools see of a process from outside (`python -m asyncio ps`): 3.14 and later."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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
# 4, thread 2. With a portal around the whole task it is the first.
SHOWN = {
    "run": {
        "pure": ["pure"],
        "mixed": ["mixed"],
        "portal": ["portal"],
        "thread": ["thread"],
    },
    "asyncio": {
        "pure": ["Event.wait", "leaf", "pure"],
        "mixed": ["mixed"],
        "portal": ["with_portal_run_sync", "portal"],
        "thread": ["to_thread", "thread"],
    },
}


def looked_at(tmp_path, program, *arguments):
    """What asyncio's tools see of a process, once that has said "ready"; it ends when it is told to."""
    from asyncio.tools import get_all_awaited_by

    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "program.py", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            seen = get_all_awaited_by(process.pid)
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
