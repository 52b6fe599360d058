"""autoawait, decorate_as_sync, async_context, async_iter: each measured against `async` syntax."""

from __future__ import annotations

import contextlib
import functools
import inspect

import pytest
from support import parks


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


def test_autoawait(backend, fb):
    @fb.autoawait
    async def add(a, b=0):
        """Adds."""
        await backend.sleep(0)
        return a + b

    assert add.__name__ == "add" and add.__doc__ == "Adds."
    assert not inspect.iscoroutinefunction(add)
    assert in_portal(backend, fb, lambda: add(1, b=2)) == 3

    class Thing:
        def __init__(self):
            self._value = 1

        @property
        @fb.autoawait
        async def value(self):
            await backend.sleep(0)
            return self._value

        @value.setter
        @fb.autoawait
        async def value(self, value):
            await backend.sleep(0)
            self._value = value

        @fb.autoawait
        async def __getitem__(self, key):
            await backend.sleep(0)
            return key * 2

        @classmethod
        @fb.autoawait
        async def make(cls):
            await backend.sleep(0)
            return cls()

    def sync():
        thing = Thing.make()
        thing.value = 5
        assert thing.value == 5
        assert thing[4] == 8

    in_portal(backend, fb, sync)


def test_autoawait_off_portal(backend, fb):
    @fb.autoawait
    async def fn():
        pass

    async def main():
        if parks(backend):
            return fn()
        with pytest.raises(RuntimeError):
            fn()

    backend.run(main)


def test_decorate_as_sync(backend, fb):
    calls = []

    @fb.decorate_as_sync(functools.lru_cache(maxsize=8))
    async def cached(n, *, extra=0):
        """Cached."""
        assert fb.has_portal()
        await backend.sleep(0)
        calls.append(n)
        return n + extra

    async def main():
        assert await cached(1) == 1
        assert await cached(1) == 1
        assert await cached(1, extra=2) == 3
        assert not fb.has_portal()

    backend.run(main)
    assert calls == [1, 1]
    assert inspect.iscoroutinefunction(cached)
    assert cached.__name__ == "cached" and cached.__doc__ == "Cached."
    assert cached.__wrapped__.cache_info().hits == 1


def test_decorate_as_sync_with_contextmanager_decorator(backend, fb):
    log = []

    @contextlib.contextmanager
    def around():
        log.append("enter")
        yield
        log.append("exit")

    @fb.decorate_as_sync(around())
    async def body():
        log.append("start")
        await backend.sleep(0)
        log.append("end")

    backend.run(body)
    assert log == ["enter", "start", "end", "exit"]


def outcome_of(run):
    try:
        return ("returned", run())
    except BaseException as error:
        return (type(error), str(error))


def context_managers(backend):
    @contextlib.asynccontextmanager
    async def plain():
        await backend.sleep(0)
        try:
            yield "value"
        finally:
            await backend.sleep(0)

    @contextlib.asynccontextmanager
    async def suppressing():
        with contextlib.suppress(KeyError):
            yield

    class NoExit:
        async def __aenter__(self):
            raise AssertionError

    class NoEnter:
        async def __aexit__(self, *exc):
            raise AssertionError

    class FailingEnter:
        async def __aenter__(self):
            raise ValueError("enter")

        async def __aexit__(self, *exc):
            raise AssertionError

    class FailingExit:
        async def __aenter__(self):
            return 1

        async def __aexit__(self, *exc):
            await backend.sleep(0)
            raise ValueError("exit")

    class OnInstance:
        def __init__(self):
            self.__aenter__ = self.__aexit__ = None

        async def __aenter__(self):
            return "class"

        async def __aexit__(self, *exc):
            return None

    class TruthyExit:
        async def __aenter__(self):
            return self is not None

        async def __aexit__(self, kind, error, tb):
            return "yes"

    return {
        "plain": plain,
        "suppressing": suppressing,
        "no-exit": NoExit,
        "no-enter": NoEnter,
        "failing-enter": FailingEnter,
        "failing-exit": FailingExit,
        "on-instance": OnInstance,
        "truthy-exit": TruthyExit,
        "not-a-manager": lambda: 42,
    }


@pytest.mark.parametrize("body_error", [None, KeyError("body")], ids=["clean", "raising"])
@pytest.mark.parametrize("which", list(context_managers(None)))
def test_async_context_as_natively(backend, fb, which, body_error):
    make = context_managers(backend)[which]

    async def native():
        result = "nothing"
        async with make() as result:  # noqa: F811
            if body_error is not None:
                raise body_error
        return result

    def sync():
        result = "nothing"
        with fb.async_context(make()) as result:  # noqa: F811
            if body_error is not None:
                raise body_error
        return result

    expected = outcome_of(lambda: backend.run(native))
    got = outcome_of(lambda: in_portal(backend, fb, sync))
    assert got[0] == expected[0]
    if which not in ("not-a-manager", "no-enter", "no-exit"):
        assert got == expected


def test_async_context_wrong_argument(backend, fb):
    def sync():
        with pytest.raises(TypeError, match="asynchronous context manager"):
            with fb.async_context(42):
                pass

    in_portal(backend, fb, sync)


def iterables(backend):
    async def generator():
        for i in range(5):
            await backend.sleep(0)
            yield i

    class Iterator:
        def __init__(self):
            self.n = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            await backend.sleep(0)
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

    class Delegating:
        def __aiter__(self):
            return generator()

    class Failing:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise ValueError("next")

    class NoAiter:
        async def __anext__(self):
            raise AssertionError

    class NoAnext:
        def __aiter__(self):
            return self

    return {
        "generator": generator,
        "iterator": Iterator,
        "delegating": Delegating,
        "failing": Failing,
        "no-aiter": NoAiter,
        "no-anext": NoAnext,
        "not-async": lambda: [1, 2],
    }


@pytest.mark.parametrize("which", list(iterables(None)))
def test_async_iter_as_natively(backend, fb, which):
    make = iterables(backend)[which]

    async def native():
        return [item async for item in make()]

    def sync():
        return list(fb.async_iter(make()))

    expected = outcome_of(lambda: backend.run(native))
    got = outcome_of(lambda: in_portal(backend, fb, sync))
    assert got[0] == expected[0]
    if got[0] is not TypeError:
        assert got == expected


def test_async_iter_generator_methods(backend, fb):
    log = []

    async def source():
        try:
            got = yield 1
            while True:
                await backend.sleep(0)
                try:
                    got = yield got
                except KeyError as error:
                    got = error.args[0]
        finally:
            await backend.sleep(0)
            log.append("closed")

    def sync():
        it = fb.async_iter(source())
        assert iter(it) is it
        assert next(it) == 1
        assert it.send("two") == "two"
        assert it.throw(KeyError("three")) == "three"
        it.close()
        assert log == ["closed"]
        with pytest.raises(StopIteration):
            next(it)

        def delegating():
            yield from fb.async_iter(source())

        gen = delegating()
        assert next(gen) == 1
        assert gen.send("a") == "a"
        gen.close()
        assert log == ["closed", "closed"]

    in_portal(backend, fb, sync)


def test_async_iter_methods_only_where_the_source_has_them(backend, fb):
    plain = fb.async_iter(iterables(backend)["iterator"]())
    full = fb.async_iter(iterables(backend)["generator"]())
    for method in ("send", "throw", "close"):
        assert not hasattr(plain, method)
        assert hasattr(full, method)


def test_stop_iteration_inside_the_source(backend, fb):
    async def source():
        yield 1
        raise StopIteration("inside")

    def sync():
        it = fb.async_iter(source())
        assert next(it) == 1
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            next(it)

    in_portal(backend, fb, sync)
