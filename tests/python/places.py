"""Places where sync code may wait, each a function that calls another one there.

In a task, on a portal or parked; and, those of `PLACES`, where it has no task of its own: without a loop, in the
threads of asyncio, AnyIO, Trio and of ours, and in callbacks.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading

import pytest
from support import import_or_skip


def on_portal(fn):
    import fiberback

    return asyncio.run(fiberback.with_portal_run_sync(fn))


def parked(fn):
    async def main():
        return fn()

    return asyncio.run(main())


def in_worker(fn):
    import fiberback

    async def main():
        return await asyncio.to_thread(fn)

    return fiberback.run(main())


def without_loop(fn):
    return fn()


def without_loop_in_a_thread(fn):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(capture(fn)))
    thread.start()
    thread.join()
    return outcome.pop()()


def capture(fn):
    try:
        result = fn()
    except BaseException as error:
        return functools.partial(throw, error)
    return lambda: result


def throw(error):
    raise error


def of_block(fn):
    import fiberback

    with fiberback.thread_runner():
        return fn()


def in_asyncio(way):
    def place(fn):
        async def main():
            result = await way(fn)
            await only_main_is_left()
            return result

        return asyncio.run(main())

    return place


async def only_main_is_left():
    for _ in range(200):
        if len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(asyncio.all_tasks())


async def in_executor(fn):
    return await asyncio.get_running_loop().run_in_executor(None, fn)


async def in_ours(fn):
    import fiberback

    return await fiberback.to_thread(fn)


async def told(fn):
    import fiberback

    loop = asyncio.get_running_loop()

    def work():
        with fiberback.parent_loop(loop):
            outcome.append(capture(fn))
        loop.call_soon_threadsafe(done.set_result, None)

    outcome = []
    done = loop.create_future()
    threading.Thread(target=work).start()
    await done
    return outcome.pop()()


async def anyio_thread(fn):
    import anyio

    return await anyio.to_thread.run_sync(fn)


async def anyio_thread_abandoned(fn):
    import anyio

    return await anyio.to_thread.run_sync(fn, abandon_on_cancel=True)


async def call_soon(fn):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(capture(fn)))
    return (await done)()


async def done_callback(fn):
    loop = asyncio.get_running_loop()
    done, future = loop.create_future(), loop.create_future()
    future.add_done_callback(lambda _: done.set_result(capture(fn)))
    future.set_result(None)
    return (await done)()


async def signal_handler(fn):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, lambda: done.set_result(capture(fn)))
    os.kill(os.getpid(), signal.SIGUSR1)
    return (await done)()


def on_ours(way):
    def place(fn):
        import fiberback

        async def main():
            result = await way(fn)
            await only_main_is_left()
            return result

        return fiberback.run(main())

    return place


def on_uvloop(fn):
    uvloop = import_or_skip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.to_thread(fn))


def on_trio(fn):
    trio = import_or_skip("trio")
    return trio.run(trio.to_thread.run_sync, fn)


def told_of_trio(fn):
    import fiberback

    trio = import_or_skip("trio")

    async def main():
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()

        def work():
            with fiberback.parent_loop(token):
                outcome.append(capture(fn))
            token.run_sync_soon(done.set)

        outcome = []
        threading.Thread(target=work).start()
        await done.wait()
        return outcome.pop()()

    return trio.run(main)


def anyio_on_trio(fn):
    anyio = import_or_skip("anyio")
    import_or_skip("trio")
    return anyio.run(anyio_thread, fn, backend="trio")


PLACES = {
    "without a loop": without_loop,
    "without a loop, in a thread": without_loop_in_a_thread,
    "thread_runner": of_block,
    "to_thread": in_asyncio(asyncio.to_thread),
    "to_thread, uvloop": on_uvloop,
    "run_in_executor": in_asyncio(in_executor),
    "fiberback.to_thread": in_asyncio(in_ours),
    "parent_loop": in_asyncio(told),
    "anyio.to_thread": in_asyncio(anyio_thread),
    "anyio.to_thread, abandoned": in_asyncio(anyio_thread_abandoned),
    "call_soon": in_asyncio(call_soon),
    "done callback": in_asyncio(done_callback),
    "signal handler": in_asyncio(signal_handler),
    "call_soon, run": on_ours(call_soon),
    "done callback, run": on_ours(done_callback),
    "signal handler, run": on_ours(signal_handler),
    "to_thread, run": on_ours(asyncio.to_thread),
}
TRIO = {
    "trio.to_thread": on_trio,
    "parent_loop, Trio": told_of_trio,
    "anyio.to_thread, Trio": anyio_on_trio,
}


def needs(name):
    if "anyio" in name:
        import_or_skip("anyio")
    if "signal" in name and not hasattr(signal, "SIGUSR1"):
        pytest.skip("this system has no such signals")
