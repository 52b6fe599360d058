# expect-stdout: child 7
# expect-stdout: grandchild 7
# expect-stdout: woken in time
"""Fork while runners are open: the child has its own, and does not touch the parent's selector."""

import asyncio
import gc
import os
import sys
import threading
import time
import warnings

import fiberback

warnings.simplefilter("ignore", DeprecationWarning)


async def seven():
    await asyncio.sleep(0.01)
    return 7


def fork_and_check(name):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        print(name, fiberback.await_(seven()), flush=True)
        gc.collect()
        sys.exit(0)  # the whole way out, with every finalizer
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status


def other_thread():
    fiberback.await_(seven())
    ready.set()
    stop.wait()


async def is_woken():
    """Needs the loop's own pipe to be known to its selector still."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    begin = time.monotonic()
    threading.Timer(0.2, loop.call_soon_threadsafe, (event.set,)).start()
    await asyncio.wait_for(event.wait(), 10)
    return time.monotonic() - begin < 5


async def fork_inside():
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # asyncio tells the child that no loop runs.
            result = []
            thread = threading.Thread(target=lambda: result.append(fiberback.await_(seven())))
            thread.start()
            thread.join()
            print("grandchild", result[0], flush=True)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status


ready, stop = threading.Event(), threading.Event()
thread = threading.Thread(target=other_thread)
thread.start()
ready.wait()
fiberback.await_(seven())
fork_and_check("child")
fiberback.await_(fork_inside())
assert fiberback.await_(is_woken())
stop.set()
thread.join()
print("woken in time")
