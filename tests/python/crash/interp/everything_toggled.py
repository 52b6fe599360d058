# expect-stdout: fine
"""Interpreter-wide switches thrown, and everything looked at, while portals are suspended and resumed:
trace and profile functions, recursion limits, tracemalloc, garbage collection in every callback,
signal handlers and weak-reference callbacks that await, dumps, frames read by another thread.
"""

import asyncio
import faulthandler
import gc
import inspect
import random
import signal
import sys
import threading
import tracemalloc
import weakref

import fiberback

gc.freeze()  # collections are of what the program makes

sys.unraisablehook = lambda _: None
sys.setswitchinterval(1e-5)
RANDOM = random.Random(7)
SINK = open("/dev/null", "w")


class Thing:
    pass


def tracing(frame, event, arg):
    return tracing


def on_signal(number, frame):
    try:
        fiberback.await_(asyncio.sleep(0))
    except RuntimeError:
        pass


def dies_awaiting(reference):
    try:
        fiberback.await_(asyncio.sleep(0))
    except RuntimeError:
        pass


def dig(n):
    return dig(n + 1)


def weak():
    thing = Thing()
    reference = weakref.ref(thing, dies_awaiting)
    del thing
    return reference


def overflow():
    try:
        dig(0)
    except RecursionError:
        pass


def limit():
    try:
        sys.setrecursionlimit(RANDOM.choice((400, 1000, 3000)))
    except RecursionError:  # too low for where we are
        pass


def trace_memory():
    (tracemalloc.stop if tracemalloc.is_tracing() else tracemalloc.start)()


ACTIONS = (
    lambda: sys.settrace(RANDOM.choice((None, tracing))),
    lambda: sys.setprofile(RANDOM.choice((None, tracing))),
    limit,
    trace_memory,
    gc.collect,
    overflow,
    weak,
    lambda: signal.raise_signal(signal.SIGUSR1),
    lambda: faulthandler.dump_traceback(SINK, all_threads=False),
    lambda: inspect.stack(0),
    lambda: sys._current_frames()[threading.get_ident()].f_back.f_locals,
)


def worker(rounds):
    for _ in range(rounds):
        RANDOM.choice(ACTIONS)()
        fiberback.await_(step())
        RANDOM.choice(ACTIONS)()


async def step():
    RANDOM.choice(ACTIONS)()
    await asyncio.sleep(0)
    RANDOM.choice(ACTIONS)()


async def main():
    loop = asyncio.get_running_loop()
    for _ in range(100):
        loop.call_soon(gc.collect)
    await asyncio.gather(*(fiberback.with_portal_run_sync(worker, 15) for _ in range(20)))


def watch(ident):
    while not stop.wait(0.001):
        frame = sys._current_frames().get(ident)
        while frame is not None:
            _ = frame.f_lineno, frame.f_code.co_name
            frame = frame.f_back
        del frame


def toggle():
    try:
        asyncio.run(main())
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(1000)


gc.callbacks.append(lambda phase, info: sys._getframe().f_back)
signal.signal(signal.SIGUSR1, on_signal)
stop = threading.Event()
watcher = threading.Thread(target=watch, args=(threading.get_ident(),))
if sys.version_info < (3, 12):
    # `f_back` of another thread's frame allocates, which may begin a collection, which may let that
    # thread go on and end the frame: without fiberback, too (docs/known-crashes.md). So there the
    # automatic collections, and the watcher without them, one after the other.
    toggle()
    gc.disable()
watcher.start()
try:
    toggle()
finally:
    stop.set()
    watcher.join()
print("fine")
