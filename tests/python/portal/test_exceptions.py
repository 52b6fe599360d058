"""Exceptions across `await_`: identity, traceback, `__context__`, bare raise, `sys.exc_info`."""

from __future__ import annotations

import asyncio
import functools
import sys
import traceback

import pytest
from support import only_fiberback


def in_portal(backend, fb, sync_fn, *args):
    return backend.run(functools.partial(fb.with_portal_run_sync, sync_fn, *args))


async def fail(backend, error, suspend=True):
    if suspend:
        await backend.sleep(0)
    raise error


def names(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("suspend", [True, False], ids=["suspended", "ready"])
def test_identity_and_traceback(backend, fb, suspend):
    async def middle(error):
        await fail(backend, error, suspend)

    def sync_inner(error):
        fb.await_(middle(error))

    def sync_outer(error):
        sync_inner(error)

    async def entry(error):
        sync_outer(error)

    async def main():
        error = ValueError("x")
        with pytest.raises(ValueError) as info:
            await fb.with_portal_run(entry, error)
        assert info.value is error
        seen = [n for n in names(error) if n in ("entry", "sync_outer", "sync_inner")]
        assert seen == ["entry", "sync_outer", "sync_inner"]
        tail = [n for n in names(error) if n in ("middle", "fail")]
        assert tail == ["middle", "fail"]
        assert error.__context__ is None
        assert error.__cause__ is None

    backend.run(main)


def test_traceback_does_not_grow_with_suspensions(backend, fb):
    async def late():
        for _ in range(50):
            await backend.sleep(0)
        raise ValueError("late")

    def sync():
        fb.await_(late())

    with pytest.raises(ValueError) as info:
        in_portal(backend, fb, sync)
    assert names(info.value).count("late") == 1
    assert names(info.value).count("sync") == 1


def test_context_is_the_handled_exception(backend, fb):
    def sync():
        try:
            raise KeyError("first")
        except KeyError:
            fb.await_(fail(backend, ValueError("second")))

    with pytest.raises(ValueError) as info:
        in_portal(backend, fb, sync)
    assert isinstance(info.value.__context__, KeyError)
    assert not info.value.__suppress_context__


def test_context_crosses_into_the_coroutine(backend, fb):
    """`sys.exc_info()` in the awaited coroutine is the caller's, before and after suspension."""
    seen = []

    async def look():
        seen.append(sys.exc_info()[0])
        await backend.sleep(0)
        seen.append(sys.exc_info()[0])

    async def native():
        try:
            raise KeyError
        except KeyError:
            await look()

    def sync():
        try:
            raise KeyError
        except KeyError:
            fb.await_(look())

    backend.run(native)
    expected, seen[:] = list(seen), []
    in_portal(backend, fb, sync)
    assert seen == expected == [KeyError, KeyError]


def test_explicit_cause(backend, fb):
    def sync():
        try:
            fb.await_(fail(backend, KeyError("low")))
        except KeyError as low:
            raise ValueError("high") from low

    with pytest.raises(ValueError) as info:
        in_portal(backend, fb, sync)
    assert isinstance(info.value.__cause__, KeyError)


def test_bare_raise_after_await(backend, fb):
    def sync():
        try:
            raise KeyError("kept")
        except KeyError:
            fb.await_(backend.sleep(0))
            try:
                fb.await_(fail(backend, ValueError("inner")))
            except ValueError:
                fb.await_(backend.sleep(0))
            fb.await_(backend.sleep(0))
            raise

    with pytest.raises(KeyError, match="kept") as info:
        in_portal(backend, fb, sync)
    assert info.value.__context__ is None


def test_exc_info_belongs_to_its_task(backend, fb):
    """Interleaved handlers in many tasks each keep their own exception."""
    wrong = []

    def sync(n):
        assert sys.exc_info() == (None, None, None)
        try:
            raise KeyError(n)
        except KeyError:
            for _ in range(n % 7 + 1):
                fb.await_(backend.sleep(0))
                if sys.exc_info()[1].args != (n,):
                    wrong.append(n)
            try:
                raise ValueError(n)
            except ValueError as error:
                fb.await_(backend.sleep(0))
                assert sys.exc_info()[1] is error
                assert error.__context__.args == (n,)
            assert sys.exc_info()[1].args == (n,)
        fb.await_(backend.sleep(0))
        assert sys.exc_info() == (None, None, None)

    async def watch():
        for _ in range(20):
            await backend.sleep(0)
            assert sys.exc_info() == (None, None, None)

    async def main():
        async with backend.group() as group:
            for n in range(40):
                group.spawn(fb.with_portal_run_sync, sync, n)
            group.spawn(watch)
        assert sys.exc_info() == (None, None, None)

    backend.run(main)
    assert not wrong


@only_fiberback
def test_portal_created_while_handling(backend, fb):
    """A portal that starts below an except block sees that block's exception, as a call would."""

    def sync():
        first = sys.exc_info()[0]
        fb.await_(backend.sleep(0))
        return first, sys.exc_info()[0]

    async def main():
        try:
            raise KeyError
        except KeyError:
            assert await fb.with_portal_run_sync(sync) == (KeyError, KeyError)
            assert sys.exc_info()[0] is KeyError
        assert sys.exc_info() == (None, None, None)

    backend.run(main)


def test_finally_and_with_await_while_unwinding(backend, fb):
    log = []

    class Manager:
        def __enter__(self):
            fb.await_(backend.sleep(0))

        def __exit__(self, kind, error, tb):
            fb.await_(backend.sleep(0))
            log.append(("exit", kind))
            assert sys.exc_info()[1] is error

    def sync():
        try:
            with Manager():
                try:
                    raise ValueError("x")
                finally:
                    fb.await_(backend.sleep(0))
                    log.append(("finally", sys.exc_info()[0]))
        except ValueError:
            fb.await_(backend.sleep(0))
            log.append(("except", sys.exc_info()[0]))

    in_portal(backend, fb, sync)
    assert log == [("finally", ValueError), ("exit", ValueError), ("except", ValueError)]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, OSError])
@pytest.mark.parametrize("suspend", [True, False], ids=["suspended", "ready"])
def test_special_exceptions_as_natively(backend, fb, kind, suspend):
    async def native():
        try:
            await fail(backend, kind("v"), suspend)
        except BaseException as error:
            return type(error), str(error), type(error.__cause__)

    def sync():
        try:
            fb.await_(fail(backend, kind("v"), suspend))
        except BaseException as error:
            return type(error), str(error), type(error.__cause__)

    assert in_portal(backend, fb, sync) == backend.run(native)


def test_stop_iteration_out_of_the_sync_function(backend, fb):
    def sync():
        fb.await_(backend.sleep(0))
        raise StopIteration(5)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        in_portal(backend, fb, sync)


def test_stop_iteration_before_any_suspension(backend, fb):
    def sync():
        raise StopIteration(5)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        in_portal(backend, fb, sync)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_process_exits_leave_the_loop(backend, fb, kind):
    def sync():
        fb.await_(backend.sleep(0))
        raise kind(3)

    with pytest.raises(kind):
        in_portal(backend, fb, sync)


def test_exception_group_from_children(backend, fb):
    async def main():
        await fb.ensure_portal()

        async def children():
            async with backend.group() as group:
                group.spawn(fail, backend, ValueError("a"))
                group.spawn(fail, backend, KeyError("b"))

        with pytest.raises(BaseExceptionGroup) as info:
            fb.await_(children())
        assert {type(e) for e in info.value.exceptions} <= {ValueError, KeyError}
        try:
            fb.await_(children())
        except* ValueError:
            fb.await_(backend.sleep(0))
        except* KeyError:
            fb.await_(backend.sleep(0))

    backend.run(main)


def test_thrown_from_the_runner_reaches_the_innermost_frame(fb):
    """What a runner throws surfaces at the awaited yield, passes the sync frames, comes out."""
    import types

    path = []

    @types.coroutine
    def trap():
        try:
            yield "trap"
        except ValueError:
            path.append("trap")
            raise

    async def main():
        def sync():
            try:
                fb.await_(trap())
            except ValueError:
                path.append("sync")
                raise

        coro = fb.with_portal_run_sync(sync)
        assert coro.send(None) == "trap"
        with pytest.raises(ValueError, match="thrown"):
            coro.throw(ValueError("thrown"))
        assert path == ["trap", "sync"]

        coro = fb.with_portal_run_sync(sync)
        coro.send(None)
        coro.close()

    asyncio.run(main())


def test_exceptions_are_released(backend, fb):
    """An exception that passed through a portal keeps nothing alive but what it references."""
    import gc
    import weakref

    class Error(Exception):
        pass

    alive = []

    def sync():
        error = Error()
        alive.append(weakref.ref(error))
        fb.await_(fail(backend, error))

    async def main():
        with pytest.raises(Error):
            await fb.with_portal_run_sync(sync)
        await backend.sleep(0)

    backend.run(main)
    gc.collect()
    assert alive[0]() is None


def test_warnings_name_the_caller(backend, fb):
    import warnings

    def sync():
        fb.await_(backend.sleep(0))
        warnings.warn("here", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="here") as record:
        in_portal(backend, fb, sync)
    assert record[0].filename == __file__
