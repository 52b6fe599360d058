"""Generators whose frames are live, or suspended, across an `await_`."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import sys


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


async def value(backend, v):
    await backend.sleep(0)
    return v


def awaiting(fb, backend, n, log=None):
    try:
        for i in range(n):
            got = yield fb.await_(value(backend, i))
            if log is not None:
                log.append(got)
    finally:
        fb.await_(backend.sleep(0))
        if log is not None:
            log.append("closed")


def test_generator_awaits_between_yields(backend, fb):
    assert in_portal(backend, fb, lambda: list(awaiting(fb, backend, 5))) == [0, 1, 2, 3, 4]


def test_send_throw_close(backend, fb):
    def sync():
        log = []
        gen = awaiting(fb, backend, 5, log)
        assert next(gen) == 0
        assert gen.send("a") == 1
        gen.close()
        assert log == ["a", "closed"]
        gen = awaiting(fb, backend, 5, log)
        next(gen)
        try:
            gen.throw(KeyError("k"))
        except KeyError:
            log.append("thrown")
        assert log[-2:] == ["closed", "thrown"]

    in_portal(backend, fb, sync)


def test_yield_from_chains(backend, fb):
    def middle(n):
        result = yield from awaiting(fb, backend, n)
        fb.await_(backend.sleep(0))
        yield from awaiting(fb, backend, n)
        return result

    def outer():
        yield from middle(3)
        yield fb.await_(value(backend, "end"))

    assert in_portal(backend, fb, lambda: list(outer())) == [0, 1, 2, 0, 1, 2, "end"]


def test_generators_of_several_tasks_interleave(backend, fb):
    results = {}

    def sync(n):
        pairs = zip(awaiting(fb, backend, 10), awaiting(fb, backend, 20), strict=False)
        results[n] = [a * 100 + b + n for a, b in itertools.islice(pairs, n % 10)]

    async def main():
        async with backend.group() as group:
            for n in range(30):
                group.spawn(fb.with_portal_run_sync, sync, n)

    backend.run(main)
    assert results == {n: [i * 101 + n for i in range(n % 10)] for n in range(30)}


def test_generator_handed_from_task_to_task(backend, fb):
    """Started under one portal, continued under another, finished under a third."""
    got = []

    def step(gen):
        got.append(next(gen))
        fb.await_(backend.sleep(0))

    async def main():
        gen = awaiting(fb, backend, 3)
        for _ in range(3):
            async with backend.group() as group:
                group.spawn(fb.with_portal_run_sync, step, gen)
        await fb.with_portal_run_sync(lambda: list(gen))

    backend.run(main)
    assert got == [0, 1, 2]


def test_generator_closed_by_garbage_collection_in_a_portal(backend, fb):
    log = []

    def sync():
        gen = awaiting(fb, backend, 5, log)
        next(gen)
        cycle = [gen]
        cycle.append(cycle)
        del gen, cycle
        gc.collect()
        fb.await_(backend.sleep(0))

    in_portal(backend, fb, sync)
    assert log == ["closed"]


def test_suspended_generator_while_handling(backend, fb):
    """A generator suspended inside its own except block does not leak that exception."""

    def handler():
        try:
            raise KeyError
        except KeyError:
            fb.await_(backend.sleep(0))
            yield sys.exc_info()[0]
            fb.await_(backend.sleep(0))
            yield sys.exc_info()[0]

    def sync():
        gen = handler()
        assert next(gen) is KeyError
        assert sys.exc_info()[0] is None
        fb.await_(backend.sleep(0))
        assert sys.exc_info()[0] is None
        try:
            raise ValueError
        except ValueError:
            assert next(gen) is KeyError
            fb.await_(backend.sleep(0))
            assert sys.exc_info()[0] is ValueError

    in_portal(backend, fb, sync)


def test_contextmanager_generators(backend, fb):
    log = []

    @contextlib.contextmanager
    def manager():
        fb.await_(backend.sleep(0))
        try:
            yield "value"
        except KeyError:
            fb.await_(backend.sleep(0))
            log.append("caught")

    def sync():
        with manager() as got:
            fb.await_(backend.sleep(0))
            assert got == "value"
            raise KeyError

    in_portal(backend, fb, sync)
    assert log == ["caught"]


def test_async_generator_over_sync_generator(backend, fb):
    async def doubled():
        for item in awaiting(fb, backend, 4):
            await backend.sleep(0)
            yield item * 2

    def sync():
        return list(fb.async_iter(doubled()))

    assert in_portal(backend, fb, sync) == [0, 2, 4, 6]


def test_generator_already_executing(backend, fb):
    """A generator suspended by `await_` inside it is running: nobody else may step it."""

    async def main():
        shared = None
        begun = False

        def body():
            nonlocal begun
            begun = True
            fb.await_(backend.sleep(0.02))
            yield 1

        def first():
            assert next(shared) == 1

        def second():
            try:
                next(shared)
            except ValueError as error:
                return str(error)

        shared = body()
        async with backend.group() as group:
            group.spawn(fb.with_portal_run_sync, first)
            while not begun:
                await backend.sleep(0)
            message = await fb.with_portal_run_sync(second)
        assert message == "generator already executing"

    backend.run(main)


def test_comprehensions_and_lazy_iterators(backend, fb):
    def sync():
        squares = (fb.await_(value(backend, i * i)) for i in range(10))
        evens = filter(lambda v: fb.await_(value(backend, v % 2 == 0)), squares)
        pairs = list(itertools.pairwise(evens))
        nested = [[fb.await_(value(backend, x * y)) for x in range(3)] for y in range(3)]
        mapping = {fb.await_(value(backend, k)): v for k, v in enumerate("ab")}
        return pairs, nested, mapping

    assert in_portal(backend, fb, sync) == (
        [(0, 4), (4, 16), (16, 36), (36, 64)],
        [[0, 0, 0], [0, 1, 2], [0, 2, 4]],
        {0: "a", 1: "b"},
    )
