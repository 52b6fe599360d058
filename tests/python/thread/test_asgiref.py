"""`await_` in threads that asgiref runs sync code in, Django's among them.

Thread-sensitive code has one thread. While that waits in `await_`, what it waits for may call such
code again: it must go on serving, as it does in asgiref's own `async_to_sync`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest
from support import import_or_skip, only_fiberback

asgiref = import_or_skip("asgiref.sync")
from asgiref.local import Local  # noqa: E402
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async  # noqa: E402

pytestmark = only_fiberback


def where():
    return threading.get_ident()


async def bare(fn):
    return await fn()


async def in_context(fn):
    async with ThreadSensitiveContext():
        return await fn()


async def in_given_executor(fn):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        async with ThreadSensitiveContext(executor=pool):
            return await fn()


# Who runs thread-sensitive code: the process's one thread, one of the request's, or the main thread.
KINDS = {
    "single thread": lambda main: asyncio.run(bare(main)),
    "ThreadSensitiveContext": lambda main: asyncio.run(in_context(main)),
    "given executor": lambda main: asyncio.run(in_given_executor(main)),
    "main thread": lambda main: async_to_sync(main)(),
    "main thread, ThreadSensitiveContext": lambda main: async_to_sync(in_context)(main),
}


@pytest.fixture(params=KINDS)
def run(request, monkeypatch):
    # A pool of the test's own, so that a hang in one test is not one in the next.
    pool = concurrent.futures.ThreadPoolExecutor(1)
    monkeypatch.setattr(asgiref.SyncToAsync, "single_thread_executor", pool)
    yield KINDS[request.param]
    pool.shutdown(wait=False)


@pytest.mark.parametrize("with_portal", [False, True], ids=["plain", "portal"])
def test_a_view_awaits_what_calls_sync_code(fb, run, with_portal):
    """Every sync view of Django that awaits `aget()`."""

    async def service():
        return await sync_to_async(where)()

    def view():
        return where(), fb.await_(service()), async_to_sync(service)(), fb.await_(service())

    async def main():
        if with_portal:
            return await fb.with_portal_run(sync_to_async(view))
        return await sync_to_async(view)()

    assert len(set(run(main))) == 1


def test_nested_levels(fb, run):
    threads = []

    async def service(level):
        await asyncio.sleep(0)
        return await sync_to_async(view)(level - 1)

    def view(level):
        threads.append(where())
        if level == 0:
            return 0
        if level % 3 == 0:
            return 1 + async_to_sync(service)(level)
        return 1 + fb.await_(service(level))

    async def main():
        return await sync_to_async(view)(7)

    assert run(main) == 7
    assert len(threads) == 8
    assert len(set(threads)) == 1


def test_several_at_once_and_in_tasks(fb, run):
    async def service():
        tasks = [asyncio.create_task(sync_to_async(where)()) for _ in range(5)]
        return await asyncio.gather(*tasks, sync_to_async(where)())

    def view():
        return {where(), *fb.await_(service())}

    async def main():
        return await sync_to_async(view)()

    assert len(run(main)) == 1


def test_errors_and_cancellation_pass(fb, run):
    log = []

    def fails():
        raise KeyError("inner")

    async def service():
        await sync_to_async(fails)()

    async def forever():
        await asyncio.sleep(60)

    def view():
        with pytest.raises(KeyError):
            fb.await_(service())
        try:
            fb.await_(forever())
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sync_to_async(view)(), 0.2)

    run(main)
    assert log == ["cancelled"]


def test_a_task_that_outlives_the_wait(fb, run):
    """What it calls later finds a thread, too."""
    tasks = []

    async def later(go_on):
        await go_on.wait()
        return await sync_to_async(where)()

    async def start(go_on):
        tasks.append(asyncio.create_task(later(go_on)))

    def view(go_on):
        fb.await_(start(go_on))

    async def main():
        go_on = asyncio.Event()
        await sync_to_async(view)(go_on)
        go_on.set()
        assert isinstance(await tasks.pop(), int)

    run(main)


def test_code_that_is_not_thread_sensitive(fb, run):
    """It has a thread of its own, and thread-sensitive code that it awaits keeps its one."""

    async def service():
        return await sync_to_async(where)(), await sync_to_async(where)()

    def view():
        return where(), *fb.await_(service())

    async def main():
        sensitive = await sync_to_async(where)()
        free, *others = await sync_to_async(view, thread_sensitive=False)()
        return sensitive, free, *others

    sensitive, free, *others = run(main)
    assert free != sensitive
    assert others == [sensitive] * 2


def test_locals_go_both_ways(fb, run):
    local = Local()

    async def service():
        seen = local.value
        local.value = "service"
        await asyncio.sleep(0)
        assert await sync_to_async(lambda: local.value)() == "service"
        return seen

    def view():
        local.value = "view"
        assert fb.await_(service()) == "view"
        assert local.value == "service"
        local.value = "again"
        assert fb.await_(service()) == "again"

    async def main():
        local.value = "main"
        await sync_to_async(view)()
        return local.value

    assert run(main) == "service"


@pytest.mark.parametrize("gathered", [False, True])
def test_a_pool_of_one_thread(fb, gathered):
    """What its only thread waits for is work for that very thread: it does it."""
    log = []

    def inner():
        log.append("inner")
        return where()

    async def service(pool):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, log.append, "elsewhere")
        work = [loop.run_in_executor(pool, inner) for _ in range(3)]
        return await asyncio.gather(*work) if gathered else [await each for each in work]

    def outer(pool):
        return {where(), *fb.await_(service(pool))}

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, outer, pool)

    assert len(asyncio.run(main())) == 1
    assert log == ["elsewhere", *["inner"] * 3]


def test_a_pool_of_one_thread_without_a_loop(fb):
    async def service(pool):
        return await asyncio.get_running_loop().run_in_executor(pool, inner, pool)

    def inner(pool):
        return where(), fb.await_(asyncio.sleep(0, where()))

    def outer(pool):
        return {where(), *fb.await_(service(pool)), *fb.await_(service(pool))}

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(outer, pool).result(timeout=60)) == 1


def test_a_pool_all_of_whose_threads_wait(fb):
    async def service(pool):
        await asyncio.sleep(0.1)  # until all wait
        return await asyncio.get_running_loop().run_in_executor(pool, where)

    def outer(pool):
        return fb.await_(service(pool))

    async def main():
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return await asyncio.gather(
                *(loop.run_in_executor(pool, outer, pool) for _ in range(6))
            )

    assert len(asyncio.run(main())) == 6


def test_a_pool_keeps_its_order_and_its_locks(fb):
    """Work that nobody waits for here is not begun in the middle of other work of that thread."""
    lock = threading.Lock()
    log = []

    def second():
        with lock:
            log.append("second")

    def first():
        with lock:
            fb.await_(asyncio.sleep(0.4))
            log.append("first")

    async def main():
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            await asyncio.gather(
                loop.run_in_executor(pool, first), loop.run_in_executor(pool, second)
            )

    asyncio.run(main())
    assert log == ["first", "second"]
