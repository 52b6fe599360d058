# expect-stdout: between, later same loop, earlier 1 2 same loop, first same loop, task cancelled
# expect-stderr: ZeroDivisionError
"""Exit handlers that were registered before fiberback is imported await on the same loop as before.

Each is called once, with its arguments, whatever others do; the runner is closed after the last.
"""

import atexit


@atexit.register
def first():
    same_loop("first")


@atexit.register
def fails():
    raise ZeroDivisionError


def earlier(a, *, b):
    same_loop(f"earlier {a} {b}")


atexit.register(earlier, 1, b=2)

import asyncio  # noqa: E402

import fiberback  # noqa: E402

log = []


def same_loop(name):
    assert fiberback.await_(which()) is loop
    fiberback.await_(event.wait())  # an object that is bound to the loop
    log.append(f"{name} same loop")


async def which():
    event.set()
    await asyncio.sleep(0.001)
    return asyncio.get_running_loop()


async def begin():
    global task, event
    event = asyncio.Event()
    task = asyncio.create_task(background())
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


async def background():
    try:
        fiberback.await_(asyncio.sleep(60))  # suspended in its portal
    except asyncio.CancelledError:
        await asyncio.sleep(0.001)
        print(*log, "task cancelled", sep=", ", flush=True)
        raise


@atexit.register
def later():
    same_loop("later")


loop = fiberback.await_(begin())
atexit.register(log.append, "between")
