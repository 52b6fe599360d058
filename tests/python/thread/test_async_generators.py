"""Async generators that are begun where no loop runs are closed by the loop that runs them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings

import pytest
from places import PLACES, TRIO, needs
from support import only_fiberback

pytestmark = only_fiberback

BEGIN = {
    "async_iter": lambda fb, generator: next(iter(fb.async_iter(generator))),
    "__anext__": lambda fb, generator: fb.await_(generator.__anext__()),
    "asend": lambda fb, generator: fb.await_(generator.asend(None)),
    "anext": lambda fb, generator: fb.await_(anext(generator)),
    "anext, default": lambda fb, generator: fb.await_(anext(generator, None)),
    "wait_for": lambda fb, generator: fb.await_(in_coroutine(generator.__anext__())),
}


async def in_coroutine(awaitable):
    return await awaitable


@pytest.fixture(params=[*PLACES, *TRIO])
def place(request, fb):
    needs(request.param)
    name = request.param
    yield name, {**PLACES, **TRIO}[name]
    fb.close_thread_runner()


async def checkpoint(name):
    if "Trio" in name or "trio" in name:
        import trio

        await trio.sleep(0.001)
    else:
        await asyncio.sleep(0.001)


def until(fb, condition, name):
    for _ in range(500):
        if condition():
            return
        fb.await_(checkpoint(name))
    raise AssertionError("it was not closed")


@pytest.mark.parametrize("begin", BEGIN)
def test_dropped(fb, place, begin, capsys):
    """One that is dropped in the middle is closed, with its `finally` to the end."""
    name, run = place
    log = []

    async def generator():
        try:
            while True:
                yield len(log)
        finally:
            await checkpoint(name)
            log.append("closed")

    def work():
        source = generator()
        assert BEGIN[begin](fb, source) == 0
        del source
        gc.collect()
        until(fb, lambda: log, name)

    if "Trio" in name or "trio" in name:
        # Trio closes what is dropped with no chance to wait, and warns; at least it is told.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(lambda: until_trio(fb, generator, begin, name))
        assert any("was garbage collected" in str(each.message) for each in caught)
        return
    run(work)
    assert log == ["closed"]
    assert capsys.readouterr().err == ""


def until_trio(fb, generator, begin, name):
    source = generator()
    BEGIN[begin](fb, source)
    del source
    gc.collect()
    fb.await_(checkpoint(name))


@pytest.mark.parametrize("begin", BEGIN)
def test_kept_to_the_end(fb, place, begin, capsys):
    """One that is still alive when the loop ends is closed then."""
    name, run = place
    log, kept = [], []

    async def generator():
        try:
            while True:
                yield len(log)
        finally:
            if "Trio" not in name and "trio" not in name:
                await asyncio.sleep(0.001)
            log.append("closed")

    def work():
        kept.append(generator())
        assert BEGIN[begin](fb, kept[0]) == 0

    run(work)
    fb.close_thread_runner()
    assert log == ["closed"]
    assert capsys.readouterr().err == ""


def test_the_loop_knows_it(fb, place):
    name, run = place
    if "Trio" in name or "trio" in name:
        pytest.skip("Trio does not tell")

    async def generator():
        yield 1
        yield 2

    async def shut_down():
        await asyncio.get_running_loop().shutdown_asyncgens()

    def work():
        source = generator()
        for each in fb.async_iter(source):
            assert each == 1
            break
        fb.await_(shut_down())
        return source.ag_frame

    assert run(work) is None


def test_dropped_while_nothing_is_awaited(fb):
    """Without a loop, what is dropped last is closed when the loop is."""
    log = []

    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            log.append("closed")

    def work():
        for _ in fb.async_iter(generator()):
            break
        gc.collect()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert log == ["closed"]


@pytest.mark.parametrize("all_wait", [True, False])
@pytest.mark.parametrize("end", ["thread", "close_thread_runner"])
def test_dropped_within_one_another(fb, end, all_wait):
    """Each is dropped when the one around it has been closed."""
    log = []

    async def generator(depth):
        try:
            if depth:
                async for each in generator(depth - 1):
                    yield each
            yield 1
        finally:
            if all_wait or depth == 0:
                await asyncio.sleep(0.01)
            log.append(depth)

    def work():
        source = generator(3)
        assert fb.await_(anext(source)) == 1
        del source
        gc.collect()
        if end == "close_thread_runner":
            fb.close_thread_runner()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert log == [3, 2, 1, 0]


def test_the_hooks_of_others_are_kept(fb):
    seen, finalized = [], []

    def work():
        sys.set_asyncgen_hooks(seen.append, finalized.append)
        source = generator()
        assert fb.await_(anext(source)) == 1
        assert seen == [source]
        second = generator()
        assert fb.await_(anext(second)) == 1
        assert seen == [source, second]
        hooks = sys.get_asyncgen_hooks()
        asyncio.run(asyncio.sleep(0))
        assert sys.get_asyncgen_hooks() == hooks

    async def generator():
        yield 1

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_many_are_not_kept(fb, place):
    _, run = place
    if "Trio" in place[0] or "trio" in place[0]:
        pytest.skip("once is enough")

    async def generator(at):
        yield at

    def work():
        for at in range(200):
            assert list(fb.async_iter(generator(at))) == [at]
        gc.collect()
        return sum(type(each).__name__ == "async_generator" for each in gc.get_objects())

    assert run(work) < 20
