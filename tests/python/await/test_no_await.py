"""`no_await`: a region in which nothing waits, whatever `await_` would otherwise do there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import pytest
from support import only_fiberback

pytestmark = only_fiberback


async def ready():
    return "ready"


def refused(fb, awaitable):
    with pytest.raises(RuntimeError, match="no_await") as caught:
        fb.await_(awaitable)
    return str(caught.value)


def test_refused_on_a_portal_and_free_afterwards(backend, fb):
    def sync():
        with fb.no_await():
            refused(fb, backend.sleep(0))
            refused(fb, ready())
        return fb.await_(ready())

    async def main():
        result = await fb.with_portal_run_sync(sync)
        await fb.ensure_portal()
        assert sync() == result
        return result

    assert backend.run(main) == "ready"


def test_refused_in_a_thread_without_a_loop(fb):
    with fb.no_await():
        refused(fb, ready())
    assert fb.await_(ready()) == "ready"


def test_refused_in_a_worker_thread(aio, fb):
    def work():
        with fb.no_await():
            refused(fb, ready())
        return fb.await_(ready())

    async def main():
        return await asyncio.to_thread(work), await fb.to_thread(work)

    assert aio.run(main) == ("ready", "ready")


def test_a_refused_coroutine_is_closed(fb, recwarn):
    coro = ready()
    with fb.no_await():
        refused(fb, coro)
    with pytest.raises(RuntimeError, match="reuse already awaited"):
        coro.send(None)
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_other_awaitables_are_refused_too(aio, fb):
    async def main():
        await fb.ensure_portal()
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        task = asyncio.ensure_future(ready())
        with fb.no_await():
            refused(fb, future)
            refused(fb, task)
            with pytest.raises(RuntimeError):
                fb.await_(asyncio.gather(task))
            with pytest.raises(RuntimeError):
                next(iter(fb.async_iter(letters())))
            with pytest.raises(RuntimeError), fb.async_context(manager()):
                pass
        return await future

    assert aio.run(main) == 1


async def letters():
    yield "a"


@contextlib.asynccontextmanager
async def manager():
    yield


def test_the_error_names_the_region(fb):
    with fb.no_await("transfer"):
        text = refused(fb, ready())
    assert "'transfer'" in text
    assert f"{__file__}:" in text
    assert "test_the_error_names_the_region" in text
    with fb.no_await(), fb.no_await("inner"):
        assert "'inner'" in refused(fb, ready())


def test_decorator(fb):
    @fb.no_await
    def bare():
        """Documented."""
        return fb.await_(ready())

    @fb.no_await("named")
    def named():
        return fb.await_(ready())

    @fb.no_await()
    def empty(x, *, y):
        return x, y

    assert bare.__name__ == "bare" and bare.__doc__ == "Documented."
    with pytest.raises(RuntimeError, match=r"test_decorator\.<locals>\.bare\(\)"):
        bare()
    with pytest.raises(RuntimeError, match="'named'"):
        named()
    assert empty(1, y=2) == (1, 2)
    assert fb.await_(ready()) == "ready"


def test_decorated_functions_recurse(fb):
    @fb.no_await
    def down(n):
        if n:
            down(n - 1)
        refused(fb, ready())

    down(5)
    assert fb.await_(ready()) == "ready"


def test_decorator_refuses_what_does_not_run_in_the_call(fb):
    async def async_function(): ...
    def generator():
        yield

    async def async_generator():
        yield

    for fn in (async_function, async_generator):
        with pytest.raises(TypeError, match="async function.*Use 'with"):
            fb.no_await(fn)
    with pytest.raises(TypeError, match="generator function.*Use 'with"):
        fb.no_await("name")(generator)


def test_one_region_object_is_reentrant(fb):
    region = fb.no_await("again")
    with region:
        with region:
            refused(fb, ready())
        refused(fb, ready())
    assert fb.await_(ready()) == "ready"


def test_left_by_an_exception(fb):
    with pytest.raises(KeyError), fb.no_await():
        raise KeyError
    assert fb.await_(ready()) == "ready"


def test_other_tasks_await_while_a_region_is_suspended(backend, fb):
    log = []

    async def guarded():
        await fb.ensure_portal()
        with fb.no_await("mine"):
            await backend.sleep(0.01)
            refused(fb, ready())
            log.append("refused")
            await backend.sleep(0.01)
            refused(fb, ready())
        fb.await_(backend.sleep(0))
        log.append("left")

    async def other():
        await fb.ensure_portal()
        while log != ["refused", "left"]:
            fb.await_(backend.sleep(0))

    async def main():
        async with backend.group() as group:
            group.spawn(guarded)
            group.spawn(other)

    backend.run(main)


def test_a_region_of_a_callback_ends_with_it(aio, fb):
    async def main():
        seen = []
        loop = asyncio.get_running_loop()

        def callback():
            with fb.no_await():
                seen.append(refused(fb, ready()))

        loop.call_soon(callback)
        await asyncio.sleep(0.01)
        await fb.ensure_portal()
        return len(seen), fb.await_(ready())

    assert aio.run(main) == (1, "ready")


def test_an_event_loop_run_in_the_region_is_inside(fb):
    def sync():
        return refused(fb, ready())

    with fb.no_await("outside"):
        assert "'outside'" in asyncio.run(fb.with_portal_run_sync(sync))

        async def main():
            await asyncio.sleep(0)
            return sync()

        assert "'outside'" in fb.run(main())


def test_other_threads_are_not_inside(fb):
    with fb.no_await():
        result = []
        thread = threading.Thread(target=lambda: result.append(fb.await_(ready())))
        thread.start()
        thread.join()
    assert result == ["ready"]


def test_entered_by_other_context_managers(backend, fb):
    @contextlib.contextmanager
    def wrapped():
        with fb.no_await("wrapped"):
            yield

    def sync():
        with wrapped():
            assert "'wrapped'" in refused(fb, ready())
        with contextlib.ExitStack() as stack:
            stack.enter_context(fb.no_await("stacked"))
            text = refused(fb, ready())
            assert "'stacked'" in text
            assert "contextlib" not in text
        return fb.await_(ready())

    async def main():
        return await fb.with_portal_run_sync(sync)

    assert backend.run(main) == "ready"


def test_a_coroutine_destroyed_in_its_region(aio, fb):
    async def guarded():
        with fb.no_await():
            await asyncio.sleep(60)

    async def main():
        await fb.ensure_portal()
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        coro = guarded()
        coro.send(None)
        del coro
        gc.collect()
        from fiberback._await import no_await

        assert not no_await._mine.open
        return fb.await_(ready())

    assert aio.run(main) == "ready"


def test_left_in_another_thread(fb):
    def generator():
        with fb.no_await():
            yield

    thing = generator()
    next(thing)
    refused(fb, ready())
    thread = threading.Thread(target=thing.close)
    thread.start()
    thread.join()
    assert fb.await_(ready()) == "ready"


def test_the_dropin_is_guarded_too(aio, fb):
    import fiberback.greenback as greenback

    async def main():
        await greenback.ensure_portal()
        with fb.no_await():
            with pytest.raises(RuntimeError, match="no_await"):
                greenback.await_(ready())
        return greenback.await_(ready())

    assert aio.run(main) == "ready"


def test_refused_where_it_would_park(fb):
    """In a task and in a callback without a portal, on a stock loop."""

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback():
            with fb.no_await("callback"):
                text = refused(fb, asyncio.sleep(0))
            done.set_result((text, fb.await_(asyncio.sleep(0.01, "parked"))))

        with fb.no_await("task"):
            assert "'task'" in refused(fb, asyncio.sleep(0))
            loop.call_soon(callback)
            text, result = await done
        return text, result, fb.await_(asyncio.sleep(0.01, "parked"))

    text, *results = asyncio.run(main())
    assert "'callback'" in text
    assert results == ["parked", "parked"]
