# expect-stdout: fine
"""Another thread reads all frames, dumps them, and sets trace functions and exceptions for this one,
while stacks are parked, suspended and resumed as fast as they can be."""

import asyncio
import ctypes
import faulthandler
import sys
import threading
import traceback

import fiberback

sys.setswitchinterval(1e-6)
SINK = open("/dev/null", "w")
sys.unraisablehook = lambda _: None
set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
raised = 0


class Asked(Exception):
    pass


def traced(frame, event, argument):
    return traced


def act(rounds):
    global raised
    for _ in range(rounds):
        try:
            fiberback.await_(asyncio.sleep(0))
            if asks:
                # Comes up where the next function begins, which is within the awaitable.
                set_exception(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Asked))
            sorted([1, 2], key=lambda n: fiberback.await_(asyncio.sleep(0, n)))
        except Asked:
            raised += 1


async def task(n):
    if n % 2:
        await fiberback.ensure_portal()
    act(30)


async def main():
    await asyncio.gather(*(task(n) for n in range(10)))


def watch():
    looked = 0
    while not stop.wait(0.0005):
        for frame in sys._current_frames().values():
            traceback.extract_stack(frame)
            while frame is not None:
                _ = frame.f_locals, frame.f_lineno
                frame = frame.f_back
        faulthandler.dump_traceback(SINK, all_threads=True)
        looked += 1
        if looked % 5 == 0 and (3, 12) <= sys.version_info:
            threading.settrace_all_threads(traced if looked % 2 else None)
            threading.setprofile_all_threads(None if looked % 2 else traced)


def everything():
    for run in (asyncio.run, fiberback.run):
        run(main())


stop = threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
for asks in (False, True):  # noqa: B007 - main() reads it
    other = threading.Thread(target=everything)
    other.start()
    everything()
    other.join()
stop.set()
watcher.join()
assert raised, "no exception set from outside came up"
print("fine")
