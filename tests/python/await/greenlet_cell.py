"""One row of the table in PARKING.md: who switches to whom, how. For `test_greenlet_matrix.py`.

`greenlet_cell.py WHO HOW` prints a line for each kind of target: its name and what came of it.
"""

import asyncio
import ctypes
import gc
import pathlib
import sys
import threading
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import fiberback
import greenlet
from crowd import crowd
from fiberback._fiberback import Portal

log = []

API = ctypes.cast(
    ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )(greenlet._C_API, b"greenlet._C_API"),
    ctypes.POINTER(ctypes.c_void_p),
)
# Read at each call, as the macros of greenlet.h do.
THROW, SWITCH = 5, 6


def api_switch(target, value):
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_void_p)
    return kind(API[SWITCH])(target, (value,), None)


def api_throw(target, error):
    kind = ctypes.PYFUNCTYPE(
        ctypes.py_object,
        ctypes.py_object,
        ctypes.py_object,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return kind(API[THROW])(target, error, None, None)


class Ping(Exception):
    pass


def deep(n, then):
    local = [n] * 20
    result = then() if n == 0 else deep(n - 1, then)
    assert local == [n] * 20
    return result


def echo(*first):
    """Answers whoever uses it, from some frames further up."""
    got = first
    try:
        while True:
            try:
                got = deep(5, lambda got=got: user[0].switch(("echo", got)))
            except Ping:
                got = "ping"
    finally:
        log.append("finally")


user = [None]


def started():
    target = greenlet.greenlet(echo)
    user[0] = greenlet.getcurrent()
    target.switch(0)
    return target


def use(how, target):
    """What comes of it, as text."""
    log.clear()
    user[0] = greenlet.getcurrent()
    try:
        if how == "switch":
            return repr(target.switch(7))
        if how == "throw":
            return repr(target.throw(Ping))
        if how == "api switch":
            return repr(api_switch(target, 7))
        if how == "api throw":
            return repr(api_throw(target, Ping))
        raise AssertionError(how)
    except BaseException as error:
        return f"{type(error).__module__}.{type(error).__name__}: {str(error).splitlines()[:1]}"


BEFORE = {how: started() for how in ("switch", "throw", "api switch", "api throw", "drop")}


def dead():
    target = greenlet.greenlet(lambda: None)
    target.switch()
    return target


def of_a_running_thread():
    box, ready, go = [], threading.Event(), threading.Event()

    def run():
        box.append(started())
        ready.set()
        go.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    return box.pop(), lambda: (go.set(), thread.join())


def of_an_ended_thread():
    box = []
    thread = threading.Thread(target=lambda: box.append(started()))
    thread.start()
    thread.join()
    target = box.pop()
    # Up to CPython 3.12 `join` waits for the thread's Python code; greenlet hears of the end when the
    # thread's C++ objects are destroyed, which is later.
    while not target.dead:
        time.sleep(0.001)
    return target


async def in_a_portal(function):
    return await fiberback.with_portal_run_sync(function)


@types.coroutine
def forever():
    yield


def from_a_suspended_portal():
    """Begun in the step of a portal that is suspended by now."""
    box = []

    async def body():
        box.append(started())
        fiberback.await_(forever())

    portal = Portal(body())
    future = portal.send(None)
    return box.pop(), (portal, future)


def from_a_closed_portal():
    box = []

    async def body():
        box.append(started())

    portal = Portal(body())
    try:
        portal.send(None)
    except StopIteration:
        pass
    return box.pop()


def tell(what, result):
    print(f"{what}: {result}", flush=True)


def drop(make):
    target = make()
    log.clear()
    del target
    gc.collect()
    return "ended" if log == ["finally"] else f"not ended: {log}"


def row(how):
    if how == "drop":
        tell("begun before", drop(lambda: BEFORE.pop("drop")))
        tell("begun here", drop(started))
        tell("of a suspended portal", drop(lambda: from_a_suspended_portal()[0]))
        tell("of an ended portal", drop(from_a_closed_portal))
        box = [started()]
        cycle = [box]
        box.append(cycle)
        log.clear()
        del box, cycle
        gc.collect()
        tell("in a cycle", "ended" if log == ["finally"] else f"not ended: {log}")
        return
    tell("begun before", use(how, BEFORE[how]))
    here = started()
    tell("begun here", use(how, here))
    tell("not begun", use(how, greenlet.greenlet(echo)))
    tell("dead", use(how, dead()))
    tell("itself", use(how, greenlet.getcurrent()))
    target, portal = from_a_suspended_portal()
    tell("of a suspended portal", use(how, target))
    del portal
    tell("of an ended portal", use(how, from_a_closed_portal()))
    target, end = of_a_running_thread()
    tell("of another thread", use(how, target))
    end()
    tell("of an ended thread", use(how, of_an_ended_thread()))


def thread_stack(how):
    async def main():
        row(how)

    asyncio.run(main())


def portal(how):
    async def main():
        row(how)

    fiberback.run(main())


def nested_portal(how):
    async def body():
        row(how)

    async def main():
        step = Portal(body())
        try:
            step.send(None)
        except StopIteration:
            pass

    fiberback.run(main())


def uvloop_portal(how):
    import uvloop

    async def main():
        await fiberback.with_portal_run_sync(row, how)

    uvloop.run(main())


def trio_portal(how):
    import trio

    async def main():
        await fiberback.with_portal_run_sync(row, how)

    trio.run(main)


def runner(how):
    async def main():
        loop = asyncio.get_running_loop()
        gate, done = loop.create_future(), loop.create_future()

        def parks():
            fiberback.await_(gate)

        def on_a_runner():
            row(how)
            done.set_result(None)
            gate.set_result(None)

        loop.call_soon(parks)
        loop.call_later(0.001, on_a_runner)
        await done
        await asyncio.sleep(0.001)

    asyncio.run(main())


def parked_on_the_host(how):
    async def main():
        fiberback.await_(asyncio.sleep(0.001))
        row(how)

    asyncio.run(main())


def parked_on_a_runner(how):
    async def first(gate):
        fiberback.await_(gate)

    async def second(gate):
        fiberback.await_(asyncio.sleep(0.001))
        row(how)
        gate.set_result(None)

    async def main():
        gate = asyncio.get_running_loop().create_future()
        await asyncio.gather(first(gate), second(gate))

    asyncio.run(main())


def greenlet_of_a_portal(how):
    async def main():
        greenlet.greenlet(row).switch(how)

    fiberback.run(main())


def waiting_greenlet(how):
    """A greenlet of a portal, after it has waited."""

    def body():
        fiberback.await_(asyncio.sleep(0.001))
        row(how)

    async def main():
        greenlet.greenlet(body).switch()

    fiberback.run(main())


def awaited_code(how):
    """Code that a portal awaits, on a side stack."""
    with crowd():
        fiberback.run(awaits(how))


def awaited_code_without_a_portal(how):
    with crowd():
        asyncio.run(awaits(how))


async def awaits(how):
    async def inside():
        await asyncio.sleep(0.001)
        row(how)
        await asyncio.sleep(0.001)

    async def task():
        fiberback.await_(inside())

    # The first of them may be on the thread's own stack.
    await asyncio.gather(asyncio.create_task(park()), asyncio.create_task(task()))
    assert fiberback.stats()["stacks_shared"] > 0


async def park():
    fiberback.await_(asyncio.sleep(0.1))


def another_thread(how):
    def run():
        BEFORE[how] = started()
        portal(how)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


if __name__ == "__main__":
    globals()[sys.argv[1].replace(" ", "_")](sys.argv[2])
    print("end")
