# expect-stdout: fine
"""What tells deadlocks, and finds the thread of a loop or of a work item, looks at the frames of threads
that go on running, while each allocation begins a collection that lets them.

On 3.11 plain `frame.f_back` dies so (docs/known-crashes.md).
"""

import asyncio
import gc
import sys
import threading
import time

import fiberback  # noqa: F401
from fiberback._deadlock import blocked_thread
from fiberback._loop.thread import thread_of
from fiberback._thread.executor_worker import _is_submitting

sys.setswitchinterval(1e-5)


def dig(n):
    if n:
        dig(n - 1)


def busy():
    while not stop.is_set():
        dig(400)


def look(until):
    loop = asyncio.new_event_loop()
    while time.monotonic() < until:
        assert not blocked_thread.is_blocked_on(thread.ident, threading.get_ident())
        assert blocked_thread.stack_of(thread.ident)
        assert thread_of(loop) is None
        assert not _is_submitting()
    loop.close()


stop = threading.Event()
thread = threading.Thread(target=busy)
thread.start()
gc.callbacks.append(lambda phase, info: time.sleep(1e-5))
gc.set_threshold(1)
try:
    look(time.monotonic() + 3)
finally:
    gc.set_threshold(700)
    stop.set()
    thread.join()
print("fine")
