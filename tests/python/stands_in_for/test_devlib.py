"""`fiberback.devlib`: the names of devlib's asyn module, wherever they are called.

devlib's own tests of that module are in its repository only, in no sdist on PyPI; what they ask for is asked for
here, in the same places: without a loop, inside asyncio's and uvloop's, and in threads below these.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading

import fiberback
import pytest
from fiberback import devlib as asyn
from saying import says
from support import import_or_skip, only_fiberback

pytestmark = [only_fiberback, pytest.mark.sampled]

variable = contextvars.ContextVar("variable", default="unset")


def new_uvloop():
    return import_or_skip("uvloop").new_event_loop()


def on(factory, *, portal=False, in_thread=False):
    """Call a sync function in a task of a loop, or in a thread that works for one."""

    def place(function):
        async def main():
            if in_thread:
                return await asyncio.to_thread(function)
            return function()

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyn.allow_nested_run(main()) if portal else main())

    return place


PLACES = {
    "no loop": lambda function: function(),
    "asyncio": on(asyncio.new_event_loop),
    "asyncio, nested run": on(asyncio.new_event_loop, portal=True),
    "uvloop": on(new_uvloop),
    "uvloop, nested run": on(new_uvloop, portal=True),
    "a thread of asyncio's": on(asyncio.new_event_loop, in_thread=True),
    "a thread of uvloop's": on(new_uvloop, in_thread=True),
}


@pytest.fixture(params=PLACES)
def place(request):
    return PLACES[request.param]


async def double(number):
    await asyncio.sleep(0)
    return number * 2


async def fail():
    await asyncio.sleep(0)
    raise LookupError("deep")


def test_run(place):
    def function():
        with pytest.raises(LookupError, match="deep"):
            asyn.run(fail())
        return asyn.run(double(21))

    assert place(function) == 42


def test_run_in_run(place):
    async def nested(depth):
        await asyncio.sleep(0)
        if not depth:
            return 42
        if depth % 2:
            return asyn.run(nested(depth - 1))
        return below(depth)

    def below(depth):
        return asyn.run(nested(depth - 1))

    async def failing():
        try:
            asyn.run(fail())
        except LookupError as error:
            raise ValueError from error

    def function():
        with pytest.raises(ValueError):
            asyn.run(failing())
        return asyn.run(nested(6))

    assert place(function) == 42


def test_variables_go_both_ways(place):
    async def exchange():
        seen = variable.get()
        variable.set("inside")
        await asyncio.sleep(0)
        return seen

    def function():
        variable.set("outside")
        return asyn.run(exchange()), variable.get()

    assert contextvars.Context().run(place, function) == ("outside", "inside")


def test_awaitables_of_all_kinds(place):
    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    class Answer:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 42

    def function():
        source = numbers()
        got = [asyn.run(anext(source)), asyn.run(anext(source)), asyn.run(Answer())]
        asyn.run(source.aclose())
        return got

    assert place(function) == [0, 1, 42]


def test_a_future_of_the_loop_is_waited_for_in_that_loop():
    """And the loop goes on meanwhile, or nobody would set it."""

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0, future.set_result, 42)

        async def waits():
            assert asyncio.get_running_loop() is loop
            return await future

        return asyn.run(waits())

    assert asyncio.run(main()) == 42
    with asyncio.Runner(loop_factory=new_uvloop) as runner:
        assert runner.run(asyn.allow_nested_run(main())) == 42


class Device:
    name = "device"

    @asyn.asyncf
    async def pull(self, path, *, again=False):
        "Pulls."
        await asyncio.sleep(0)
        return self.name, path, again

    @classmethod
    @asyn.asyncf
    async def of_class(cls, path):
        await asyncio.sleep(0)
        return cls.name, path

    @staticmethod
    @asyn.asyncf
    async def of_none(path):
        await asyncio.sleep(0)
        return path

    @asyn.asyncf
    @classmethod
    async def of_class_too(cls, path):
        await asyncio.sleep(0)
        return cls.name, path

    @asyn.asyncf
    async def lines(self):
        for line in ("a", "b"):
            await asyncio.sleep(0)
            yield line

    @asyn.asyncf
    @asyn.memoized_method
    async def slow(self, path, option=1):
        self.calls = getattr(self, "calls", 0) + 1
        await asyncio.sleep(0)
        return path, option

    @asyn.memoized_method
    def plain(self, path):
        self.calls = getattr(self, "calls", 0) + 1
        return path

    @asyn.memoized_method
    @asyn.asyncf
    async def other_way_round(self, path):
        self.calls = getattr(self, "calls", 0) + 1
        return path


def test_asyncf(place):
    device = Device()

    def function():
        return (
            device.pull("a", again=True),
            Device.pull(device, "b"),
            Device.of_class("c"),
            device.of_none("d"),
            Device.of_class_too("e"),
        )

    assert place(function) == (
        ("device", "a", True),
        ("device", "b", False),
        ("device", "c"),
        "d",
        ("device", "e"),
    )


def test_asyn_is_the_coroutine():
    async def main():
        device = Device()
        assert inspect.iscoroutinefunction(device.pull.asyn)
        assert await Device.of_class_too.asyn("a") == ("device", "a")
        assert [line async for line in device.lines.asyn()] == ["a", "b"]
        return await device.pull.asyn("a")

    assert asyncio.run(main()) == ("device", "a", False)
    assert Device.pull.__name__ == "pull" and Device.pull.__doc__ == "Pulls."
    assert not inspect.iscoroutinefunction(Device.pull)
    assert isinstance(Device().pull, type(fiberback.sync(double)))  # one kind of object
    assert "Device.pull" in repr(Device.pull)


def test_asyncf_of_a_generator_gives_a_generator(place):
    def function():
        source = Device().lines()
        first = next(source)
        rest = list(source)
        early = Device().lines()
        next(early)
        early.close()
        with pytest.raises(StopIteration):
            next(early)
        return first, rest

    assert place(function) == ("a", ["b"])


def test_memoized_methods(place):
    def function():
        device, other = Device(), Device()
        assert device.slow("a") == device.slow("a", 1) == device.slow("a", option=1) == ("a", 1)
        assert device.calls == 1
        assert other.slow("a", 2) == ("a", 2) and other.calls == 1
        assert device.plain("b") == device.plain("b") == "b" and device.calls == 2
        assert device.other_way_round("c") == device.other_way_round("c") == "c"
        return device.calls

    assert place(function) == 3


def test_context_managers_of_both_kinds(place):
    states = []

    @asyn.asynccontextmanager
    async def session(swallows):
        await asyncio.sleep(0)
        states.append("begun")
        try:
            yield 42
        except LookupError:
            if not swallows:
                raise
        finally:
            await asyncio.sleep(0)
            states.append("ended")

    async def asynchronously():
        async with session(True) as value:
            raise LookupError
        return value

    def function():
        states.clear()
        with session(False) as value:
            assert value == 42 and states == ["begun"]
        with session(True):
            raise LookupError
        with pytest.raises(LookupError), session(False):
            raise LookupError
        assert asyn.run(asynchronously()) == 42
        return states

    assert place(function) == ["begun", "ended"] * 4


def test_compose():
    async def add(one, two=1):
        await asyncio.sleep(0)
        return one + two

    composed = asyn.compose(str, double, add)
    assert asyn.run(composed(1, two=2)) == "6"
    assert asyn.run(asyn.compose(double)(4)) == 8
    assert asyn.run(asyn.compose()(4)) == 4


# --- AsyncManager ----------------------------------------------------------------------------------


def test_concurrently(place):
    def function():
        manager = asyn.AsyncManager()
        both = []

        async def meets(number):
            both.append(number)
            while len(both) < 2:
                await asyncio.sleep(0)
            return number

        assert asyn.run(manager.concurrently([double(1)])) == [2]
        assert asyn.run(manager.concurrently([])) == []
        assert asyn.run(manager.concurrently([meets(1), meets(2)])) == [1, 2]
        return asyn.run(manager.map_concurrently(double, iter([3, 4])))

    assert place(function) == {3: 6, 4: 8}


def test_an_error_cancels_the_others_and_waits_for_them(place):
    def function():
        ended = []

        async def waits():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        with pytest.raises(LookupError):
            asyn.run(asyn.AsyncManager().concurrently([waits(), waits(), fail()]))
        return ended

    assert place(function) == [True, True]


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (("host", "/a/b", "w"), ("host", "/a/b", "r"), True),
        (("host", "/a/b", "r"), ("host", "/a/b", "r"), False),
        (("host", "/a", "w"), ("host", "/a/b", "r"), True),
        (("host", "/a/b/../c", "w"), ("host", "/a/c", "w"), True),
        (("host", "/a", "w"), ("target", "/a", "w"), False),
        (("target", "/a/b", "w"), ("target", "/a/bc", "w"), False),
        (("target", "/a/b", "r"), ("target", "/a/./b/c", "w"), True),
    ],
)
def test_accesses_that_overlap(one, other, overlap):
    one, other = asyn.PathAccess(*one), asyn.PathAccess(*other)
    assert one.overlap_with(other) is other.overlap_with(one) is overlap
    manager = asyn.AsyncManager()

    async def accesses(access):
        manager.track_access(access)

    if not overlap:
        assert asyn.run(manager.concurrently([accesses(one), accesses(other)])) == [None, None]
        return
    with pytest.raises(RuntimeError) as raised:
        asyn.run(manager.concurrently([accesses(one), accesses(other)]))
    says(raised.value, "devlib-overlap")
    assert str(one) in str(raised.value) and str(other) in str(raised.value)


def test_what_blocking_calls_and_subtasks_access_counts_too(place):
    access = asyn.PathAccess("target", "/a", "w")

    def function():
        manager = asyn.AsyncManager()

        async def accesses():
            await asyncio.sleep(0)
            manager.track_access(access)

        async def in_a_subtask():
            await asyncio.create_task(accesses())

        async def blocking():
            asyn.run(manager.concurrently([accesses(), double(1)]))

        with pytest.raises(RuntimeError, match="Await these one after the other"):
            asyn.run(manager.concurrently([in_a_subtask(), blocking()]))
        asyn.run(accesses())  # nothing runs beside it
        return asyn.run(manager.concurrently([accesses(), double(1)]))

    assert place(function) == [None, 2]


def test_wrong_accesses():
    with pytest.raises(ValueError) as raised:
        asyn.PathAccess("here", "/a", "w")
    says(raised.value, "devlib-access")


def test_names_of_tasks():
    async def main():
        task = asyn.create_task(double(1))
        assert task.get_name().endswith("double")
        assert asyn.create_task(task, "mine") is task and task.get_name() == "mine"
        return await task

    assert asyncio.run(main()) == 2


def test_made_in_one_thread_and_awaited_in_another():
    results = []
    portal = asyn.allow_nested_run(double(21))
    thread = threading.Thread(target=lambda: results.append(asyncio.run(portal)))
    thread.start()
    thread.join()
    assert results == [42]
