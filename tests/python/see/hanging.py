"""A program in which something waits, in each of the situations of docs/debugging.md: run as a script by tests.

It says "ready" once that waits, then what tools see of it from a thread of the process, and ends when it is told to.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import json
import sys
import tempfile
import threading
import time
import traceback

import fiberback


async def leaf():
    await event.wait()


async def middle():
    await leaf()


def ask():
    fiberback.await_(middle())


def caller():
    ask()


async def inner():
    await middle()


async def on_portal():
    await fiberback.with_portal_run_sync(caller)


async def in_task():
    caller()


async def in_thread():
    await asyncio.to_thread(caller)


async def purely_async():
    await inner()


# How it is run, the task, and the frames that are there, from the outermost in.
BELOW = ["caller", "ask", "middle", "leaf", "wait"]
SITUATIONS = {
    "portal": (asyncio.run, on_portal, ["on_portal", *BELOW]),
    "task under `run`": (fiberback.run, in_task, ["in_task", *BELOW]),
    "parked": (asyncio.run, in_task, ["in_task", *BELOW]),
    "thread": (fiberback.run, in_thread, ["in_thread", "to_thread", *BELOW]),
    "no loop": (None, None, ["<module>", "main", *BELOW]),
    "purely async under `run`": (
        fiberback.run,
        purely_async,
        ["purely_async", "inner", *BELOW[2:]],
    ),
    "purely async under `asyncio.run`": (
        asyncio.run,
        purely_async,
        ["purely_async", "inner", *BELOW[2:]],
    ),
}

event = asyncio.Event()


def tasks():
    """Those of the loop that the event is of, but the one that is no part of what hangs."""
    found = asyncio.all_tasks(event._loop)
    return sorted((task for task in found if task.get_name() != "main"), key=asyncio.Task.get_name)


def chain(task):
    names, coroutine = [], task.get_coro()
    while coroutine is not None:
        if getattr(coroutine, "cr_code", None) is not None:
            names.append(coroutine.__name__)
        coroutine = getattr(coroutine, "cr_await", None)
    return names


def printed(task):
    file = io.StringIO()
    task.print_stack(file=file)
    return [line.split(" in ")[-1] for line in file.getvalue().splitlines() if line[:6] == "  File"]


def frames_of_threads():
    own = threading.get_ident()
    found = [top for ident, top in sys._current_frames().items() if ident != own]
    return [frame.f_code.co_name for top in found for frame, _ in traceback.walk_stack(top)]


def told_by_faulthandler():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        threads = file.read().split("\n\n")
    lines = [
        line
        for thread in threads
        if not thread.startswith("Current")
        for line in thread.splitlines()
    ]
    return [line.split(" in ")[-1] for line in lines if " in " in line]


def every(stacks):
    for stack in stacks:
        yield stack
        yield from every(stack.children)


def seen():
    found = tasks()
    tools = {
        "fiberback.stacks()": [
            frame.name
            for stack in every(fiberback.stacks())
            if stack.name != "main"
            for frame in stack.frames
        ],
        "task.get_stack()": [frame.f_code.co_name for task in found for frame in task.get_stack()],
        "task.print_stack()": [name for task in found for name in printed(task)],
        "cr_await": [name for task in found for name in chain(task)],
        "sys._current_frames()": frames_of_threads(),
        "faulthandler": told_by_faulthandler(),
    }
    if sys.version_info >= (3, 14):
        tools["asyncio.capture_call_graph()"] = [
            entry.frame.f_code.co_name
            for task in found
            for entry in asyncio.capture_call_graph(task).call_stack
        ]
    return tools


def look():
    while not event._waiters:
        time.sleep(0.01)
    time.sleep(0.2)  # and until those that wait for it are away
    print("ready", flush=True)
    print(json.dumps(seen()), flush=True)
    sys.stdin.readline()
    loop = event._loop
    loop.call_soon_threadsafe(event.set)


def main():
    run, task, _ = SITUATIONS[sys.argv[1]]
    threading.Thread(target=look, name="looks").start()
    if run is None:
        caller()
        return

    async def body():
        asyncio.current_task().set_name("main")
        await asyncio.create_task(task(), name="hangs")

    run(body())


if __name__ == "__main__":
    main()
