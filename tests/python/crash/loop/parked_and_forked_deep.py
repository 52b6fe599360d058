# expect-stdout: fine
"""fork() in a parked caller, in a callback, in a portal, and in a signal handler, with others parked:
the child leaves by sys.exit() through all of it, goes on with the same loop, or runs a new one."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import warnings

import fiberback

warnings.simplefilter("ignore", DeprecationWarning)


def fork(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"{child.__name__}: {os.waitstatus_to_exitcode(status)}"


def leave():
    sys.exit(0)


def leave_at_once():
    os._exit(0)


def new_loop():
    asyncio.run(several(False))
    fiberback.run(several(False))


def own_runner():
    if fiberback.has_portal():
        return  # would suspend the task, of a loop that asyncio says does not run
    assert fiberback.await_(value(7)) == 7


def same_loop():
    asyncio._set_running_loop(LOOP)
    assert fiberback.await_(value(8)) == 8


def drop_all():
    TASKS.clear()
    gc.collect()


CHILDREN = (leave_at_once, new_loop, own_runner, same_loop, drop_all, leave)


async def value(n):
    await asyncio.sleep(0)
    return n


def wait(n):
    with contextlib.suppress(asyncio.CancelledError):  # of the callback that the loop outlives not
        for _ in range(3):
            assert fiberback.await_(value(n)) == n


async def task(n):
    if n % 3 == 0:
        await fiberback.ensure_portal()
    wait(n)


async def several(forking=True):
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(task(n)) for n in range(9)]
    loop.call_soon(wait, 10)
    await asyncio.sleep(0)
    if forking:
        global LOOP
        LOOP = loop
        TASKS.extend(tasks)
        done = [loop.create_future() for _ in range(4)]

        def forked(n):
            fiberback.await_(asyncio.sleep(0))
            if CHILD is not leave or n == 0:  # 3.14's tasks do not survive it, plain ones either
                fork(CHILD)
            fiberback.await_(asyncio.sleep(0))
            done[n].set_result(None)

        async def forking_task(n):
            forked(n)

        loop.call_soon(forked, 0)
        others = [
            asyncio.create_task(forking_task(1)),
            asyncio.create_task(fiberback.with_portal_run_sync(forked, 2)),
        ]

        def on_signal(number, frame):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            forked(3)

        signal.signal(signal.SIGUSR1, on_signal)
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.gather(*done, *others)
    await asyncio.gather(*tasks)


TASKS = []
for CHILD in CHILDREN:
    for run in (asyncio.run, fiberback.run):
        try:
            run(several())
        except SystemExit:
            # Only in a child, which unwound through everything that was in progress.
            assert CHILD is leave
            raise
        TASKS.clear()
print("fine")
