"""`fiberback.sync`: one call for library authors, whatever loop is there."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import subprocess
import sys
import threading

import fiberback
import pytest
from fiberback import sync
from places import in_worker, on_portal, parked, without_loop
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback

variable = contextvars.ContextVar("variable", default="unset")


async def double(number, *, pause=0):
    await asyncio.sleep(pause)
    return number * 2


def on_uvloop(function):
    """In a task of uvloop's that has no portal."""

    async def main():
        return function()

    return import_or_skip("uvloop").new_event_loop().run_until_complete(main())


def on_trio(function):
    trio = import_or_skip("trio")

    async def main():
        return await fiberback.with_portal_run_sync(function)

    return trio.run(main)


PLACES = {
    "portal": on_portal,
    "parked": parked,
    "worker": in_worker,
    "no loop": without_loop,
}


@pytest.fixture(params=[*PLACES, "uvloop"])
def place(request):
    """Where sync code runs; `sync` gets what it needs there."""
    if request.param == "uvloop":
        return on_uvloop, functools.partial(sync, fallback="thread")
    return PLACES[request.param], sync


def test_an_awaitable_and_a_function_with_arguments(place):
    run, sync = place
    assert run(lambda: (sync(double(1)), sync(double, 2), sync(double)(3))) == (2, 4, 6)


def test_exceptions_come_out(place):
    run, sync = place

    async def fail():
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        run(lambda: sync(fail()))


def test_contexts_are_the_callers(place):
    run, sync = place

    async def exchange():
        seen = variable.get()
        variable.set("inner")
        await asyncio.sleep(0)
        return seen

    def function():
        variable.set("outer")
        return sync(exchange()), variable.get()

    assert contextvars.copy_context().run(run, function) == ("outer", "inner")


def test_a_client_that_holds_a_task_group_works_from_call_to_call(place):
    """Entered by one call, used by the next, left by the last: all in one task."""
    anyio = import_or_skip("anyio")
    run, sync = place

    class Client:
        async def open(self):
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            self.send, self.receive = anyio.create_memory_object_stream(1)

        async def get(self, number):
            self.group.start_soon(self.answer, number)
            return await self.receive.receive()

        async def answer(self, number):
            await self.send.send(number * 2)

        async def close(self):
            await self.group.__aexit__(None, None, None)
            self.send.close()
            self.receive.close()

    def function():
        client = Client()
        sync(client.open())
        answers = [sync(client.get(number)) for number in range(3)]
        sync(client.close())
        return answers

    assert run(function) == [0, 2, 4]


def test_as_a_decorator(place):
    run, sync = place

    class Client:
        base = 10

        @sync
        async def get(self, number):
            """The number."""
            await asyncio.sleep(0)
            return self.base + number

        @sync
        @classmethod
        async def of_class(cls, number):
            return cls.base + number

        @sync
        @staticmethod
        async def of_nobody(number):
            return number

        @classmethod
        @sync
        async def inside(cls, number):
            return cls.base + number

    client = Client()
    assert run(lambda: client.get(1)) == 11
    assert run(lambda: Client.get(client, 2)) == 12
    assert run(lambda: (client.of_class(1), Client.of_class(2), Client.inside(3))) == (11, 12, 13)
    assert run(lambda: (client.of_nobody(1), Client.of_nobody(2))) == (1, 2)
    assert client.get.__name__ == "get" and client.get.__doc__ == "The number."
    assert list(inspect.signature(client.get).parameters) == ["number"]
    assert asyncio.run(client.get.asyn(3)) == 13
    assert asyncio.run(Client.of_class.asyn(3)) == 13
    assert asyncio.run(Client.of_nobody.asyn(3)) == 3


def test_calls_overlap_where_they_suspend():
    async def main():
        one = asyncio.Event()

        async def first():
            await one.wait()
            return "first"

        async def second():
            one.set()
            return "second"

        async def call(function):
            return sync(function())

        return await asyncio.gather(call(first), call(second))

    assert asyncio.run(asyncio.wait_for(main(), 30)) == ["first", "second"]


def test_under_trio():
    trio = import_or_skip("trio")

    async def wait():
        await trio.lowlevel.checkpoint()
        return "trio"

    assert on_trio(lambda: sync(wait())) == "trio"

    async def without_portal():
        return sync(wait, fallback="thread")()

    with pytest.raises(RuntimeError) as raised:
        trio.run(without_portal)
    says(raised.value, "trio-no-portal")


def test_without_fallback_the_line_to_type_is_raised():
    with pytest.raises(RuntimeError) as raised:
        on_uvloop(lambda: sync(double(1)))
    says(raised.value, "loop-no-portal")


def test_what_belongs_to_the_blocked_loop_is_not_waited_for():
    async def main():
        task = asyncio.ensure_future(double(1))
        with pytest.raises(RuntimeError) as raised:
            sync(task, fallback="thread")
        says(raised.value, "loop-no-portal")
        return await task

    loop = import_or_skip("uvloop").new_event_loop()
    assert loop.run_until_complete(main()) == 2
    loop.close()


def test_no_await_holds_for_the_fallback():
    def function():
        with fiberback.no_await("region"), pytest.raises(RuntimeError) as raised:
            sync(double(1), fallback="thread")
        says(raised.value, "no-await")

    on_uvloop(function)


def test_the_fallback_runs_each_tasks_calls_in_one_task():
    async def who():
        return asyncio.current_task(), threading.current_thread().name

    def function():
        return {sync(who(), fallback="thread") for _ in range(3)}

    async def caller():
        return function()

    async def main():
        return await asyncio.gather(caller(), caller())

    loop = import_or_skip("uvloop").new_event_loop()
    first, second = loop.run_until_complete(main())
    loop.close()
    assert len(first) == len(second) == 1
    assert first != second
    assert {name for _, name in first | second} == {"fiberback.sync"}


def test_what_is_neither():
    with pytest.raises(TypeError) as raised:
        sync(3)
    says(raised.value, "sync-what")
    with pytest.raises(TypeError) as raised:
        sync(double(1), 2)
    says(raised.value, "sync-what")
    with pytest.raises(ValueError, match="knows no fallback 'loop'") as refused:
        sync(double, fallback="loop")
    says(refused.value, "sync-fallback")

    @sync
    def plain():
        return 3

    with pytest.raises(TypeError):
        plain()


def test_ctrl_c_cancels_what_the_fallback_runs():
    code = """
import asyncio, os, signal, threading, uvloop, fiberback

async def wait(begun):
    begun.set()
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)

async def main():
    begun = threading.Event()
    def interrupt():
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    fiberback.sync(wait(begun), fallback="thread")

loop = uvloop.new_event_loop()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    loop.run_until_complete(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    import_or_skip("uvloop")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("cleaned up\ninterrupted\n", 0), done.stderr


def test_the_helper_thread_ends_with_the_process():
    """What its loop still runs is cancelled, and cleans up."""
    code = """
import asyncio, uvloop, fiberback

async def linger():
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0)
        print("ended", flush=True)

async def start():
    global task
    task = asyncio.ensure_future(linger())
    await asyncio.sleep(0)

async def main():
    fiberback.sync(start(), fallback="thread")

uvloop.new_event_loop().run_until_complete(main())
print("main left", flush=True)
"""
    import_or_skip("uvloop")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("main left\nended\n", 0), done.stderr


def test_a_forked_child_has_a_helper_of_its_own():
    code = """
import asyncio, os, uvloop, fiberback

async def answer():
    await asyncio.sleep(0)
    return 42

async def main():
    return fiberback.sync(answer(), fallback="thread")

assert uvloop.new_event_loop().run_until_complete(main()) == 42
child = os.fork()
if child == 0:
    assert uvloop.new_event_loop().run_until_complete(main()) == 42
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert uvloop.new_event_loop().run_until_complete(main()) == 42
"""
    import_or_skip("uvloop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
