# expect-stdout: ended: callback 0, callback 1, task 0, task 1
# expect-stdout: elsewhere: ended 2
# expect-stdout: at exit: callback 2, task 2
# expect-stderr: RuntimeWarning: the event loop was closed, and parked in fiberback.await_() are still:
# expect-stderr: <Task pending name='task 0'
# expect-stderr: RuntimeWarning: the interpreter exits, and parked in fiberback.await_() are still:
# expect-stderr: <Task pending name='task 2'
# expect-stderr: RuntimeWarning: the event loop was closed in a thread where it did not run
"""Loops are closed, inside another loop and on a portal, too, or left to the exit, with callers parked."""

import asyncio
import atexit
import threading

ended, tasks = [], []
atexit.register(lambda: print("at exit:", ", ".join(sorted(ended))))

import fiberback  # noqa: E402


def wait(name):
    try:
        fiberback.await_(asyncio.Event().wait())
    except asyncio.CancelledError:
        ended.append(name)
        raise


async def task(n):
    wait(f"task {n}")


def callback(n):
    try:
        wait(f"callback {n}")
    except asyncio.CancelledError:
        pass


async def first():
    fiberback.await_(asyncio.sleep(0.001))  # on the thread's own stack; the others are on fibers


def new_loop(n):
    loop = asyncio.new_event_loop()
    main = loop.create_task(first())
    tasks.append(loop.create_task(task(n), name=f"task {n}"))
    loop.call_soon(callback, n)
    loop.run_until_complete(main)
    return loop


async def inside(portal):
    if portal:
        await fiberback.ensure_portal()
    fiberback.await_(asyncio.sleep(0))
    loops[portal].close()
    fiberback.await_(asyncio.sleep(0))
    return asyncio.current_task().get_name()


loops = [new_loop(n) for n in range(3)]
for portal in range(2):
    asyncio.run(inside(portal))
print("ended:", ", ".join(sorted(ended)))
assert all(task.done() for task in tasks[:2])
ended.clear()

loop = new_loop(3)
thread = threading.Thread(target=loop.close)
thread.start()
thread.join()
assert not ended
assert fiberback._fiberback.close_parked(loop) == 2
print("elsewhere: ended", len(ended))
ended.clear()
