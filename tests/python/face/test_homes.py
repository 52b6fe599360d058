"""Where the calls of a face wait: an object's on the loop of its first wait, wherever they are made."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import fiberback
import pytest
from fiberback import syncify
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


class Client:
    """Bound to the loop that it is first used on."""

    def __init__(self):
        self.loop = None

    async def get(self):
        loop = asyncio.get_running_loop()
        if self.loop is None:
            self.loop = loop
            self.lock = asyncio.Event()
            self.lock.set()
        assert self.loop is loop
        await asyncio.sleep(0)
        await self.lock.wait()
        return threading.get_ident()

    async def other(self):
        return Client()

    def start(self):
        """Not async, but in need of the loop."""
        self.task = asyncio.create_task(self.get())
        return threading.get_ident()

    async def finish(self):
        return await self.task


Face = syncify(Client)


def in_thread(function):
    """What it returns, or raises, in a thread of its own."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result


def test_calls_from_threads_go_to_the_loop_of_the_first(fb):
    async def main():
        client = Face()
        mine = client.get()
        assert mine == threading.get_ident()
        assert await asyncio.to_thread(client.get) == mine

        def elsewhere():
            with fb.thread_runner():
                return client.get(), client.other().get(), client.start(), client.finish()

        plain = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(plain.set_result, elsewhere())
        )
        thread.start()
        assert await plain == (mine,) * 4
        thread.join()

        def in_a_loop_of_its_own():
            async def inner():
                ticked: list[None] = []
                asyncio.get_running_loop().call_soon(ticked.append, None)
                result = client.get()  # its own loop goes on
                assert ticked
                return result

            return asyncio.run(inner())

        assert await asyncio.to_thread(in_a_loop_of_its_own) == mine

    fb.run(main())
    asyncio.run(main())


def test_without_a_loop_it_is_the_thread_s_runner(fb):
    def function():
        with fb.thread_runner():
            client = Face()
            assert client.start() == threading.get_ident()
            assert client.get() == client.get() == client.finish() == threading.get_ident()

    function()
    in_thread(function)


def test_a_runner_that_stands_still_is_refused(fb):
    with fb.thread_runner():
        client = Face()
        client.get()
        with pytest.raises(RuntimeError) as info:
            in_thread(client.get)
        says(info.value, "face-home", "LoopThread")

        async def main():
            client.get()

        with pytest.raises(RuntimeError) as info:
            asyncio.run(main())
        says(info.value, "face-home")
        assert client.get() == threading.get_ident()


def test_after_its_loop_was_closed_it_gets_another():
    client = Face()

    async def main():
        client.asyn.loop = None
        return client.get()

    assert asyncio.run(main()) == asyncio.run(main()) == threading.get_ident()


def test_a_loop_thread_as_home(fb):
    with fb.threads.LoopThread() as home:
        Shared = syncify(Client, home=home)
        client = Shared()
        there = client.get()
        assert there != threading.get_ident()
        assert isinstance(client, Face) and issubclass(Shared, Face)
        assert in_thread(client.get) == client.start() == client.finish() == there
        assert client.other().get() == there
        assert syncify(Client(), home=home).get() == syncify(Client().get, home=home)() == there

        async def main():
            ticked: list[None] = []
            asyncio.get_running_loop().call_soon(ticked.append, None)
            assert client.get() == there
            assert ticked
            return await asyncio.to_thread(client.get)

        assert asyncio.run(main()) == fb.run(main()) == there
    with pytest.raises(RuntimeError) as info:
        client.get()
    says(info.value, "loop-thread-closed")


def test_a_loop_as_home(fb):
    with fb.threads.LoopThread() as thread:
        client = syncify(Client, home=thread.loop)()
        assert client.get() == in_thread(client.get) != threading.get_ident()
    loop = asyncio.new_event_loop()
    idle = syncify(Client, home=loop)()
    with pytest.raises(RuntimeError) as info:
        idle.get()
    says(info.value, "face-home")
    loop.close()


def test_fallback_on_uvloop():
    uvloop = import_or_skip("uvloop")

    async def main():
        with pytest.raises(RuntimeError) as info:
            Face().get()
        says(info.value, "loop-no-portal")
        client = syncify(Client, fallback="thread")()
        there = client.get()
        assert there != threading.get_ident() and client.get() == client.other().get() == there
        assert await asyncio.to_thread(client.get) == there

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_callbacks_wait_on_uvloop():
    """The async side, which runs them, has no portal; they get one."""
    uvloop = import_or_skip("uvloop")

    class Calls(Client):
        async def call(self, function):
            return await function(self)

    async def main():
        face = syncify(Calls())
        ident = await fiberback.with_portal_run_sync(face.get)
        return ident == await fiberback.with_portal_run_sync(face.call, lambda calls: calls.get())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main())


def test_on_trio(fb):
    trio = import_or_skip("trio")

    class Trio:
        async def get(self):
            await trio.sleep(0)
            return trio.lowlevel.current_task()

        async def rows(self):
            await trio.sleep(0)
            yield 1

    async def main():
        def function():
            client = syncify(Trio)()
            return client.get(), list(client.rows())

        task, rows = await fb.with_portal_run_sync(function)
        assert (task, rows) == (trio.lowlevel.current_task(), [1])
        client = syncify(Trio())
        await trio.to_thread.run_sync(client.get)

    trio.run(main)


def test_one_task_and_one_context(fb):
    """A task group, or a timeout, that one call enters, the next one uses and leaves."""
    anyio = import_or_skip("anyio")

    class Group:
        async def open(self):
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            variable.set("opened")

        async def get(self):
            done = anyio.Event()
            self.group.start_soon(self.answer, done)
            await done.wait()
            return variable.get()

        async def answer(self, done):
            done.set()

        async def close(self):
            await self.group.__aexit__(None, None, None)

    def function():
        group = syncify(Group)()
        group.open()
        results = [group.get(), group.get(), variable.get()]
        group.close()
        return results

    expected = ["opened"] * 3

    async def main():
        return function()

    async def worker():
        return await asyncio.to_thread(function)

    for way in (fb.run, asyncio.run):
        assert way(main()) == way(worker()) == expected
    assert contextvars.copy_context().run(in_thread, function) == expected


def test_cancelling_goes_through(fb):
    class Slow:
        async def get(self):
            begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    cancelled = []

    async def main():
        nonlocal begun
        begun = asyncio.Event()
        task = asyncio.ensure_future(fb.with_portal_run_sync(syncify(Slow)().get))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = None
    asyncio.run(main())
    assert cancelled == [True]


def test_calls_overlap(fb):
    class Meeting:
        def __init__(self):
            self.here, self.all_here = 0, asyncio.Event()

        async def meet(self):
            self.here += 1
            if self.here == 50:
                self.all_here.set()
            await self.all_here.wait()
            return self.here

    async def main(portals):
        meeting = syncify(Meeting)()

        async def one():
            return meeting.meet()

        ways = [fb.with_portal_run_sync(meeting.meet) if portals else one() for _ in range(50)]
        return await asyncio.gather(*ways)

    assert fb.run(main(True)) == asyncio.run(main(True)) == asyncio.run(main(False)) == [50] * 50


def test_nothing_is_kept():
    face = Face()
    with fiberback.thread_runner():
        face.get()

    class cls(Client):
        pass

    local = syncify(cls)()
    dead = [weakref.ref(each) for each in (face, face.asyn, cls, local, syncify(cls))]
    del face, cls, local
    for _ in range(3):
        gc.collect()
    assert [each() for each in dead] == [None] * 5
