"""`await_` takes everything that `await` takes, and gives what `await` gives."""

from __future__ import annotations

import asyncio
import collections.abc
import ctypes
import functools
import inspect
import json
import re
import sys
import types
import warnings

import pytest
from support import UNDER_TEST, only_fiberback, parks


@types.coroutine
def yield_to_loop(value):
    return (yield value)


def in_portal(backend, fb, sync_fn, *args):
    """Run `sync_fn` as the only content of a portal."""
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


async def add(backend, a, b):
    await backend.sleep(0)
    return a + b


@pytest.mark.parametrize("entrance", ["ensure", "run", "run_sync", "bestow"])
def test_each_entrance_gives_a_portal(backend, fb, entrance):
    def sync():
        return [fb.await_(add(backend, i, 1)) for i in range(10)]

    async def use():
        return sync()

    async def main():
        assert not fb.has_portal()
        if entrance == "ensure":
            await fb.ensure_portal()
            result = sync()
            assert fb.has_portal()
        elif entrance == "run":
            result = await fb.with_portal_run(use)
            assert not fb.has_portal()
        elif entrance == "run_sync":
            result = await fb.with_portal_run_sync(sync)
            assert not fb.has_portal()
        else:
            fb.bestow_portal(backend.current_task())
            await backend.sleep(0)
            result = sync()
        return result

    assert backend.run(main) == list(range(1, 11))


def test_arguments_and_result_pass_through(backend, fb):
    def sync(*args, **kwargs):
        fb.await_(backend.sleep(0))
        return args, kwargs

    async def fn(*args, **kwargs):
        return sync(*args, **kwargs)

    async def main():
        expected = ((1, 2), {"three": 3})
        assert await fb.with_portal_run(fn, 1, 2, three=3) == expected
        assert await fb.with_portal_run_sync(sync, 1, 2, three=3) == expected

    backend.run(main)


def test_coroutine_that_never_suspends(backend, fb):
    async def ready():
        return 42

    assert in_portal(backend, fb, lambda: fb.await_(ready())) == 42


def test_native_future_and_task(aio, fb):
    async def main():
        await fb.ensure_portal()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "later")
        assert fb.await_(future) == "later"
        assert fb.await_(future) == "later"  # a finished one needs no suspension
        task = loop.create_task(add(aio, 1, 2))
        assert fb.await_(task) == 3
        failing = loop.create_future()
        loop.call_soon(failing.set_exception, ValueError("future"))
        with pytest.raises(ValueError, match="future"):
            fb.await_(failing)
        assert fb.await_(asyncio.gather(add(aio, 1, 1), add(aio, 2, 2))) == [2, 4]
        done, pending = fb.await_(asyncio.wait([loop.create_task(add(aio, 5, 5))]))
        assert [t.result() for t in done] == [10] and not pending

    aio.run(main)


def test_objects_with_await(backend, fb):
    class ByGenerator:
        def __await__(self):
            yield from backend.sleep(0).__await__()
            return "generator"

    class ByIterator:
        def __await__(self):
            return iter(())

    class ByCoroutineWrapper:
        def __await__(self):
            return add(backend, 20, 1).__await__()

    class Failing:
        def __await__(self):
            raise LookupError("no way")

    def sync():
        assert fb.await_(ByGenerator()) == "generator"
        assert fb.await_(ByIterator()) is None
        assert fb.await_(ByCoroutineWrapper()) == 21
        with pytest.raises(LookupError, match="no way"):
            fb.await_(Failing())

    in_portal(backend, fb, sync)


def test_generator_based_coroutine(backend, fb):
    @types.coroutine
    def old_style(n):
        total = 0
        for i in range(n):
            total += yield from add(backend, i, 0).__await__()
        return total

    assert in_portal(backend, fb, lambda: fb.await_(old_style(5))) == 10


def test_coroutine_like_object(backend, fb):
    class Lookalike(collections.abc.Coroutine):
        def __init__(self):
            self.inner = add(backend, 3, 4)

        def send(self, value):
            return self.inner.send(value)

        def throw(self, *exc):
            return self.inner.throw(*exc)

        def close(self):
            self.inner.close()

        def __await__(self):
            return (yield from self.inner.__await__())

    assert in_portal(backend, fb, lambda: fb.await_(Lookalike())) == 7


def test_async_generator_steps(backend, fb):
    async def numbers():
        sent = []
        try:
            for i in range(3):
                await backend.sleep(0)
                sent.append((yield i))
        except KeyError as error:
            yield f"caught {error.args[0]}"
        finally:
            await backend.sleep(0)
            sent.append("closed")
            log.extend(sent)

    log: list = []

    def sync():
        agen = numbers()
        assert fb.await_(agen.__anext__()) == 0
        assert fb.await_(agen.asend("a")) == 1
        assert fb.await_(agen.athrow(KeyError("b"))) == "caught b"
        fb.await_(agen.aclose())
        assert log == ["a", "closed"]
        with pytest.raises(StopAsyncIteration):
            fb.await_(agen.__anext__())

    in_portal(backend, fb, sync)


def native_error(backend, make):
    async def main():
        try:
            await make()
        except BaseException as error:
            return type(error), str(error)
        raise AssertionError("native await did not fail")

    return backend.run(main)


async def _never():
    raise AssertionError("must not start")


def _bad_await(result):
    return type("Bad", (), {"__await__": lambda self: result})()


def _finished_coroutine():
    async def nothing():
        pass

    coro = nothing()
    with pytest.raises(StopIteration):
        coro.send(None)
    return coro


@pytest.mark.parametrize(
    "make",
    [
        lambda: 42,
        lambda: None,
        lambda: [],
        lambda: object,
        lambda: _bad_await(7),
        lambda: _bad_await(_never()),
        lambda: (x for x in ()),
        _finished_coroutine,
    ],
    ids=["int", "none", "list", "class", "await-int", "await-coro", "generator", "finished"],
)
def test_bad_awaitables_fail_as_natively(backend, fb, make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = native_error(backend, make)

        def sync():
            with pytest.raises(expected[0]) as info:
                fb.await_(make())
            assert str(info.value) == expected[1]

        in_portal(backend, fb, sync)


@only_fiberback
def test_coroutine_already_being_awaited(backend, fb):
    """As with native `await`, a coroutine suspended in its own await is refused, not corrupted."""

    @types.coroutine
    def hold():
        yield "held"

    async def target():
        await hold()
        return "finished"

    async def main():
        await fb.ensure_portal()
        coro = target()
        assert coro.send(None) == "held"
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            fb.await_(coro)
        with pytest.raises(StopIteration) as stop:
            coro.send(None)
        assert stop.value.value == "finished"

    backend.run(main)


def test_suspension_below_c_frames(backend, fb):
    """C code between the portal and `await_` neither notices nor forbids the suspension."""

    def wait(value):
        return fb.await_(add(backend, value, 0))

    class Lazy:
        def __getattr__(self, name):
            return wait(len(name))

        def __len__(self):
            return wait(3)

        def __eq__(self, other):
            return wait(True)

        def __repr__(self):
            return f"<lazy {wait(1)}>"

        __hash__ = None

    def sync():
        assert sorted([3, 1, 2], key=wait) == [1, 2, 3]
        assert list(map(wait, range(3))) == [0, 1, 2]
        assert functools.reduce(lambda a, b: wait(a + b), range(5)) == 10
        assert re.sub("[0-9]", lambda m: str(wait(int(m[0]) + 1)), "1a2b") == "2a3b"
        assert json.dumps([Lazy()], default=lambda o: wait(7)) == "[7]"
        assert Lazy().four == 4
        assert len(Lazy()) == 3
        assert Lazy() in [object()]
        assert repr([Lazy()]) == "[<lazy 1>]"
        assert max([5, 9, 2], key=lambda v: wait(-v)) == 2
        assert f"{str(wait(5)):>4}" == "   5"
        assert {wait(k): wait(v) for k, v in [(1, 2), (3, 4)]} == {1: 2, 3: 4}
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: wait(n + 1))
        assert callback(5) == 6

    in_portal(backend, fb, sync)


def test_await_in_magic_methods_and_finalizers(backend, fb):
    log = []

    class Resource:
        def __init__(self):
            fb.await_(backend.sleep(0))
            log.append("init")

        def __enter__(self):
            fb.await_(backend.sleep(0))
            log.append("enter")

        def __exit__(self, *exc):
            fb.await_(backend.sleep(0))
            log.append("exit")

        def __del__(self):
            fb.await_(backend.sleep(0))
            log.append("del")

    def sync():
        with Resource():
            log.append("body")

    in_portal(backend, fb, sync)
    assert log == ["init", "enter", "body", "exit", "del"]


def test_nesting_of_await_in_coroutines_in_await(backend, fb):
    def sync_level(depth):
        if depth == 0:
            fb.await_(backend.sleep(0))
            return 0
        return fb.await_(async_level(depth - 1)) + 1

    async def async_level(depth):
        await backend.sleep(0)
        return sync_level(depth) + 1

    assert in_portal(backend, fb, sync_level, 25) == 50


def test_portals_nest(backend, fb):
    def inner():
        return fb.await_(add(backend, 1, 2))

    def outer():
        return fb.await_(fb.with_portal_run_sync(inner))

    assert in_portal(backend, fb, outer) == 3


def test_many_tasks_interleave_out_of_order(backend, fb):
    order = []

    def sync(n):
        for _ in range(n):
            fb.await_(backend.sleep(0))
        order.append(n)

    async def main():
        async with backend.group() as group:
            for n in (30, 10, 20, 5):
                group.spawn(fb.with_portal_run_sync, sync, n)

    backend.run(main)
    assert order == [5, 10, 20, 30]


def test_values_sent_by_a_hand_written_runner(fb):
    """The portal forwards exactly what the runner sends and yields, with no loop behind it."""
    asyncio_like = asyncio.new_event_loop()

    async def main():
        seen = []

        def sync():
            for i in range(3):
                seen.append(fb.await_(yield_to_loop(i)))
            return "done"

        coro = fb.with_portal_run_sync(sync)
        assert coro.send(None) == 0
        assert coro.send("a") == 1
        assert coro.send("b") == 2
        with pytest.raises(StopIteration) as stop:
            coro.send("c")
        assert stop.value.value == "done"
        assert seen == ["a", "b", "c"]

    try:
        asyncio_like.run_until_complete(main())
    finally:
        asyncio_like.close()


def test_off_portal_says_what_to_type(backend, fb):
    async def main():
        coro = backend.sleep(0)
        if parks(backend):
            return fb.await_(coro)
        with pytest.raises(RuntimeError) as info:
            fb.await_(coro)
        assert "ensure_portal" in str(info.value)
        assert "with_portal_run" in str(info.value)
        if hasattr(coro, "cr_frame"):
            assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.run(main)


def test_outside_any_loop(fb):
    async def answer():
        return "on this thread's own runner"

    coro = answer()
    if UNDER_TEST == "fiberback":  # more of this in test_without_loop.py
        assert fb.await_(coro) == "on this thread's own runner"
        fb.close_thread_runner()
    else:
        with pytest.raises(RuntimeError):  # sniffio.AsyncLibraryNotFoundError is one
            fb.await_(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert not fb.has_portal()


def test_bestowed_but_not_yet_yielded(backend, fb):
    async def main():
        fb.bestow_portal(backend.current_task())
        assert not fb.has_portal()
        assert not fb.has_portal(backend.current_task())
        if parks(backend):
            fb.await_(backend.sleep(0))
        else:
            with pytest.raises(RuntimeError, match="must yield to the event loop"):
                fb.await_(backend.sleep(0))
        await backend.sleep(0)
        assert fb.has_portal()
        fb.await_(backend.sleep(0))

    backend.run(main)


def test_callbacks_have_no_portal(aio, fb):
    """A loop callback runs outside every task, even while a portal'd task is suspended."""

    async def main():
        await fb.ensure_portal()
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def callback():
            try:
                fb.await_(asyncio.sleep(0))
                future.set_result((fb.has_portal(), "parked" if parks(aio) else ""))
            except RuntimeError as error:
                future.set_result((fb.has_portal(), "" if parks(aio) else str(error)))

        loop.call_soon(callback)
        has, message = fb.await_(future)
        assert not has
        assert message

    aio.run(main)


def test_task_without_portal_inside_a_portal_step(fb):
    """An eager task starts inside its creator's step: the creator's portal is not its own."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def child():
        assert not fb.has_portal()
        if UNDER_TEST != "fiberback":
            with pytest.raises(RuntimeError, match="ensure_portal"):
                fb.await_(asyncio.sleep(0))
            return "child"
        me = asyncio.current_task()
        value = fb.await_(asyncio.sleep(0.001, "child"))  # parked, with its creator
        assert asyncio.current_task() is me
        return value

    async def main():
        await fb.ensure_portal()
        loop = asyncio.get_running_loop()
        task = asyncio.Task(child(), loop=loop, eager_start=True)
        assert task.done()
        assert fb.has_portal()
        fb.await_(asyncio.sleep(0))
        return task.result()

    assert asyncio.run(main()) == "child"


def test_other_loop_run_below_a_portal(fb):
    """Trio run synchronously inside an asyncio portal: its tasks have no portal of their own."""
    from support import import_or_skip

    trio = import_or_skip("trio")

    async def trio_main():
        assert not fb.has_portal()
        with pytest.raises(RuntimeError, match="ensure_portal"):
            fb.await_(trio.sleep(0))
        await fb.ensure_portal()
        fb.await_(trio.sleep(0))
        return "inner"

    def sync():
        fb.await_(asyncio.sleep(0))
        result = trio.run(trio_main)
        fb.await_(asyncio.sleep(0))
        return result

    async def main():
        return await fb.with_portal_run_sync(sync)

    assert asyncio.run(main()) == "inner"


def test_yielding_rubbish_fails_as_natively(backend, fb):
    expected = native_error(backend, lambda: yield_to_loop(42))

    async def main():
        await fb.ensure_portal()
        with pytest.raises(expected[0]) as info:
            fb.await_(yield_to_loop(42))
        assert str(info.value) == expected[1]
        with pytest.raises(expected[0]):
            await yield_to_loop(42)

    backend.run(main)


def test_the_result_may_be_anything(backend, fb):
    values = [None, False, StopIteration, StopIteration(3), (1,), (), ValueError("x"), iter([])]

    async def give(value):
        await backend.sleep(0)
        return value

    async def give_ready(value):
        return value

    def sync():
        for value in values:
            assert fb.await_(give(value)) is value
            assert fb.await_(give_ready(value)) is value
        return values

    assert in_portal(backend, fb, sync) is values
    for value in values:
        assert in_portal(backend, fb, lambda value=value: value) is value


def test_large_numbers_of_awaits(backend, fb):
    async def ready(i):
        return i

    def sync():
        total = sum(fb.await_(ready(i)) for i in range(20_000))
        for _ in range(2_000):
            fb.await_(backend.sleep(0))
        return total

    assert in_portal(backend, fb, sync) == sum(range(20_000))


@only_fiberback
def test_await_has_no_bound_signature_surprises(fb):
    with pytest.raises(TypeError):
        fb.await_()
    with pytest.raises(TypeError):
        fb.await_(1, 2)
    assert fb.await_.__name__ == "await_"
    assert fb.await_.__doc__


def test_debug_mode(aio, fb):
    async def main():
        await fb.ensure_portal()
        assert asyncio.get_running_loop().get_debug()
        fb.await_(asyncio.sleep(0))
        fb.await_(asyncio.gather(add(aio, 1, 1), add(aio, 2, 2)))
        async with asyncio.timeout(5):
            fb.await_(asyncio.sleep(0.01))
        return "fine"

    assert aio.run(main, debug=True) == "fine"
