"""`python peer_probes.py PEER FEATURE`: prints `yes` or `no`, whether the peer does that, by doing it.

What docs/matrix.toml says of peers, test_matrix.py compares with this. For each peer there is what its users write to
wait for a coroutine in sync code; greenlet has nothing of that kind, so it gets the ten lines that SQLAlchemy has.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sys
import time
import types


async def plainly(main, *args):
    return await main(*args)


# --- what its users write: (what runs sync code in a task, what waits in it) ----------------------------------------


def fiberback():
    from fiberback import await_, with_portal_run

    return with_portal_run, await_


def greenback():
    from greenback import await_, with_portal_run

    return with_portal_run, await_


def greenlet():
    from greenlet import getcurrent
    from greenlet import greenlet as Greenlet

    @types.coroutine
    def stepping(main, args):
        made = Greenlet(lambda: finish(main(*args)))
        result = made.switch()
        while not made.dead:
            try:
                value = yield from result.__await__()
            except BaseException as error:
                result = made.throw(error)
            else:
                result = made.switch(value)
        return result

    def finish(coro):
        """`main` is a coroutine here, too."""
        try:
            step = coro.send(None)
            while True:
                step = coro.send(wait(_Yielded(step)))
        except StopIteration as end:
            return end.value

    def wait(awaitable):
        return getcurrent().parent.switch(awaitable)

    async def run(main, *args):
        return await stepping(main, args)

    return run, wait


class _Yielded:
    def __init__(self, value):
        self._value = value

    def __await__(self):
        return (yield self._value)


def gevent():
    import gevent

    def wait(coro):
        return gevent.get_hub().threadpool.apply(asyncio.run, (coro,))

    return plainly, wait


def nest(name):
    module = __import__(name)
    module.apply()

    def wait(coro):
        return asyncio.get_event_loop().run_until_complete(coro)

    return plainly, wait


def asgiref():
    from asgiref.sync import async_to_sync

    async def awaited(coro):
        return await coro

    return plainly, async_to_sync(awaited)


def anyio():
    from anyio import from_thread

    async def awaited(coro):
        return await coro

    return plainly, lambda coro: from_thread.run(awaited, coro)


def asyncer():
    from asyncer import syncify

    async def awaited(coro):
        return await coro

    return plainly, syncify(awaited, raise_sync_error=False)


def syncer():
    from syncer import sync

    return plainly, sync


def runloom():
    import runloom
    import runloom.aio

    def wait(coro):
        channel = runloom.Chan(1)
        task = asyncio.ensure_future(coro)
        task.add_done_callback(channel.send)
        channel.recv()
        return task.result()

    return plainly, wait


PEERS = {
    "fiberback": fiberback,
    "greenback": greenback,
    "greenlet": greenlet,
    "gevent": gevent,
    "nest_asyncio": lambda: nest("nest_asyncio"),
    "nest-asyncio2": lambda: nest("nest_asyncio2"),
    "asgiref": asgiref,
    "anyio": anyio,
    "asyncer": asyncer,
    "syncer": syncer,
    "runloom": runloom,
}
PREPARED = {"nest_asyncio", "nest-asyncio2"}  # by `apply()`, before any loop is made


# --- features -------------------------------------------------------------------------------------------------------


def start(peer, main):
    """On the peer's own loop, where it has one."""
    if peer == "runloom":
        from runloom import aio

        return aio.run(main())
    return asyncio.run(main())


async def goes_on(wait):
    """Whether other tasks run while sync code waits for something that they set."""
    event = asyncio.Event()

    async def sets():
        await asyncio.sleep(0)
        event.set()

    task = asyncio.ensure_future(sets())
    wait(event.wait())
    return task.done()


def waits(peer):
    run, wait = PEERS[peer]()
    return start(peer, lambda: run(goes_on, wait))


def unprepared(peer):
    _, wait = PEERS[peer]()
    return peer not in PREPARED and peer != "runloom" and asyncio.run(goes_on(wait))


def on_uvloop(peer):
    import uvloop

    run, wait = PEERS[peer]()
    if peer == "runloom":
        return False  # its own loop only
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(goes_on, wait))


def on_trio(peer):
    import trio

    run, wait = PEERS[peer]()

    async def main():
        event = trio.Event()
        async with trio.open_nursery() as nursery:

            async def sets():
                event.set()

            nursery.start_soon(sets)
            wait(event.wait())
        return True

    return trio.run(run, main)


def any_order(peer):
    run, wait = PEERS[peer]()

    async def main():
        first, second, begun, ended = asyncio.Event(), asyncio.Event(), [], []

        async def waiter(event, name):
            begun.append(name)
            wait(event.wait())
            ended.append(name)

        one = asyncio.ensure_future(run(waiter, first, "first"))
        two = asyncio.ensure_future(run(waiter, second, "second"))
        while len(begun) < 2:
            await asyncio.sleep(0)
        first.set()
        for _ in range(100):
            await asyncio.sleep(0)
        found = list(ended)
        second.set()
        await asyncio.gather(one, two)
        return found == ["first"]

    return start(peer, main)


def same_task(peer):
    run, wait = PEERS[peer]()

    async def current():
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main():
        return wait(current()) is asyncio.current_task()

    return start(peer, lambda: run(main))


def deep(peer):
    run, wait = PEERS[peer]()

    async def level(depth):
        await asyncio.sleep(0)
        return wait(asyncio.ensure_future(run(level, depth - 1))) + 1 if depth else 0

    return start(peer, lambda: run(level, 1000)) == 1000  # each one a task that waits for the next


def worker_thread(peer):
    _, wait = PEERS[peer]()

    async def loop():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    def sync():
        return wait(loop())

    async def main():
        if peer == "asgiref":
            from asgiref.sync import sync_to_async

            found = await sync_to_async(sync)()
        elif peer in ("anyio", "asyncer"):
            from anyio import to_thread

            found = await to_thread.run_sync(sync)
        else:
            found = await asyncio.to_thread(sync)
        return found is asyncio.get_running_loop()

    return start(peer, main)


def no_loop(peer):
    async def answer():
        await asyncio.sleep(0)
        return 42

    _, wait = PEERS[peer]()
    return wait(answer()) == 42


def deadlock(peer):
    """Two tasks that wait for each other in sync code: an error in one, not a hang. (Who cannot wait at all raises
    one, too, which is not meant.)"""
    if not waits(peer):
        return False
    run, wait = PEERS[peer]()

    async def main():
        tasks = {}

        async def one(other):
            await asyncio.sleep(0)
            return wait(tasks[other])

        tasks["a"] = asyncio.ensure_future(run(one, "b"))
        tasks["b"] = asyncio.ensure_future(run(one, "a"))
        done, waiting = await asyncio.wait(tasks.values(), timeout=5)
        return bool(done) and any(task.exception() for task in done)

    return start(peer, main)


def blocking(peer):
    """`time.sleep` of one lets the other go on."""
    order = []

    def sleeps(name, seconds):
        time.sleep(seconds)
        order.append(name)

    if peer == "gevent":
        from gevent import joinall, monkey, spawn

        monkey.patch_all()
        joinall([spawn(sleeps, "long", 0.5), spawn(sleeps, "short", 0.05)])
    elif peer == "runloom":
        import runloom
        import runloom.monkey

        runloom.monkey.patch()
        runloom.fiber(sleeps, "long", 0.5)
        runloom.fiber(sleeps, "short", 0.05)
        runloom.run(1)
    else:
        run, _ = PEERS[peer]()

        async def main():
            async def one(name, seconds):
                sleeps(name, seconds)

            await asyncio.gather(run(one, "long", 0.5), run(one, "short", 0.05))

        asyncio.run(main())
    return order == ["short", "long"]


def pure(peer):
    """No extension module has to fit the interpreter, neither of the peer's nor of what it needs."""
    needs = {"greenback": "greenlet"}.get(peer, peer)
    if peer == "fiberback":  # its second wheel
        os.environ["FIBERBACK_PURE"] = "1"
        sys.modules["greenlet"] = None
        import fiberback

        return fiberback.implementation == "pure" and no_loop(peer)
    tags = importlib.metadata.distribution(needs).read_text("WHEEL") or ""
    return "none-any" in tags


FEATURES = {
    "waits": waits,
    "unprepared": unprepared,
    "uvloop": on_uvloop,
    "trio": on_trio,
    "any-order": any_order,
    "same-task": same_task,
    "deep": deep,
    "worker-thread": worker_thread,
    "no-loop": no_loop,
    "deadlock": deadlock,
    "blocking": blocking,
    "pure": pure,
}


def unasync(feature):
    """It writes sync code from async code, once; nothing of it is there at run time."""
    if feature == "no-loop":
        import pathlib
        import tempfile

        import unasync

        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "_async", "m.py")
            source.parent.mkdir()
            source.write_text(
                "async def answer():\n    return 42\n\nasync def ask():\n    return await answer()\n"
            )
            rule = unasync.Rule("/_async/", "/_sync/")
            unasync.unasync_files([str(source)], [rule])
            names = {}
            exec(pathlib.Path(folder, "_sync", "m.py").read_text(), names)
            return names["ask"]() == 42
    return feature == "pure" and pure("unasync")


def main(peer, feature):
    try:
        done = unasync(feature) if peer == "unasync" else FEATURES[feature](peer)
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
        done = False
    print("yes" if done else "no", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
